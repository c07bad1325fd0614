package output

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Column is one of a table.
type Column[T any] struct {
	title  string
	cell   func(T) string
	shrink bool
	wide   bool
	rank   int
}

// Col makes a column.
func Col[T any](title string, cell func(T) string) Column[T] {
	return Column[T]{title: title, cell: cell}
}

// Shrink lets the cells be cut on a terminal that is too narrow.
func (c Column[T]) Shrink() Column[T] { c.shrink = true; return c }

// Wide has the column shown by [PrintWide] only.
func (c Column[T]) Wide() Column[T] { c.wide = true; return c }

// Rank lets the column be left out on a terminal for which cutting does not
// help. The column of the highest rank goes first.
func (c Column[T]) Rank(n int) Column[T] { c.rank = n; return c }

const (
	gap      = 2  // between columns
	narrow   = 12 // no column is cut to fewer characters
	ellipsis = "…"
	// NoLimit is the width of what is no terminal.
	NoLimit = 1 << 30
)

// PrintTable prints a row for each element. A column that no element has
// anything for only takes room, and is left out; a dash stands for nothing. On
// a terminal that is too narrow, cells are cut, then columns are left out, and
// if that does not help, each element is printed as a paragraph; but none of
// this if no column may be cut or left out.
func PrintTable[T any](w io.Writer, columns []Column[T], list []T) error {
	return PrintTableIn(w, Width(w), columns, list)
}

// PrintTableIn is PrintTable for a width in characters.
func PrintTableIn[T any](w io.Writer, width int, columns []Column[T], list []T) error {
	narrowed := slices.DeleteFunc(slices.Clone(columns), func(c Column[T]) bool { return c.wide })
	return printTable(w, width, narrowed, list)
}

// PrintWide prints all columns, however wide the table becomes.
func PrintWide[T any](w io.Writer, columns []Column[T], list []T) error {
	return printTable(w, NoLimit, columns, list)
}

func printTable[T any](w io.Writer, width int, columns []Column[T], list []T) error {
	var all []filled
	flexible := false
	for _, c := range columns {
		flexible = flexible || c.shrink || c.rank > 0
		cells := []string{c.title}
		empty := true
		for _, v := range list {
			text := Clean(c.cell(v))
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
	if !flexible {
		width = NoLimit
	}
	var b strings.Builder
	if shown, ok := fit(all, width); ok {
		for line := range len(list) + 1 {
			writeRow(&b, shown, line)
		}
		switch left := len(all) - len(shown); {
		case left == 1:
			b.WriteString("(1 more column: -o wide)\n")
		case left > 1:
			fmt.Fprintf(&b, "(%d more columns: -o wide)\n", left)
		}
	} else {
		writeParagraphs(&b, all, len(list))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeParagraphs(b *strings.Builder, columns []filled, n int) {
	for line := 1; line <= n; line++ {
		if line > 1 {
			b.WriteByte('\n')
		}
		for _, c := range columns {
			if c.cells[line] != "-" {
				fmt.Fprintf(b, "%s: %s\n", c.cells[0], c.cells[line])
			}
		}
	}
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

// Width is the number of characters of a line, if that is limited.
func Width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok || !IsTerminal(w) {
		return NoLimit
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		return n
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 {
		return NoLimit
	}
	return int(size.Col)
}

// IsTerminal tells terminals from files and pipes.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
