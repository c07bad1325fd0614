package stasadm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/nvme-stas/stas/internal/atomicfile"
	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
)

// sysConf is a sys.conf to be edited line by line, so that all that is not
// about the option at hand stays as people wrote it.
type sysConf struct {
	path   string // empty: there is none to be edited
	text   string
	lines  []string
	items  []conf.Item
	byLine map[int]conf.Item // line numbers count from 1
}

// openSysConf reads a sys.conf; a missing one is empty, one that cannot be
// understood is not edited.
func openSysConf(path string) (*sysConf, error) {
	if path == "" {
		return &sysConf{}, nil
	}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, explain(err)
	}
	return parseSysConf(path, string(text))
}

func parseSysConf(path, text string) (*sysConf, error) {
	items, _, err := conf.Scan(path, strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	s := &sysConf{path: path, text: text, items: items, byLine: make(map[int]conf.Item, len(items))}
	for _, it := range items {
		s.byLine[it.Line] = it
	}
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(text)
	if text = strings.TrimSuffix(text, "\n"); text != "" {
		s.lines = strings.Split(text, "\n")
	}
	return s, nil
}

// value is that of an option in [Host]; the last one counts.
func (s *sysConf) value(key string) string {
	for _, it := range slices.Backward(s.items) {
		if it.Section == hostid.Section && it.Key == key {
			return it.Value
		}
	}
	return ""
}

// with is the text in which the option has the value, and has it once: in the
// place of its last line, or behind all others of [Host].
func (s *sysConf) with(key, value string) string {
	place, own := 0, false
	for _, it := range s.items {
		if it.Section == hostid.Section && (!own || it.Key == key) {
			place, own = it.Line, it.Key == key
		}
	}
	option := key + " = " + value
	if place == 0 {
		lines := slices.Clone(s.lines)
		if len(lines) > 0 {
			lines = append(lines, "")
		}
		return join(append(lines, "["+hostid.Section+"]", option))
	}
	indent := s.indentAt(place)
	var lines []string
	for i, l := range s.lines {
		if !s.about(key, i+1) {
			lines = append(lines, l)
		}
		if i+1 == place {
			lines = append(lines, indent+option)
		}
	}
	return join(lines)
}

// without is the text without the option.
func (s *sysConf) without(key string) string {
	var lines []string
	for i, l := range s.lines {
		if !s.about(key, i+1) {
			lines = append(lines, l)
		}
	}
	return join(lines)
}

// indentAt is how far an option behind the given line has to be indented.
// Deeper than the option before, it would continue that one; less deep than
// the line after, that one would continue it.
func (s *sysConf) indentAt(place int) string {
	indent := ""
	for _, it := range s.items {
		line := strings.TrimPrefix(s.lines[it.Line-1], "\uFEFF")
		own := line[:len(line)-len(strings.TrimLeftFunc(line, unicode.IsSpace))]
		switch {
		case it.Line <= place && !it.Continued:
			indent = own
		case it.Line > place && len(own) > len(indent):
			return own
		case it.Line > place:
			return indent
		}
	}
	return indent
}

// about reports whether a line is about an option of [Host].
func (s *sysConf) about(key string, line int) bool {
	it := s.byLine[line]
	return it.Section == hostid.Section && it.Key == key
}

func join(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return strings.Join(lines, "\n") + "\n"
}

// save replaces the file, if there is one to be edited and anything changed.
func (s *sysConf) save(text string) error {
	if s.path == "" || text == s.text {
		return nil
	}
	if err := writeFile(s.path, text); err != nil {
		return fmt.Errorf("writing %s: %w", s.path, err)
	}
	return nil
}

// referenceTo is what sys.conf says of a value that is in a file. The path is
// made absolute, since the daemons do not run in this directory.
func referenceTo(file string) (string, error) {
	path, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(path, "\r\n\x00") || path != strings.TrimSpace(path) {
		return "", fmt.Errorf("sys.conf cannot refer to a file called %q", path)
	}
	return hostid.FilePrefix + path, nil
}

// readWord reads a value from its file; "" if there is none.
func readWord(path string) (string, error) {
	if fi, err := os.Stat(path); err == nil && !fi.Mode().IsRegular() {
		return "", nil // a device or pipe holds nothing
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", explain(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	return word, nil
}

// writeFile writes a file of an identity, which is no secret.
func writeFile(path, text string) error {
	return explain(atomicfile.Write(path, []byte(text), 0o644))
}
