// Package output is how the tools print: tables for people, JSON for programs,
// and neither lets what a stranger has named steer the terminal.
package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf16"
)

// The formats.
const (
	Table = "table"
	JSON  = "json"
)

// Format checks what the option -o says. If it says nothing, a terminal gets a
// table and everything else JSON.
func Format(option string, w io.Writer) (string, error) {
	switch option {
	case Table, JSON:
		return option, nil
	case "":
		if isTerminal(w) {
			return Table, nil
		}
		return JSON, nil
	}
	return "", fmt.Errorf("there is no output %q, only table and json", option)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != ""
}

// PrintJSON prints a value.
func PrintJSON(w io.Writer, v any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, escape(text.String()))
	return err
}

// escape does to JSON what Clean does to text, and changes no value. Outside
// of strings JSON has line breaks besides what can be printed.
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) || r == '\n' {
			b.WriteRune(r)
			continue
		}
		for _, u := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&b, `\u%04x`, u)
		}
	}
	return b.String()
}

// Column is one of a table.
type Column[T any] struct {
	title string
	cell  func(T) string
}

// Col makes a column.
func Col[T any](title string, cell func(T) string) Column[T] { return Column[T]{title, cell} }

// PrintTable prints a row for each element. A column that no element has
// anything for only takes room, and is left out; a dash stands for nothing.
func PrintTable[T any](w io.Writer, columns []Column[T], list []T) error {
	var shown []Column[T]
	for _, c := range columns {
		for _, v := range list {
			if c.cell(v) != "" {
				shown = append(shown, c)
				break
			}
		}
	}
	tab := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	row := func(cell func(Column[T]) string) {
		cells := make([]string, len(shown))
		for i, c := range shown {
			cells[i] = Clean(cell(c))
		}
		fmt.Fprintln(tab, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	row(func(c Column[T]) string { return c.title })
	for _, v := range list {
		row(func(c Column[T]) string {
			if text := c.cell(v); text != "" {
				return text
			}
			return "-"
		})
	}
	return tab.Flush()
}

// Clean keeps what a stranger named from steering the terminal.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
