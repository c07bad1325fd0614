package conf

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode/utf8"
)

// Severity tells how much an [Issue] matters.
type Severity uint8

// The severities. A Note changes nothing that the file asks for today; after a
// Warning something else is used instead; an Error drops a line altogether.
const (
	Note Severity = iota
	Warning
	Error
)

func (s Severity) String() string {
	return [...]string{"note", "warning", "error"}[s]
}

// Place is a line of a file.
type Place struct {
	File string
	Line int // from 1; 0 is the file as a whole
}

func (p Place) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Issue is a complaint about one place of a configuration file that does not
// keep the rest from being used. It never contains a secret.
type Issue struct {
	Place
	Severity Severity
	Text     string // what the file says; "" if it is about the whole file
	Problem  string // what is wrong with it
	Allowed  string // what could stand there; "" if Problem says so
	Used     string // what happens instead
	Cause    error  // what kept a file from being read, if that is the problem
}

// String is the issue as one line that begins with FILE:LINE.
func (i Issue) String() string {
	var b strings.Builder
	b.WriteString(i.Place.String() + ": ")
	if i.Text != "" {
		fmt.Fprintf(&b, "%q: ", i.Text)
	}
	b.WriteString(i.Problem)
	if i.Allowed != "" {
		fmt.Fprintf(&b, "; allowed: %s", i.Allowed)
	}
	if i.Used != "" {
		fmt.Fprintf(&b, "; %s", i.Used)
	}
	return b.String()
}

// SyntaxError is a line that makes the whole file unusable, because nobody can
// tell what it and the lines after it were meant to be.
type SyntaxError struct {
	Place
	Text    string
	Problem string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s: %q: %s; nothing of the file is used, correct this line", e.Place, e.Text, e.Problem)
}

// maxText is how much of a line a complaint quotes, in bytes.
const maxText = 120

// Excerpt makes a text from a configuration file fit for a message: without
// what looks like a secret, and not too long.
func Excerpt(s string) string { return excerpt(s, 3*maxText) }

// excerpt is s fit for a message: without secrets, and not longer than limit.
func excerpt(s string, limit int) string {
	s = strings.ToValidUTF8(redact(s), "\uFFFD")
	if len(s) <= limit {
		return s
	}
	cut := limit
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// Secrets get into messages by way of lines that were misread: a comma where a
// semicolon belongs, a key that was wrapped, a field name with a typo. So they
// are recognised by their looks and not only by where they stand.
var secretLooks = sync.OnceValue(func() []look {
	return []look{
		{regexp.MustCompile(`(?i)(DHHC-1|NVMeTLSkey-1):[^\s;,"]*`), "$1:<secret>"},
		{regexp.MustCompile(`(?i)([a-z_-]*(?:secret|key|chap)[a-z_-]*\s*=)[^;"]*`), "$1<secret>"},
		{regexp.MustCompile(`[A-Za-z0-9+/]{40,}={0,2}`), "<secret>"},
	}
})

type look struct {
	like    *regexp.Regexp
	instead string
}

func redact(s string) string {
	for _, l := range secretLooks() {
		s = l.like.ReplaceAllString(s, l.instead)
	}
	return s
}

// maxIssues bounds what the files can have the daemon complain of.
const maxIssues = 200

// issues collects complaints.
type issues struct {
	list    []Issue
	dropped int
	last    Place // of the last one dropped
}

func (s *issues) add(i Issue) {
	if len(s.list) >= maxIssues {
		s.dropped++
		s.last = i.Place
		return
	}
	i.Text = excerpt(i.Text, maxText)
	i.Problem = Excerpt(i.Problem) // it may quote values
	s.list = append(s.list, i)
}

// all returns what was collected.
func (s *issues) all() []Issue {
	if s.dropped == 0 {
		return s.list
	}
	return append(s.list, Issue{
		Place: s.last, Severity: Error, Text: "…",
		Problem: fmt.Sprintf("%d more complaints like the ones above", s.dropped),
	})
}
