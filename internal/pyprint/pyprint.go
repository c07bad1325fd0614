// Package pyprint writes values in the notation of Python literals: on one
// line as Python's repr does, and over several lines as its pprint does. Users
// of nvme-stas 2.x feed its output to ast.literal_eval, and some dictionaries
// on D-Bus hold such texts.
//
// A value is what encoding/json decodes into an any, or is built of
// map[string]string, string, bool, int, [json.Number] and float64 likewise.
package pyprint

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Dict is a dictionary that Repr writes in this order, as Python does. In all
// others the keys are sorted, as by pprint.
type Dict []Item

// Item is an entry of a dictionary.
type Item struct {
	Key   string
	Value any
}

// Repr is the value on one line.
func Repr(v any) string {
	switch v := plain(v).(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case string:
		return quote(v)
	case []any:
		return "[" + joined(v) + "]"
	case map[string]any:
		parts := make([]string, 0, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			parts = append(parts, quote(k)+": "+Repr(v[k]))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case Dict:
		parts := make([]string, len(v))
		for i, item := range v {
			parts[i] = quote(item.Key) + ": " + Repr(item.Value)
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case json.Number:
		return number(v)
	case float64:
		return float(v)
	default:
		return fmt.Sprint(v)
	}
}

func joined(list []any) string {
	parts := make([]string, len(list))
	for i, v := range list {
		parts[i] = Repr(v)
	}
	return strings.Join(parts, ", ")
}

// plain brings lists and dictionaries of all kinds into one form.
func plain(v any) any {
	switch v := v.(type) {
	case map[string]string:
		m := make(map[string]any, len(v))
		for k, s := range v {
			m[k] = s
		}
		return m
	case []map[string]string:
		list := make([]any, len(v))
		for i, m := range v {
			list[i] = m
		}
		return list
	}
	return v
}

// number is one of JSON: an integer keeps its digits, all else is a float.
func number(n json.Number) string {
	if !strings.ContainsAny(string(n), ".eE") {
		if n == "-0" {
			return "0"
		}
		return string(n)
	}
	f, _ := strconv.ParseFloat(string(n), 64) // beyond the range it is infinite
	return float(f)
}

// float has as few digits as tell it from its neighbours, and an exponent if
// it would have more than 16 digits before the point or four zeros behind it.
func float(f float64) string {
	text := strconv.FormatFloat(f, 'e', -1, 64)
	_, exponent, ok := strings.Cut(text, "e")
	if !ok {
		return strings.ToLower(strings.TrimPrefix(text, "+")) // inf, nan
	}
	if e, _ := strconv.Atoi(exponent); e < -4 || e >= 16 {
		return text
	}
	text = strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

// quote is a string literal.
func quote(s string) string {
	delimiter := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		delimiter = '"'
	}
	var b strings.Builder
	b.WriteByte(delimiter)
	for _, r := range s {
		switch {
		case r == '\\' || r == rune(delimiter):
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	b.WriteByte(delimiter)
	return b.String()
}

// Format is the value with line breaks, so that it fits into width columns as
// far as that can be. There is none at its end.
func Format(v any, width int) string {
	p := printer{width: width}
	p.print(v, 0, 0, true)
	return p.String()
}

// printer writes a value that begins in a column. behind is the number of
// characters that have to follow on the value's last line.
type printer struct {
	strings.Builder
	width int
}

func (p *printer) print(v any, column, behind int, whole bool) {
	line := Repr(v)
	if length(line) <= p.width-column-behind {
		p.WriteString(line)
		return
	}
	switch v := plain(v).(type) {
	case map[string]any:
		p.WriteByte('{')
		last := len(v) - 1
		for i, k := range slices.Sorted(maps.Keys(v)) {
			key := quote(k) + ": "
			p.WriteString(key)
			p.element(v[k], column+1, column+1+length(key), behind, i == last)
		}
		p.WriteByte('}')
	case []any:
		p.WriteByte('[')
		for i, e := range v {
			p.element(e, column+1, column+1, behind, i == len(v)-1)
		}
		p.WriteByte(']')
	case string:
		p.text(v, column, behind, whole)
	default:
		p.WriteString(line)
	}
}

// element writes one of a list or dictionary, and goes on to the margin for
// the next one. Behind the last one comes the bracket.
func (p *printer) element(v any, margin, column, behind int, last bool) {
	if last {
		p.print(v, column, behind+1, false)
		return
	}
	p.print(v, column, 1, false)
	p.WriteByte(',')
	p.newLine(margin)
}

func (p *printer) newLine(column int) {
	p.WriteByte('\n')
	p.WriteString(strings.Repeat(" ", column))
}

// text writes a string as several literals below each other, which Python
// takes for one. If it is the whole output, that needs parentheses.
func (p *printer) text(s string, column, behind int, whole bool) {
	if whole {
		column, behind = column+1, behind+1
	}
	pieces := p.pieces(s, p.width-column, behind)
	if whole && len(pieces) > 1 {
		p.WriteByte('(')
		defer p.WriteByte(')')
	}
	for i, piece := range pieces {
		if i > 0 {
			p.newLine(column)
		}
		p.WriteString(quote(piece))
	}
}

// pieces cuts a string where its lines end, and lines that are too long after
// white space. behind counts for the last piece only.
func (p *printer) pieces(s string, room, behind int) (all []string) {
	lines := split(s, lineEnd)
	for i, line := range lines {
		words := split(line, wordEnd)
		if i < len(lines)-1 {
			if length(quote(line)) <= room {
				words = []string{line}
			}
		} else if length(quote(line)) <= room-behind {
			words = []string{line}
		}
		piece := ""
		for j, word := range words {
			space := room
			if i == len(lines)-1 && j == len(words)-1 {
				space -= behind
			}
			if piece != "" && length(quote(piece+word)) > space {
				all = append(all, piece)
				piece = ""
			}
			piece += word
		}
		all = append(all, piece)
	}
	return all
}

// split cuts a string at each place where end says that something has ended.
func split(s string, end func(before, after rune) bool) (parts []string) {
	start := 0
	for i := range s {
		if i == start {
			continue
		}
		before, _ := utf8.DecodeLastRuneInString(s[:i])
		after, _ := utf8.DecodeRuneInString(s[i:])
		if end(before, after) {
			parts = append(parts, s[start:i])
			start = i
		}
	}
	return append(parts, s[start:])
}

func lineEnd(before, after rune) bool {
	if before == '\r' && after == '\n' {
		return false
	}
	return strings.ContainsRune("\n\v\f\r\x1c\x1d\x1e\u0085\u2028\u2029", before)
}

func wordEnd(before, after rune) bool { return isSpace(before) && !isSpace(after) }

// isSpace is what Python takes for white space: more than Unicode does.
func isSpace(r rune) bool { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f }

func length(s string) int { return utf8.RuneCountInString(s) }
