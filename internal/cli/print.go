package cli

import (
	"fmt"
	"net"
	"strings"
	"text/tabwriter"

	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/stasbus"
)

type column = output.Column[stasbus.Dict]

// value shows what a dictionary has under a key.
func value(key string) func(stasbus.Dict) string {
	return func(d stasbus.Dict) string { return d[key] }
}

var (
	dcColumns = []column{
		output.Col("DEVICE", device), output.Col("STATE", state), output.Col("ADDRESS", address),
		output.Col("IFACE", value("host-iface")), output.Col("ORIGIN", value("origin")), output.Col("ENTRIES", entries),
		output.Col("NQN", value("subsysnqn")), output.Col("PROBLEM", problem),
	}
	iocColumns = []column{
		output.Col("DEVICE", device), output.Col("STATE", state), output.Col("ADDRESS", address),
		output.Col("IFACE", value("host-iface")), output.Col("NQN", value("subsysnqn")), output.Col("PROBLEM", problem),
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

func (t *tool) printTable(list []stasbus.Dict) error {
	if len(list) == 0 {
		_, err := fmt.Fprintf(t.stdout, "%s looks after no controllers.\n", t.daemon)
		return err
	}
	return output.PrintTable(t.stdout, t.columns, list)
}

func (t *tool) printStatus(info map[string]any, list []stasbus.Dict) error {
	w := tabwriter.NewWriter(t.stdout, 0, 8, 2, ' ', 0)
	for _, line := range []struct{ title, key string }{
		{"Host NQN", "hostnqn"}, {"Host ID", "hostid"}, {"Symbolic name", "symname"}, {"Tracing", "tron"},
	} {
		if v := info[line.key]; v != nil {
			fmt.Fprintf(w, "%s:\t%s\n", line.title, output.Clean(fmt.Sprint(v)))
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
				output.Clean(address(d)), output.Clean(d["last error"]), output.Clean(d["connect attempts"]), output.Clean(d["retry connect timer"]))
		}
	}
	return nil
}
