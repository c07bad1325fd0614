package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// explanation says in sentences how it is with one controller.
type explanation struct {
	stasbus.ID
	Device    string   `json:"device,omitempty"`
	Sentences []string `json:"sentences"`
}

func (t *tool) explain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [NQN|DEVICE|ADDRESS]...",
		Short: "Say why controllers are connected, or are not",
		Long: `Say why controllers are connected, or are not: who wants them, what excludes
them, what was tried, what went wrong, what can be done about it, and when the
next attempt is due.

They are named by their NQN or a part of it, by the kernel's name of the device
or of its block device, or by their address. Without a name, all are explained that are not as they
should be.`,
		Example: fmt.Sprintf("  %[1]s explain\n  %[1]s explain nvme3\n  %[1]s explain nqn.2014-08.org.example:a", t.name),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return t.live("device", "subsysnqn", "traddr"), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: t.askAbout(func(ctx context.Context, client *stasbus.Client, names []string) error {
			r, err := t.report(ctx, client)
			if err != nil {
				return err
			}
			all, unknown := t.explanations(r, names)
			if err := t.printExplanations(all); err != nil {
				return err
			}
			if len(unknown) > 0 {
				return fmt.Errorf("%s", strings.Join(unknown, "\n"))
			}
			return nil
		}),
	}
}

func (t *tool) printExplanations(all []explanation) error {
	if t.output == output.JSON || t.output == output.YAML {
		if all == nil {
			all = []explanation{}
		}
		return t.printData(struct {
			Version      int           `json:"version"`
			Explanations []explanation `json:"explanations"`
		}{stasbus.ReportVersion, all})
	}
	var b strings.Builder
	for i, e := range all {
		if i > 0 {
			b.WriteByte('\n')
		}
		if e.Transport != "" {
			title := describeID(e.ID)
			if e.Device != "" {
				title = e.Device + ": " + title
			}
			b.WriteString(output.Clean(title) + "\n")
		}
		for _, s := range e.Sentences {
			b.WriteString(wrap(output.Clean(s), min(output.Width(t.stdout), paragraph)))
		}
	}
	_, err := fmt.Fprint(t.stdout, b.String())
	return err
}

// paragraph is the width of text that is good to read.
const paragraph = 78

// wrap breaks a sentence into lines, and indents them.
func wrap(text string, width int) string {
	const indent = "  "
	var b strings.Builder
	column := 0
	for word := range strings.FieldsSeq(text) {
		n := len([]rune(word))
		switch {
		case column == 0:
			b.WriteString(indent)
			column = len(indent)
		case column+1+n > width:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	b.WriteByte('\n')
	return b.String()
}

// explanations are those of the controllers that are named. For each name that
// nobody has, there is a text that says so.
func (t *tool) explanations(r stasbus.Report, names []string) (all []explanation, unknown []string) {
	if len(names) == 0 {
		return t.troubles(r), nil
	}
	for _, name := range names {
		name = strings.TrimPrefix(name, "/dev/")
		found := false
		for i := range r.Controllers {
			if c := &r.Controllers[i]; isDevice(c, name) || answersTo(c.ID, name) || isHost(c.Origins, name) {
				all = append(all, t.explainController(r, c))
				found = true
			}
		}
		for i := range r.Refused {
			if c := &r.Refused[i]; answersTo(c.ID, name) {
				all = append(all, t.explainRefusal(c))
				found = true
			}
		}
		for _, k := range r.Kept {
			if k.Device == name || answersTo(k.ID, name) {
				all = append(all, explanation{ID: k.ID, Device: k.Device, Sentences: []string{
					"It is connected, as " + k.Device + ".", "Nobody asks for it any more. It stays because " + k.Why + ".",
				}})
				found = true
			}
		}
		if !found {
			unknown = append(unknown, t.explainUnknown(r, name))
		}
	}
	return all, unknown
}

// troubles explains what is not as it should be, if anything.
func (t *tool) troubles(r stasbus.Report) (all []explanation) {
	for i := range r.Controllers {
		if c := &r.Controllers[i]; c.Withheld != nil || c.Held || c.State != "live" && c.State != "connected" || (row{c, r.Time}).failing() != nil {
			all = append(all, t.explainController(r, c))
		}
	}
	for i := range r.Refused {
		all = append(all, t.explainRefusal(&r.Refused[i]))
	}
	if all == nil {
		well := fmt.Sprintf("All %s of %s are connected.", count(len(r.Controllers), "controller", "controllers"), t.daemon)
		switch len(r.Controllers) {
		case 0:
			well = t.daemon + " looks after no controllers. " + t.whoAsks(r)
		case 1:
			well = "The one controller of " + t.daemon + " is connected."
		}
		all = append(all, explanation{Sentences: []string{well}})
	}
	return all
}

// isDevice tells whether a controller has a device of that name, or gives
// access to it.
func isDevice(c *stasbus.Controller, name string) bool {
	return c.Device == name || slices.ContainsFunc(c.Namespaces, func(n stasbus.Namespace) bool { return n.Name == name })
}

// isHost reports whether the configuration has the controller under a host name.
func isHost(origins []stasbus.Origin, name string) bool {
	return slices.ContainsFunc(origins, func(o stasbus.Origin) bool { return o.Host != nil && strings.EqualFold(o.Host.Name, name) })
}

// answersTo tells whether somebody may mean a controller by this name.
func answersTo(id stasbus.ID, name string) bool {
	return strings.Contains(id.SubsysNQN, name) || id.TrAddr == name ||
		strings.TrimPrefix(address(id.Transport, id.TrAddr, id.TrSvcID), id.Transport+" ") == name
}

// whoAsks says who could want a controller, and does not.
func (t *tool) whoAsks(r stasbus.Report) string {
	if t.discovery {
		return "No controller= line of stafd.conf asks for one."
	}
	switch s := r.Stafd; {
	case s == nil:
		return "No log page and no controller= line of stacd.conf lists one."
	case !s.Answers:
		return "No controller= line of stacd.conf asks for one, and stafd does not answer: systemctl status stafd."
	case len(s.Sources) == 0:
		return "No controller= line of stacd.conf asks for one, and stafd has no discovery controllers: stafctl ls."
	default:
		var names []string
		for _, dc := range s.Sources {
			names = append(names, fmt.Sprintf("%s (%s)", tidAddress(dc.ID), pageSummary(dc.Known, dc.Entries)))
		}
		return "No controller= line of stacd.conf asks for one, and none is listed by " + some(names) + "."
	}
}

// explainUnknown is about a name that no controller of the daemon has.
func (t *tool) explainUnknown(r stasbus.Report, name string) string {
	text := fmt.Sprintf("%s has no controller %q. ", t.daemon, output.Clean(name))
	if c, err := sysfsController(name); err == nil {
		kind := map[nvmesysfs.Kind]string{nvmesysfs.IO: "an I/O controller", nvmesysfs.Discovery: "a discovery controller"}[c.Kind]
		if kind == "" {
			kind = "a controller"
		}
		text += fmt.Sprintf("The kernel has it: %s %s, %s, state %s. ", kind, c.SubsysNQN, address(c.Transport, c.TrAddr, c.TrSvcID), c.State)
		switch {
		case c.Transport == "pcie":
			return output.Clean(text + "It is a local drive, which is never touched.")
		case t.discovery && c.Kind == nvmesysfs.IO:
			return output.Clean(text + "Ask stacctl about it.")
		case !t.discovery && c.Kind == nvmesysfs.Discovery:
			return output.Clean(text + "Ask stafctl about it.")
		case c.HostNQN != r.Host.NQN:
			return output.Clean(text + "It is connected under another host NQN, " + c.HostNQN + ", and left alone.")
		}
		text += "Somebody else connected it, and nobody asks for it here, so it is left alone. "
	}
	return output.Clean(text + strings.Replace(t.whoAsks(r), "asks for one", "asks for it", 1))
}

// sysfsController is the controller of that name.
func sysfsController(name string) (nvmesysfs.Controller, error) {
	sysfs, err := nvmesysfs.NewFS("/sys")
	if err != nil {
		return nvmesysfs.Controller{}, err
	}
	if strings.Contains(name, "/") {
		return nvmesysfs.Controller{}, os.ErrNotExist
	}
	return sysfs.Read(name)
}

func (t *tool) explainRefusal(c *stasbus.Refusal) explanation {
	return explanation{ID: c.ID, Sentences: []string{
		"It is not connected: " + c.Why + ".",
		"It would be wanted: " + wishes(c.Origins) + ".",
	}}
}

// explainController says who wants a controller, and what has come of it.
func (t *tool) explainController(r stasbus.Report, c *stasbus.Controller) explanation {
	e := explanation{ID: c.ID, Device: c.Device}
	say := func(format string, args ...any) { e.Sentences = append(e.Sentences, fmt.Sprintf(format, args...)) }
	say("%s", situation(c, r.Time))
	switch {
	case !c.Wanted:
		say("Nobody asks for it any more.")
	case len(c.Origins) == 1 && c.Origins[0].Kind == stasbus.Remembered:
		say("It was wanted before %s was restarted. Who wanted it has not been heard of since, so it stays.", t.daemon)
	case len(c.Origins) > 0:
		say("It is wanted: %s.", wishes(c.Origins))
	}
	for _, o := range c.Origins {
		if o.Host != nil {
			say("%s", hostName(o.Host, r.Time))
		}
	}
	for _, o := range c.Origins {
		if !o.Until.IsZero() {
			say("It is not announced any more and does not answer. If that goes on, it is forgotten on %s (zeroconf-connections-persistence).",
				o.Until.Local().Format(time.DateTime))
		}
	}
	for _, o := range c.Origins {
		if o.NotConnected {
			say("The entry says that the central discovery controller has no connection to the subsystem, so the attempt may be in vain.")
			break
		}
	}
	onWord := slices.ContainsFunc(c.Origins, func(o stasbus.Origin) bool { return o.Kind != stasbus.Configured })
	if s := r.Stafd; s != nil && !s.Answers && onWord {
		say("stafd does not answer; what it listed before stays wanted (systemctl status stafd).")
	}
	if text := registration(row{c, r.Time}); text != "" {
		say("%s.", "T"+text[1:])
	}
	if p := c.LogPage; p != nil && p.Polled {
		say("It does not tell of changes, so it is asked every minute.")
	} else if p != nil && p.MissedAENs > 0 {
		say("It has not told of %s.", count(p.MissedAENs, "change", "changes"))
	}
	for _, sentence := range t.standing(c, r.Time) {
		say("%s", sentence)
	}
	if f := c.Connect; f != nil {
		what := "to connect it"
		if !c.Wanted {
			what = "to disconnect it"
		}
		t.explainFailure(say, f, what, c.Operation != nil, r.Time)
	}
	if p := c.LogPage; p != nil {
		if p.Known {
			say("Its log page has %s (generation %d).", count(p.Entries, "entry", "entries"), p.Generation)
		} else {
			say("Its log page: %s. What is missing from it is not taken for gone.", pageSummary(p.Known, p.Entries))
		}
		if p.Failure != nil {
			t.explainFailure(say, p.Failure, "to read the log page", c.Operation != nil, r.Time)
		}
	}
	if c.CntrlType == "io" || len(c.Namespaces) > 0 {
		say("%s", reach(c))
	}
	return e
}

// hostName is how the configuration comes to ask for this address.
func hostName(h *stasbus.HostName, now time.Time) string {
	s := "The configuration has the host name " + h.Name
	if h.Former {
		s += ", which stands for another address now; this connection stays as long as it lasts, and until the other one serves"
	}
	if !h.Answered.IsZero() {
		s += "; the last answer came " + duration(now.Sub(h.Answered)) + " ago"
	}
	if h.Failure != nil {
		s += ", and since then there was none: " + h.Failure.Error
	}
	return s + "."
}

// situation is whether it is connected.
func situation(c *stasbus.Controller, now time.Time) string {
	since := ""
	if c.Operation != nil {
		if age := now.Sub(c.Operation.Since); age >= time.Second {
			since = ", for " + duration(age) + " now"
		}
	}
	switch {
	case !c.Wanted && (c.Withheld != nil || c.Held):
		return "It is still connected, as " + c.Device + "."
	case !c.Wanted:
		return "It is being disconnected" + since + "."
	case c.Device == "" && c.State == "connecting":
		return "It is not connected yet: the kernel is at it" + since + "."
	case c.Device == "":
		return "It is not connected."
	}
	from := ""
	if c.SrcAddr != "" {
		from = " from " + c.SrcAddr
	}
	switch c.State {
	case "live", "connected":
		return "It is connected" + from + ", as " + c.Device + "."
	case "connecting", "resetting":
		return "The connection of " + c.Device + " " + broken(c, now) + " When it gives up, a new connection is made."
	case "deleting", "deleting (no IO)", "dead":
		return "The kernel is taking " + c.Device + " away; then a new connection is made."
	}
	return "Its device is " + c.Device + ", in the state " + c.State + "."
}

// broken is how long a connection has been broken, and for how long the kernel
// tries to get it back.
func broken(c *stasbus.Controller, now time.Time) string {
	if c.LostSince.IsZero() {
		return "is broken; the kernel is trying to get it back."
	}
	text := "has been broken for " + duration(now.Sub(c.LostSince)) + "; the kernel is trying to get it back"
	switch left := c.GivesUp.Sub(now); {
	case c.GivesUp.IsZero():
		return text + "."
	case left < time.Second:
		return text + ", and about to give up."
	default:
		return text + ", for another " + duration(left) + " or longer."
	}
}

// wishes is who wants a controller.
func wishes(origins []stasbus.Origin) string {
	var words, dcs, referrers []string
	for _, o := range origins {
		switch {
		case o.By != nil:
			by := tidAddress(*o.By)
			if o.By.HostIface != "" {
				by += " through " + o.By.HostIface
			}
			if o.Kind == stasbus.Referral {
				referrers = append(referrers, by)
			} else {
				dcs = append(dcs, by)
			}
		case o.Kind == stasbus.Listed:
			words = append(words, "a discovery controller lists it")
		case o.Kind == stasbus.NBFT && o.Place != "":
			words = append(words, "the boot table "+o.Place+" of the firmware names it")
		case o.Kind == stasbus.Discovered && o.Place != "":
			words = append(words, "it is announced by mDNS as "+o.Place)
		case o.Kind == stasbus.Discovered:
			words = append(words, "it was found by mDNS")
		case o.Kind == stasbus.Configured && o.Place != "":
			words = append(words, o.Place+" asks for it")
		case o.Kind == stasbus.Configured:
			words = append(words, "a controller= line asks for it")
		default:
			words = append(words, "it is "+o.Kind)
		}
	}
	for _, by := range []struct {
		who       []string
		one, many string
	}{{dcs, " lists it", " list it"}, {referrers, " refers to it", " refer to it"}} {
		switch len(by.who) {
		case 0:
		case 1:
			words = append(words, by.who[0]+by.one)
		default:
			words = append(words, some(by.who)+by.many)
		}
	}
	return list(words)
}

// some is a list that does not grow too long to be read.
func some(words []string) string {
	const most = 8
	if more := len(words) - most; more > 1 {
		words = append(words[:most:most], fmt.Sprintf("%d more", more))
	}
	return list(words)
}

func tidAddress(id stasbus.ID) string { return address(id.Transport, id.TrAddr, id.TrSvcID) }

// explainFailure says what was tried, what the error means, what can be done
// about it, and when it is tried again.
func (t *tool) explainFailure(say func(string, ...any), f *stasbus.Failure, what string, busy bool, now time.Time) {
	attempts := "The last attempt " + what + " failed"
	if f.Attempts > 1 {
		attempts = fmt.Sprintf("The last %d attempts %s failed", f.Attempts, what)
	}
	switch {
	case f.Error == "":
		say("%s.", attempts)
	case f.Errno != "":
		say("%s: %s [%s].", attempts, f.Error, f.Errno)
	default:
		say("%s: %s.", attempts, f.Error)
	}
	if f.Remedy != "" {
		say("%s", f.Remedy)
	}
	if !busy && !f.Next.IsZero() {
		say("The next attempt is due %s (%s). %q makes it due at once.", until(f.Next, now), f.Next.Local().Format(time.TimeOnly), "systemctl reload "+t.daemon)
	}
}

// reach is what is reached through a controller.
func reach(c *stasbus.Controller) string {
	if len(c.Namespaces) == 0 {
		return "It gives access to no namespaces: the target has none, or none for this host."
	}
	var words []string
	for _, n := range c.Namespaces {
		text := n.Name + " (" + size(n.Size)
		if n.ANA != "" {
			text += ", " + n.ANA
		}
		words = append(words, text+")")
	}
	return "It gives access to " + some(words) + "."
}
