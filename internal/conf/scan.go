package conf

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Item is one line of a configuration file that says something: a section
// header, an option, or a further line of an option's value.
type Item struct {
	Place
	Section string
	Key     string // lower case; empty for a section header
	Value   string
	// Continued marks a line that is indented deeper than its option: it is
	// one more value of it.
	Continued bool
	// Bare marks an option without "=". It was complained of, and has no
	// value, but further lines may give it some.
	Bare bool
}

// maxFile bounds a configuration file. A thousand controllers fit many times.
const maxFile = 1 << 20

// Scan reads a file of the form that stafd.conf, stacd.conf and sys.conf have
// in common, which is the one Python's configparser gave them:
//
//   - "[Section]" headers, then "key = value"; the first "=" separates;
//   - keys in any case, sections verbatim; both may be repeated;
//   - "#" and ";" begin a comment only at the beginning of a line;
//   - a line indented deeper than its option is one more value of it;
//   - there is no quoting and no interpolation.
//
// Empty lines, which configparser counts as empty values in some places, are
// no items, nor are the values behind them changed by that. The name is that of
// the file, for complaints. A *[SyntaxError] is about the whole file.
func Scan(name string, r io.Reader) ([]Item, []Issue, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(text) > maxFile {
		return nil, nil, fmt.Errorf("%s is larger than %d bytes: this cannot be a configuration file", name, maxFile)
	}
	s := scanner{at: Place{File: name}}
	lines := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(text))
	if rest, ok := strings.CutPrefix(lines, "\uFEFF"); ok {
		lines = rest
		s.issues.add(Issue{Place: Place{name, 1}, Severity: Note, Text: "\uFEFF", Problem: "the file begins with a byte order mark", Used: "skipped"})
	}
	for line := range strings.SplitSeq(lines, "\n") {
		s.at.Line++
		if err := s.scan(line); err != nil {
			return nil, nil, err
		}
	}
	return s.items, s.issues.all(), nil
}

type scanner struct {
	items   []Item
	issues  issues
	at      Place
	section string
	inside  bool // a section has begun
	key     string
	indent  int // of the line that key is on, in characters
}

// isSpace is what Python takes for white space.
func isSpace(r rune) bool { return unicode.IsSpace(r) || 0x1c <= r && r <= 0x1f }

func trim(s string) string { return strings.TrimFunc(s, isSpace) }

func (s *scanner) scan(line string) error {
	text := trim(line)
	if text == "" || text[0] == '#' || text[0] == ';' {
		return nil
	}
	header := text[0] == '['
	if strings.ContainsRune(text, 0) || !utf8.ValidString(text) {
		if header {
			return s.broken(text, "a section name has to be UTF-8 text")
		}
		s.issues.add(Issue{Place: s.at, Severity: Error, Text: text, Problem: "not UTF-8 text", Used: "line ignored"})
		return nil
	}

	indent := utf8.RuneCountInString(line) - utf8.RuneCountInString(strings.TrimLeftFunc(line, isSpace))
	if s.key != "" && indent > s.indent {
		s.items = append(s.items, Item{Place: s.at, Section: s.section, Key: s.key, Value: text, Continued: true})
		return nil
	}
	s.indent = indent
	if header {
		return s.header(text)
	}
	if !s.inside {
		return s.broken(text, "this stands before the first [Section]")
	}
	key, value, ok := strings.Cut(text, "=")
	key = strings.ToLower(trim(key))
	if key == "" {
		return s.broken(text, "there is no name before the \"=\"")
	}
	s.key = key
	if !ok {
		s.issues.add(Issue{Place: s.at, Severity: Error, Text: text, Problem: "no \"=\": an option has the form name = value", Used: "line ignored"})
	}
	s.items = append(s.items, Item{Place: s.at, Section: s.section, Key: key, Value: trim(value), Bare: !ok})
	return nil
}

func (s *scanner) header(text string) error {
	end := strings.LastIndexByte(text, ']')
	if end < 0 {
		return s.broken(text, "the section name has no closing \"]\"")
	}
	name, rest := text[1:end], text[end+1:]
	if name == "" {
		return s.broken(text, "the section has no name")
	}
	if rest != "" {
		s.issues.add(Issue{Place: s.at, Severity: Warning, Text: text, Problem: "there is text behind the section name", Used: "text ignored"})
	}
	s.section, s.inside, s.key = name, true, ""
	s.items = append(s.items, Item{Place: s.at, Section: name})
	return nil
}

func (s *scanner) broken(text, problem string) error {
	return &SyntaxError{Place: s.at, Text: excerpt(text, maxText), Problem: problem}
}
