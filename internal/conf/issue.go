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

// Issue is a complaint about one place of a configuration file that does not
// keep the rest from being used. It never contains a secret.
type Issue struct {
	File     string
	Line     int
	Severity Severity
	Text     string // what the file says
	Problem  string // what is wrong with it
	Allowed  string // what could stand there; "" if Problem says so
	Used     string // what happens instead
}

// String is the issue as one line that begins with FILE:LINE.
func (i Issue) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: %q: %s", i.File, i.Line, i.Text, i.Problem)
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
	File    string
	Line    int
	Text    string
	Problem string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d: %q: %s; nothing of the file is used, correct this line", e.File, e.Line, e.Text, e.Problem)
}

// maxText is how much of a line a complaint quotes, in bytes.
const maxText = 120

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

// maxIssues bounds what one file can have the daemon complain of.
const maxIssues = 200

// issues collects the complaints about one file.
type issues struct {
	file    string
	list    []Issue
	dropped int
	last    int // line of the last one dropped
}

func (s *issues) add(i Issue) {
	if len(s.list) >= maxIssues {
		s.dropped++
		s.last = i.Line
		return
	}
	i.File = s.file
	i.Text = excerpt(i.Text, maxText)
	i.Problem = excerpt(i.Problem, 3*maxText) // it may quote values
	s.list = append(s.list, i)
}

// all returns what was collected.
func (s *issues) all() []Issue {
	if s.dropped == 0 {
		return s.list
	}
	return append(s.list, Issue{
		File: s.file, Line: s.last, Severity: Error, Text: "…",
		Problem: fmt.Sprintf("%d more complaints like the ones above", s.dropped),
	})
}
