package output

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestFit(t *testing.T) {
	for _, c := range []struct {
		columns string // "WIDTH[x][RANK]…", x for those that may shrink
		room    int
		want    string
	}{
		{"5 40x 30x", 100, "5 40 30"},
		{"5 40x 30x", 79, "5 40 30"},
		{"5 40x 30x", 78, "5 39 30"},
		{"5 40x 30x", 59, "5 25 25"},
		{"5 40x 30x", 33, "5 12 12"},
		{"5 40x 30x", 32, "no"},
		{"5 40x 30x/1", 32, "5 25"},
		{"5/2 40x/1 30/3", 45, "5 38"},
		{"5/2 40x/1 30/3", 47, "5 40"},
		{"5/2 40x/1 30/3", 18, "18"},
		{"5/2 40x/1 30/3", 12, "12"},
		{"5 40 30", 40, "no"},
		{"5/1", 4, ""},
		{"", 0, ""},
	} {
		var columns []filled
		for text := range strings.FieldsSeq(c.columns) {
			var f filled
			text, rank, _ := strings.Cut(text, "/")
			f.rank, _ = strconv.Atoi(rank)
			text, f.shrink = strings.CutSuffix(text, "x")
			f.width, _ = strconv.Atoi(text)
			columns = append(columns, f)
		}
		shown, ok := fit(columns, c.room)
		var widths []string
		for _, f := range shown {
			widths = append(widths, fmt.Sprint(f.width))
		}
		got := strings.Join(widths, " ")
		if !ok {
			got = "no"
		}
		if got != c.want {
			t.Errorf("%s in %d: %q, want %q", c.columns, c.room, got, c.want)
		}
	}
}

func TestCut(t *testing.T) {
	const text = "nqn.2014-08.org.example:storage.pool17"
	for width, want := range map[int]string{
		100: text, len(text): text, 12: "nqn.….pool17", 1: "…", 2: "n…",
	} {
		if got := cut(text, width); got != want || utf8.RuneCountInString(got) > width {
			t.Errorf("%d: %q, want %q", width, got, want)
		}
	}
}

// A table that has not been prepared for narrow terminals stays as it is.
func TestFlexible(t *testing.T) {
	name := Col("NAME", func(s string) string { return s })
	again := Col("AGAIN", func(s string) string { return s }).Wide()
	list := []string{"a-very-long-name", ""}
	for _, c := range []struct {
		width   int
		columns []Column[string]
		want    string
	}{
		{10, []Column[string]{name}, "NAME\na-very-long-name\n-\n"},
		{100, []Column[string]{name, again}, "NAME\na-very-long-name\n-\n"},
		{14, []Column[string]{name.Shrink()}, "NAME\na-ver…ong-name\n-\n"},
		{20, []Column[string]{name, name.Rank(1)}, "NAME\na-very-long-name\n-\n(1 more column: -o wide)\n"},
		{10, []Column[string]{name.Shrink()}, "NAME: a-very-long-name\n\n"},
	} {
		var out bytes.Buffer
		if err := PrintTableIn(&out, c.width, c.columns, list); err != nil || out.String() != c.want {
			t.Errorf("in %d: %q, want %q, %v", c.width, out.String(), c.want, err)
		}
	}
	var out bytes.Buffer
	if err := PrintWide(&out, []Column[string]{name, again}, list); err != nil || out.String() != "NAME              AGAIN\na-very-long-name  a-very-long-name\n-                 -\n" {
		t.Errorf("wide: %q, %v", out.String(), err)
	}
}
