// Package output is how the tools print: tables for people, JSON and YAML for
// programs, and none lets what a stranger has named steer the terminal.
package output

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf16"
)

// The formats.
const (
	Table  = "table"
	Wide   = "wide" // a table with all columns, however wide
	JSON   = "json"
	YAML   = "yaml"
	Python = "python" // Python literals, as nvme-stas 2.x prints them
)

// Format checks what the option -o says. If it says nothing, a terminal gets a
// table and everything else JSON.
func Format(option string, w io.Writer) (string, error) {
	return Choose(option, w, JSON, Table, JSON)
}

// Choose is Format for a program with other formats, of which it says what is
// for everything that is no terminal.
func Choose(option string, w io.Writer, otherwise string, formats ...string) (string, error) {
	if option == "" {
		option = otherwise
		if IsTerminal(w) {
			option = Table
		}
	}
	if !slices.Contains(formats, option) {
		last := len(formats) - 1
		return "", fmt.Errorf("there is no output %q, only %s and %s", option, strings.Join(formats[:last], ", "), formats[last])
	}
	return option, nil
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

// Clean keeps what a stranger named from steering the terminal.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
