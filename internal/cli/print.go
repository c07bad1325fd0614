package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"text/tabwriter"
	"unicode"
	"unicode/utf16"

	"github.com/nvme-stas/stas/internal/stasbus"
)

// column is one of a table.
type column struct {
	title string
	cell  func(stasbus.Dict) string
}

// value shows what a dictionary has under a key.
func value(key string) func(stasbus.Dict) string {
	return func(d stasbus.Dict) string { return d[key] }
}

var (
	dcColumns = []column{
		{"DEVICE", device}, {"STATE", state}, {"ADDRESS", address}, {"IFACE", value("host-iface")},
		{"ORIGIN", value("origin")}, {"ENTRIES", entries}, {"NQN", value("subsysnqn")}, {"PROBLEM", problem},
	}
	iocColumns = []column{
		{"DEVICE", device}, {"STATE", state}, {"ADDRESS", address}, {"IFACE", value("host-iface")},
		{"NQN", value("subsysnqn")}, {"PROBLEM", problem},
	}
)

func device(d stasbus.Dict) string {
	return strings.TrimSuffix(d["device"], "nvme?")
}

// state is the kernel's word for it, or what is done about there being none.
func state(d stasbus.Dict) string {
	switch {
	case d["state"] != "":
		return d["state"]
	case d["connect operation"] != "":
		return "connecting"
	}
	return "waiting"
}

func address(d stasbus.Dict) string {
	where := d["traddr"]
	if d["trsvcid"] != "" {
		where = net.JoinHostPort(where, d["trsvcid"])
	}
	return d["transport"] + " " + where
}

func entries(d stasbus.Dict) string {
	if d[stasbus.KnownKey] == stasbus.False {
		return "unknown"
	}
	return d["log-page-entries"]
}

// problem is the last error, shortened to what fits beside the rest.
func problem(d stasbus.Dict) string {
	const most = 60
	text := []rune(d["last error"])
	if len(text) > most {
		return string(text[:most-1]) + "…"
	}
	return string(text)
}

func (t *tool) printJSON(v any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(t.stdout, escape(text.String()))
	return err
}

// escape does to JSON what clean does to text, and changes no value. Outside
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

func (t *tool) printTable(list []stasbus.Dict) error {
	if len(list) == 0 {
		_, err := fmt.Fprintf(t.stdout, "%s looks after no controllers.\n", t.daemon)
		return err
	}
	columns := make([]column, 0, len(t.columns))
	for _, c := range t.columns {
		// A column that nobody has anything for only takes room.
		for _, d := range list {
			if c.cell(d) != "" {
				columns = append(columns, c)
				break
			}
		}
	}
	w := tabwriter.NewWriter(t.stdout, 0, 8, 2, ' ', 0)
	row := func(cell func(column) string) {
		cells := make([]string, len(columns))
		for i, c := range columns {
			cells[i] = clean(cell(c))
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), "\t"))
	}
	row(func(c column) string { return c.title })
	for _, d := range list {
		row(func(c column) string {
			if text := c.cell(d); text != "" {
				return text
			}
			return "-"
		})
	}
	return w.Flush()
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

func (t *tool) printStatus(info map[string]any, list []stasbus.Dict) error {
	w := tabwriter.NewWriter(t.stdout, 0, 8, 2, ' ', 0)
	for _, line := range []struct{ title, key string }{
		{"Host NQN", "hostnqn"}, {"Host ID", "hostid"}, {"Symbolic name", "symname"}, {"Tracing", "tron"},
	} {
		if v := info[line.key]; v != nil {
			fmt.Fprintf(w, "%s:\t%s\n", line.title, clean(fmt.Sprint(v)))
		}
	}
	live := 0
	for _, d := range list {
		if d["state"] == "live" {
			live++
		}
	}
	fmt.Fprintf(w, "Controllers:\t%d, %d live\n", len(list), live)
	if failed, _ := info["last reload failed"].(bool); failed {
		fmt.Fprintf(w, "Configuration:\tthe last reload failed, an older one is in force; see: journalctl -u %s\n", t.daemon)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(t.stdout)
	if err := t.printTable(list); err != nil {
		return err
	}
	for _, d := range list {
		if d["last error"] != "" {
			fmt.Fprintf(t.stdout, "\n%s: %s (%s failed attempts; next: %s)\n",
				clean(address(d)), clean(d["last error"]), clean(d["connect attempts"]), clean(d["retry connect timer"]))
		}
	}
	return nil
}
