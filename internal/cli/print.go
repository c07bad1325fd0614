package cli

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/pyprint"
	"github.com/nvme-stas/stas/internal/stasbus"
)

// formats are those of the option -o.
var formats = []string{output.Table, output.Wide, output.JSON, output.YAML, output.Python}

func formatNames() string { return strings.Join(formats, ", ") }

func (t *tool) checkOutput() (err error) {
	t.output, err = output.Choose(t.output, t.stdout, output.Python, formats...)
	return err
}

func (t *tool) isTable() bool { return t.output == output.Table || t.output == output.Wide }

// pythonWidth is the width of what nvme-stas 2.x prints, in characters.
const pythonWidth = 120

func (t *tool) printPython(v any) error {
	_, err := fmt.Fprintln(t.stdout, pyprint.Format(v, pythonWidth))
	return err
}

// printData prints JSON or YAML.
func (t *tool) printData(v any) error {
	if t.output == output.YAML {
		return output.PrintYAML(t.stdout, v)
	}
	return output.PrintJSON(t.stdout, v)
}

func printTable[T any](t *tool, columns []output.Column[T], values []T) error {
	if t.output == output.Wide {
		return output.PrintWide(t.stdout, columns, values)
	}
	return output.PrintTable(t.stdout, columns, values)
}

// row is a controller on its way to a table.
type row struct {
	*stasbus.Controller
	now time.Time
}

type column = output.Column[row]

var (
	dcColumns = []column{
		output.Col("DEVICE", func(r row) string { return r.Device }),
		output.Col("STATE", state).Shrink(),
		output.Col("ORIGIN", origin).Rank(2),
		output.Col("ADDRESS", func(r row) string { return address(r.Transport, r.TrAddr, r.TrSvcID) }),
		output.Col("IFACE", func(r row) string { return r.HostIface }).Rank(5),
		output.Col("NQN", func(r row) string { return r.SubsysNQN }).Shrink(),
		output.Col("ENTRIES", entries),
		output.Col("REGISTERED", registered).Rank(4),
		output.Col("LAST ERROR", lastError).Shrink(),
		output.Col("NEXT TRY", nextTry).Rank(3),
		output.Col("GIVES UP", givesUp).Rank(3),
		output.Col("SOURCE", source).Wide(),
		output.Col("HOST NQN", func(r row) string { return r.HostNQN }).Wide(),
		output.Col("TYPE", func(r row) string { return r.DCType }).Wide(),
		output.Col("MODEL", func(r row) string { return r.Model }).Wide(),
	}
	iocColumns = []column{
		output.Col("DEVICE", func(r row) string { return r.Device }),
		output.Col("STATE", state).Shrink(),
		output.Col("ADDRESS", func(r row) string { return address(r.Transport, r.TrAddr, r.TrSvcID) }),
		output.Col("IFACE", func(r row) string { return r.HostIface }).Rank(5),
		output.Col("NQN", func(r row) string { return r.SubsysNQN }).Shrink(),
		output.Col("NAMESPACES", namespaces),
		output.Col("SIZE", capacity).Rank(2),
		output.Col("PATH", path).Shrink().Rank(1),
		output.Col("WANTED BY", origin).Shrink().Rank(4),
		output.Col("LAST ERROR", lastError).Shrink(),
		output.Col("NEXT TRY", nextTry).Rank(3),
		output.Col("GIVES UP", givesUp).Rank(3),
		output.Col("SOURCE", source).Wide(),
		output.Col("HOST NQN", func(r row) string { return r.HostNQN }).Wide(),
		output.Col("MODEL", func(r row) string { return r.Model }).Wide(),
		output.Col("SERIAL", func(r row) string { return r.Serial }).Wide(),
	}
)

// state is the kernel's word for it, or what is done about there being none.
// What runs long is told.
func state(r row) string {
	word := r.State
	switch {
	case r.Withheld != nil:
		return word + ", unwanted but in use"
	case r.Held:
		return word + ", held"
	case r.GivenUp != nil && r.Device == "":
		return "given up"
	case !r.Wanted:
		word = "disconnecting"
	}
	if r.Operation != nil && r.Operation.Kind != "work" {
		if age := r.now.Sub(r.Operation.Since); age >= 2*time.Second {
			return word + " " + duration(age)
		}
	}
	if !r.LostSince.IsZero() {
		return word + " " + duration(r.now.Sub(r.LostSince))
	}
	return word
}

// givesUp is when the kernel gives up a connection that is broken.
func givesUp(r row) string {
	switch {
	case r.LostSince.IsZero():
		return ""
	case r.GivesUp.IsZero():
		return "never"
	}
	return until(r.GivesUp, r.now)
}

// origin is why it is wanted, in a few words.
func origin(r row) string {
	var words []string
	for _, o := range r.Origins {
		switch {
		case o.Kind == stasbus.Referral:
			words = append(words, o.Kind)
		case o.By != nil:
			words = append(words, o.By.TrAddr)
		case o.Host != nil:
			words = append(words, o.Kind+" as "+o.Host.Name)
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
	switch {
	case r.Connect == nil && r.GivenUp != nil:
		return r.GivenUp
	case r.Connect == nil && r.LogPage != nil:
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
		t.output = output.Wide
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
			fmt.Fprintf(w, "%s:\t%s\n", title, output.Clean(text))
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
	for _, h := range r.Holds {
		line("Held", holdName(h)+", "+heldUntil(h, r.Time))
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
		if c.Withheld != nil {
			fmt.Fprintf(t.stdout, "\n%s\n", output.Clean(describeID(c.ID)+": nobody asks for it any more, but "+c.Withheld.Why))
		}
		if f := c.failing(); f != nil {
			text := fmt.Sprintf("%s: %s: %s", describeID(c.ID), count(f.Attempts, "failed attempt", "failed attempts"), f.Error)
			if next := nextTry(c); next != "" {
				text += "; next try " + next
			}
			fmt.Fprintf(t.stdout, "\n%s\n", output.Clean(text))
		} else if !c.LostSince.IsZero() {
			fmt.Fprintf(t.stdout, "\n%s\n", output.Clean(describeID(c.ID)+": the connection "+broken(c.Controller, r.Time)))
		}
		if text := registration(c); text != "" {
			fmt.Fprintf(t.stdout, "\n%s\n", output.Clean(describeID(c.ID)+": "+text))
		}
	}
	return t.printTiming(r)
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
