package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/stasbus"
)

// A table has as many lines as it has controllers, however many, and as many
// columns as the terminal, however few.
func TestManyControllers(t *testing.T) {
	const many = 5000
	r := host("stacd")
	for i := range many {
		c := newStacd().report.Controllers[i%5]
		c.SubsysNQN = fmt.Sprintf("%sstorage.with.a.long.name.%d", example, i)
		r.Controllers = append(r.Controllers, c)
	}
	var out bytes.Buffer
	tool := newStacctl(&out)
	tool.output = output.Table
	began := time.Now()
	if err := tool.printControllers(r, false); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("that took %v", took)
	}
	if got := strings.Count(out.String(), "\n"); got != many+1 {
		t.Errorf("%d lines", got)
	}
	all, _ := tool.explanations(r, []string{"name.4999"})
	if len(all) != 1 {
		t.Errorf("%d explanations", len(all))
	}
}

func TestNarrowTerminal(t *testing.T) {
	r := newStacd().report
	rows := make([]row, len(r.Controllers))
	for i := range r.Controllers {
		rows[i] = row{&r.Controllers[i], r.Time}
	}
	for _, room := range []int{300, 150, 130, 100, 85, 40, 1} {
		var out bytes.Buffer
		if err := output.PrintTableIn(&out, room, iocColumns, rows); err != nil {
			t.Fatal(err)
		}
		text := out.String()
		table := strings.HasPrefix(text, "DEVICE  ")
		if table == strings.HasPrefix(text, "DEVICE: nvme1\nSTATE: live\n") || table != (room > 80) {
			t.Errorf("in %d columns:\n%s", room, text)
		}
		for line := range strings.Lines(text) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); table && n > room {
				t.Errorf("%d columns instead of %d: %s", n, room, line)
			}
		}
	}
}

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"one two three", 80, "  one two three\n"},
		{"one two three", 9, "  one two\n  three\n"},
		{"one-very-long-word two", 5, "  one-very-long-word\n  two\n"},
		{"", 5, "\n"},
	} {
		if got := wrap(c.text, c.width); got != c.want {
			t.Errorf("%q in %d: %q, want %q", c.text, c.width, got, c.want)
		}
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		size(0): "0 B", size(1023): "1023 B", size(1024): "1 KiB", size(1536): "1.5 KiB", size(10 << 30): "10 GiB", size(1<<64 - 1): "16 EiB",
		duration(400 * time.Millisecond): "0s", duration(59 * time.Second): "59s", duration(61 * time.Second): "1m01s", duration(3*time.Hour + 5*time.Minute): "3h05m",
		until(now, now): "now", until(now.Add(-time.Hour), now): "now", until(now.Add(time.Minute), now): "in 1m00s",
		list(nil): "", list([]string{"a"}): "a", list([]string{"a", "b"}): "a and b", list([]string{"a", "b", "c"}): "a, b and c",
		some(strings.Fields("1 2 3 4 5 6 7 8 9 10")):                      "1, 2, 3, 4, 5, 6, 7, 8 and 2 more",
		count(1, "entry", "entries"):                                      "1 entry",
		path(row{Controller: &stasbus.Controller{}}):                      "",
		address("fc", "nn-0x1:pn-0x2", ""):                                "fc nn-0x1:pn-0x2",
		address("tcp", "fe80::1%eth0", "4420"):                            "tcp [fe80::1%eth0]:4420",
		entries(row{Controller: &stasbus.Controller{}}):                   "",
		pageSummary(false, 3):                                             "3 entries, perhaps not all",
		strings.Join(distinct([]string{"a", "b", "a"}), " "):              "a b",
		situation(&stasbus.Controller{Wanted: true, State: "x"}, now)[:6]: "It is ",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
