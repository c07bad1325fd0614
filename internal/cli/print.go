package cli

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/nvme-stas/stas/internal/pyprint"
	"github.com/nvme-stas/stas/internal/stasbus"
)

// The formats of output.
const (
	formatTable  = "table"
	formatWide   = "wide" // a table with all columns, however long its lines
	formatJSON   = "json"
	formatYAML   = "yaml"
	formatPython = "python" // as nvme-stas 2.x
)

var formats = []string{formatTable, formatWide, formatJSON, formatYAML, formatPython}

func formatNames() string { return strings.Join(formats, ", ") }

func (t *tool) checkOutput() error {
	if t.output == "" {
		t.output = formatPython
		if isTerminal(t.stdout) {
			t.output = formatTable
		}
	}
	if !slices.Contains(formats, t.output) {
		return fmt.Errorf("there is no output %q, only %s", t.output, formatNames())
	}
	return nil
}

func (t *tool) isTable() bool { return t.output == formatTable || t.output == formatWide }

// pythonWidth is the width of what nvme-stas 2.x prints, in characters.
const pythonWidth = 120

func (t *tool) printPython(v any) error {
	_, err := fmt.Fprintln(t.stdout, pyprint.Format(v, pythonWidth))
	return err
}

// printData prints JSON or YAML.
func (t *tool) printData(v any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	if t.output == formatYAML {
		data, err := toYAML(text.Bytes())
		if err != nil {
			return fmt.Errorf("cannot write YAML: %w", err)
		}
		_, err = t.stdout.Write(data)
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

// row is a controller on its way to a table.
type row struct {
	*stasbus.Controller
	now time.Time
}

type column = columnOf[row]

var (
	dcColumns = []column{
		{title: "DEVICE", cell: func(r row) string { return r.Device }},
		{title: "STATE", cell: state, shrink: true},
		{title: "ORIGIN", rank: 2, cell: origin},
		{title: "ADDRESS", cell: func(r row) string { return address(r.Transport, r.TrAddr, r.TrSvcID) }},
		{title: "IFACE", rank: 5, cell: func(r row) string { return r.HostIface }},
		{title: "NQN", cell: func(r row) string { return r.SubsysNQN }, shrink: true},
		{title: "ENTRIES", cell: entries},
		{title: "LAST ERROR", cell: lastError, shrink: true},
		{title: "NEXT TRY", rank: 3, cell: nextTry},
		{title: "SOURCE", cell: source, wide: true},
		{title: "HOST NQN", cell: func(r row) string { return r.HostNQN }, wide: true},
		{title: "TYPE", cell: func(r row) string { return r.DCType }, wide: true},
		{title: "MODEL", cell: func(r row) string { return r.Model }, wide: true},
	}
	iocColumns = []column{
		{title: "DEVICE", cell: func(r row) string { return r.Device }},
		{title: "STATE", cell: state, shrink: true},
		{title: "ADDRESS", cell: func(r row) string { return address(r.Transport, r.TrAddr, r.TrSvcID) }},
		{title: "IFACE", rank: 5, cell: func(r row) string { return r.HostIface }},
		{title: "NQN", cell: func(r row) string { return r.SubsysNQN }, shrink: true},
		{title: "NAMESPACES", cell: namespaces},
		{title: "SIZE", rank: 2, cell: capacity},
		{title: "PATH", rank: 1, cell: path, shrink: true},
		{title: "WANTED BY", rank: 4, cell: origin, shrink: true},
		{title: "LAST ERROR", cell: lastError, shrink: true},
		{title: "NEXT TRY", rank: 3, cell: nextTry},
		{title: "SOURCE", cell: source, wide: true},
		{title: "HOST NQN", cell: func(r row) string { return r.HostNQN }, wide: true},
		{title: "MODEL", cell: func(r row) string { return r.Model }, wide: true},
		{title: "SERIAL", cell: func(r row) string { return r.Serial }, wide: true},
	}
)

// state is the kernel's word for it, or what is done about there being none.
// What runs long is told.
func state(r row) string {
	word := r.State
	if !r.Wanted {
		word = "disconnecting"
	}
	if r.Operation != nil && r.Operation.Kind != "work" {
		if age := r.now.Sub(r.Operation.Since); age >= 2*time.Second {
			return word + " " + duration(age)
		}
	}
	return word
}

// origin is why it is wanted, in a few words.
func origin(r row) string {
	var words []string
	for _, o := range r.Origins {
		switch {
		case o.By != nil:
			words = append(words, o.By.TrAddr)
		default:
			words = append(words, o.Kind)
		}
	}
	return strings.Join(distinct(words), ", ")
}

func address(transport, traddr, trsvcid string) string {
	if trsvcid != "" {
		traddr = net.JoinHostPort(traddr, trsvcid)
	}
	return strings.TrimSpace(transport + " " + traddr)
}

// source is where the connection comes from.
func source(r row) string { return cmp.Or(r.SrcAddr, r.HostTrAddr) }

func entries(r row) string {
	switch p := r.LogPage; {
	case p == nil:
		return ""
	case !p.Known && p.Entries == 0:
		return "unknown"
	case !p.Known:
		return strconv.Itoa(p.Entries) + " or more"
	default:
		return strconv.Itoa(p.Entries)
	}
}

// failing is what does not succeed, if something does not.
func (r row) failing() *stasbus.Failure {
	if r.Connect == nil && r.LogPage != nil {
		return r.LogPage.Failure
	}
	return r.Connect
}

// lastError is the last error without the advice behind it, which "explain"
// has.
func lastError(r row) string {
	f := r.failing()
	if f == nil {
		return ""
	}
	text, _, _ := strings.Cut(strings.TrimPrefix(f.Error, "connect: "), " (")
	if text == "" {
		return count(f.Attempts, "failure", "failures")
	}
	return text
}

func nextTry(r row) string {
	f := r.failing()
	if f == nil || f.Next.IsZero() || r.Operation != nil {
		return ""
	}
	return until(f.Next, r.now)
}

func until(at, now time.Time) string {
	if left := at.Sub(now); left >= time.Second/2 {
		return "in " + duration(left)
	}
	return "now"
}

// duration is rounded to what people want to know.
func duration(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// namespaces are the first one, and how many others.
func namespaces(r row) string {
	if len(r.Namespaces) == 0 {
		return ""
	}
	text := r.Namespaces[0].Name
	if more := len(r.Namespaces) - 1; more > 0 {
		text += fmt.Sprintf(" +%d", more)
	}
	return text
}

func capacity(r row) string {
	if len(r.Namespaces) == 0 {
		return ""
	}
	var sum uint64
	for _, n := range r.Namespaces {
		sum += n.Size
	}
	return size(sum)
}

// size is in units of 1024, with a digit behind the point if there is one
// before it.
func size(bytes uint64) string {
	value, unit := float64(bytes), 0
	for value >= 1024 && unit < len(sizeUnits)-1 {
		value /= 1024
		unit++
	}
	digits := 0
	if unit > 0 && value < 10 && value != float64(int(value)) {
		digits = 1
	}
	return strconv.FormatFloat(value, 'f', digits, 64) + " " + sizeUnits[unit]
}

var sizeUnits = []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}

// path is the state of the path to the namespaces (ANA), with numbers if there
// are several.
func path(r row) string {
	var words []string
	for _, n := range r.Namespaces {
		if n.ANA != "" {
			words = append(words, n.ANA)
		}
	}
	kinds := distinct(words)
	if len(kinds) < 2 {
		return strings.Join(kinds, "")
	}
	for i, kind := range kinds {
		n := 0
		for _, w := range words {
			if w == kind {
				n++
			}
		}
		kinds[i] = fmt.Sprintf("%d %s", n, kind)
	}
	return strings.Join(kinds, ", ")
}

func (t *tool) printControllers(r stasbus.Report, detailed bool) error {
	if len(r.Controllers) == 0 {
		_, err := fmt.Fprintf(t.stdout, "%s looks after no controllers%s.\n", t.daemon, t.more(r))
		return err
	}
	if detailed {
		t.output = formatWide
	}
	rows := make([]row, len(r.Controllers))
	for i := range r.Controllers {
		rows[i] = row{&r.Controllers[i], r.Time}
	}
	return printTable(t, t.columns, rows)
}

// more hints at what is listed, but not connected.
func (t *tool) more(r stasbus.Report) string {
	if len(r.Refused) == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d more not connected; why: %s explain)", len(r.Refused), t.name)
}

func (t *tool) printStatus(r stasbus.Report) error {
	w := tabwriter.NewWriter(t.stdout, 0, 8, 2, ' ', 0)
	line := func(title, text string) {
		if text != "" {
			fmt.Fprintf(w, "%s:\t%s\n", title, clean(text))
		}
	}
	line("Daemon", strings.TrimSpace(r.Daemon+" "+r.Release))
	line("Host NQN", r.Host.NQN)
	line("Host ID", r.Host.ID)
	line("Symbolic name", r.Host.SymName)
	line("Tracing", map[bool]string{true: "on", false: "off"}[r.Tracing])
	live := 0
	for _, c := range r.Controllers {
		if c.State == "live" || c.State == "connected" {
			live++
		}
	}
	line("Controllers", fmt.Sprintf("%d, %d live", len(r.Controllers), live)+t.more(r))
	if s := r.Stafd; s != nil {
		text := fmt.Sprintf("answers; log pages of %s", count(len(s.Sources), "discovery controller", "discovery controllers"))
		if !s.Answers {
			text = "does not answer; what it listed before stays wanted"
		}
		line("stafd", text)
	}
	switch {
	case r.ReloadFailed:
		line("Configuration", "the last reload failed, an older one is in force: "+cmp.Or(r.ReloadError, "see journalctl -u "+t.daemon))
	case r.Doubtful:
		line("Configuration", fmt.Sprintf("something of it is ignored, so it takes no connection away; what: %s --check-config", t.daemon))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(t.stdout)
	if err := t.printControllers(r, false); err != nil {
		return err
	}
	for i := range r.Controllers {
		c := row{&r.Controllers[i], r.Time}
		if f := c.failing(); f != nil {
			text := fmt.Sprintf("%s: %s: %s", describeID(c.ID), count(f.Attempts, "failed attempt", "failed attempts"), f.Error)
			if next := nextTry(c); next != "" {
				text += "; next try " + next
			}
			fmt.Fprintf(t.stdout, "\n%s\n", clean(text))
		}
	}
	return nil
}

// describeID names a controller in a line of text.
func describeID(id stasbus.ID) string {
	text := address(id.Transport, id.TrAddr, id.TrSvcID) + " " + id.SubsysNQN
	if id.HostIface != "" {
		text += " through " + id.HostIface
	}
	if id.HostTrAddr != "" {
		text += " from " + id.HostTrAddr
	}
	return text
}

// number is what a text in decimal notation says.
func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
