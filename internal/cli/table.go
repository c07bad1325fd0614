package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// columnOf is one of a table of values.
type columnOf[T any] struct {
	title  string
	cell   func(T) string
	shrink bool // its cells are cut on a terminal that is too narrow
	wide   bool // shown only when asked for
	// If cutting does not help, columns are left out, that of the highest rank
	// first. One of rank zero stays.
	rank int
}

const (
	gap      = 2  // between columns
	narrow   = 12 // no column is cut to fewer characters
	noLimit  = 1 << 30
	ellipsis = "…"
)

// printTable prints a line for each value, below the titles. A column that
// nobody has anything for only takes room, and is left out. On a terminal
// that is too narrow, cells are cut, then columns are left out, and if that
// does not help, each value is printed as a paragraph.
func printTable[T any](t *tool, columns []columnOf[T], values []T) error {
	var all []filled
	for _, c := range columns {
		if c.wide && t.output != formatWide {
			continue
		}
		cells := []string{c.title}
		empty := true
		for _, v := range values {
			text := clean(c.cell(v))
			empty = empty && text == ""
			if text == "" {
				text = "-"
			}
			cells = append(cells, text)
		}
		if !empty {
			all = append(all, newFilled(cells, c.shrink, c.rank))
		}
	}
	var b strings.Builder
	if shown, ok := fit(all, t.room()); ok {
		for line := range len(values) + 1 {
			writeRow(&b, shown, line)
		}
		if left := len(all) - len(shown); left > 0 {
			fmt.Fprintf(&b, "(%s: -o wide)\n", count(left, "more column", "more columns"))
		}
	} else {
		for line := 1; line <= len(values); line++ {
			if line > 1 {
				b.WriteByte('\n')
			}
			for _, c := range all {
				if c.cells[line] != "-" {
					fmt.Fprintf(&b, "%s: %s\n", c.cells[0], c.cells[line])
				}
			}
		}
	}
	_, err := io.WriteString(t.stdout, b.String())
	return err
}

// filled is a column with its cells, the title first.
type filled struct {
	cells  []string
	width  int
	shrink bool
	rank   int
}

func newFilled(cells []string, shrink bool, rank int) filled {
	f := filled{cells: cells, shrink: shrink, rank: rank}
	for _, c := range cells {
		f.width = max(f.width, utf8.RuneCountInString(c))
	}
	return f
}

func writeRow(b *strings.Builder, columns []filled, line int) {
	var row strings.Builder
	for _, c := range columns {
		text := cut(c.cells[line], c.width)
		row.WriteString(text)
		row.WriteString(strings.Repeat(" ", c.width-utf8.RuneCountInString(text)+gap))
	}
	b.WriteString(strings.TrimRight(row.String(), " "))
	b.WriteByte('\n')
}

// fit makes a table fit, and reports whether that can be done.
func fit(all []filled, room int) ([]filled, bool) {
	shown := slices.Clone(all)
	for {
		if fitted := slices.Clone(shown); shrink(fitted, room) {
			return fitted, true
		}
		last := 0
		for i, c := range shown {
			if c.rank > shown[last].rank {
				last = i
			}
		}
		if len(shown) == 0 || shown[last].rank == 0 {
			return nil, false
		}
		shown = slices.Delete(shown, last, last+1)
	}
}

// shrink takes from the widest of the columns that may shrink until the table
// fits, and reports whether it does then.
func shrink(columns []filled, room int) bool {
	total := -gap
	for _, c := range columns {
		total += c.width + gap
	}
	for ; total > room; total-- {
		widest := -1
		for i, c := range columns {
			if c.shrink && c.width > narrow && (widest < 0 || c.width > columns[widest].width) {
				widest = i
			}
		}
		if widest < 0 {
			return false
		}
		columns[widest].width--
	}
	return true
}

// cut takes what is too much out of the middle: names differ at their ends.
func cut(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	tail := (width - 1) * 2 / 3
	return string(runes[:width-1-tail]) + ellipsis + string(runes[len(runes)-tail:])
}

// clean keeps what a target named from steering the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// room is the number of characters of a line, if that is limited.
func (t *tool) room() int {
	if t.columnsOfTerminal > 0 {
		return t.columnsOfTerminal
	}
	if t.output == formatWide || !isTerminal(t.stdout) {
		return noLimit
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	f, ok := t.stdout.(*os.File)
	if !ok {
		return noLimit
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 {
		return noLimit
	}
	return int(size.Col)
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// count is a number of things.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return strconv.Itoa(n) + " " + many
}

// list joins words as a sentence does: "a, b and c".
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " and " + words[last]
}

// distinct leaves out what was there before.
func distinct(words []string) (out []string) {
	for _, w := range words {
		if !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}
