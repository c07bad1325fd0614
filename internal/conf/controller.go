package conf

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// Controller is what a controller= line asks for.
type Controller struct {
	Place
	// ID identifies the controller; an empty HostNQN stands for the host's.
	ID     tid.TID
	Params Params // of [Config.ParamsFor], as changed by the line
	// Shown has the parameters that the line itself sets, as nvme-stas shows
	// them on D-Bus: without keys.
	Shown map[string]string
}

// TID completes the identity with the host NQN, and without the interface if
// interfaces are to be ignored.
func (c Controller) TID(hostNQN string, ignoreIface bool) (tid.TID, error) {
	id := c.ID
	id.HostNQN = cmp.Or(id.HostNQN, hostNQN)
	if ignoreIface {
		id.HostIface = ""
	}
	if err := id.Validate(); err != nil {
		return tid.TID{}, fmt.Errorf("the controller of %s: %w", c.Place, err)
	}
	return id, nil
}

// idFields are the fields that make up the identity.
var idFields = map[string]func(*tid.TID) *string{
	"transport":   func(t *tid.TID) *string { return &t.Transport },
	"traddr":      func(t *tid.TID) *string { return &t.TrAddr },
	"trsvcid":     func(t *tid.TID) *string { return &t.TrSvcID },
	"subsysnqn":   func(t *tid.TID) *string { return &t.SubsysNQN },
	"host-traddr": func(t *tid.TID) *string { return &t.HostTrAddr },
	"host-iface":  func(t *tid.TID) *string { return &t.HostIface },
	"host-nqn":    func(t *tid.TID) *string { return &t.HostNQN },
}

// idNames has the names of these fields, as they may be written.
var idNames = append(slices.Sorted(maps.Keys(idFields)), "nqn")

// field is one "name=value" of a line.
type field struct{ name, value string }

func (f field) String() string { return f.name + "=" + f.value }

// fields takes a line apart at the semicolons, and each field at its first
// "=". The last of several fields of one name counts, and "nqn" is the better
// known name of "subsysnqn". What is not a field is given back apart.
func fields(value string) (fs []field, bad []string) {
	at := make(map[string]int)
	put := func(name, value string) {
		i, ok := at[name]
		if !ok {
			i = len(fs)
			at[name] = i
			fs = append(fs, field{name: name})
		}
		fs[i].value = value
	}
	var nqn *string
	for part := range strings.SplitSeq(value, ";") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, value, ok := strings.Cut(part, "=")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		switch {
		case !ok || name == "":
			bad = append(bad, part)
		case name == "nqn":
			nqn = &value
		default:
			put(name, value)
		}
	}
	if nqn != nil {
		put("subsysnqn", *nqn)
	}
	return fs, bad
}

// hint says what may have gone wrong with a value that cannot be right.
func hint(value string) string {
	switch {
	case commented(value):
		return noComment
	case strings.Contains(value, ","):
		return " (fields are separated by \";\", not by \",\")"
	}
	return ""
}

const inGlobal = "[" + global + "]"

// commented reports whether a value seems to have a comment behind it.
func commented(value string) bool { return strings.Contains(value, " #") }

const noComment = " (comments have lines of their own)"

// line is one line that is made of fields.
type line struct {
	parser *parser
	Item
	// precious says that whatever is ignored of the line leaves it in doubt
	// which controllers are wanted.
	precious bool
	base     string // where parameters come from that the line does not set
}

// complain notes what is wrong. A line that continues another may have been
// meant to be anything.
func (l line) complain(s Severity, text, problem, used string) {
	l.parser.doubt(s == Error && (l.precious || l.Continued))
	l.parser.issues.add(Issue{Place: l.Place, Severity: s, Text: text, Problem: problem, Used: used})
}

// fields takes the line apart, unless something in it is no field.
func (l line) fields(ignored string) (fs []field, ok bool) {
	fs, bad := fields(l.Value)
	if len(bad) > 0 {
		l.noField(bad[0], ignored)
	}
	return fs, len(bad) == 0
}

func (l line) noField(text, used string) {
	l.complain(Error, text, "no \"=\": a field has the form name=value"+hint(text), used)
}

// param takes a field that is to be a parameter of connections. If it is
// something else, the complaint begins with problem, and known has the names
// of what it might be besides.
func (l line) param(to *Params, f field, problem string, known []string) {
	daemon := l.parser.cfg.Daemon
	opt := paramOption(f.name)
	if opt == nil {
		if o, other := find(daemon, place{global, f.name}); o != nil || other {
			l.complain(Warning, f.String(), "this can be set for all controllers only, in [Global]", "field ignored")
			return
		}
		l.complain(Error, f.name, problem+suggest(f.name, append(paramNames(daemon), known...)), "field ignored")
		return
	}
	if _, ok := opt.def(daemon); !ok {
		l.complain(Warning, f.String(), "discovery controllers do not have this parameter", "field ignored")
		return
	}
	c := &Config{Params: *to}
	if err := l.parser.assign(opt, c, f.value); err != nil {
		l.parser.issues.add(Issue{
			Place: l.Place, Severity: Warning, Text: f.String(), Problem: err.Error() + hint(f.value),
			Allowed: opt.allowed, Used: opt.usedFor("the value of " + l.base), Cause: err,
		})
	} else {
		switch f.name {
		case "reconnect-delay":
			c.Params.Own.ReconnectDelay = true
		case "ctrl-loss-tmo":
			c.Params.Own.CtrlLossTMO = true
		case "fast-io-fail-tmo":
			c.Params.Own.FastIOFailTMO = true
		}
	}
	*to = c.Params
}

// shown is a parameter in the notation of nvme-stas; nothing, if it is none, is
// not valid, or has to be kept secret.
func shown(daemon Daemon, f field) string {
	opt := paramOption(f.name)
	if opt == nil || opt.allowed == dhchapKey {
		return ""
	}
	if _, ok := opt.def(daemon); !ok || opt.param(new(Params), f.value) != nil {
		return ""
	}
	if n, err := strconv.Atoi(f.value); err == nil {
		return strconv.Itoa(n)
	}
	if opt.allowed == trueFalse {
		return strings.ToUpper(f.value[:1]) + strings.ToLower(f.value[1:])
	}
	return f.value
}

// contradiction complains of parameters that exclude each other, unless it was
// said already.
func (l line) contradiction(p, said Params) {
	if p.contradictory() && !said.contradictory() {
		l.complain(Warning, l.Value, tlsOrConcat, noSuchConnection)
	}
}

// controller takes one controller= line.
func (p *parser) controller(it Item) {
	const ignored = "controller ignored"
	l := line{parser: p, Item: it, precious: true, base: inGlobal}
	fs, bad := fields(it.Value)
	for _, b := range bad {
		l.noField(b, "field ignored")
	}
	c := Controller{Place: it.Place}
	var params []field
	for _, f := range fs {
		if at, ok := idFields[f.name]; ok {
			*at(&c.ID) = f.value
		} else {
			params = append(params, f)
		}
	}
	if p.cfg.Daemon == Stafd {
		c.ID.SubsysNQN = cmp.Or(c.ID.SubsysNQN, nvme.WellKnownDiscoveryNQN)
	}
	c.ID = tid.New(c.ID)

	// The host NQN is not known here; any will do.
	id := c.ID
	id.HostNQN = cmp.Or(id.HostNQN, nvme.WellKnownDiscoveryNQN)
	if p.cfg.IgnoreIface {
		id.HostIface = ""
	}
	base := p.cfg.Params
	if s := p.cfg.subsystemOf(id); s != nil {
		base, l.base = s.Params, s.Place.String()
	}
	c.Params = base
	for _, f := range params {
		l.param(&c.Params, f, "no such field", idNames)
		if text := shown(p.cfg.Daemon, f); text != "" {
			if c.Shown == nil {
				c.Shown = make(map[string]string)
			}
			c.Shown[f.name] = text
		}
	}
	l.contradiction(c.Params, base)
	if err := id.ValidateNamed(); err != nil {
		l.complain(Error, it.Value, err.Error()+hint(it.Value), ignored)
		return
	}
	if c.ID.Transport == tid.FC && c.ID.HostTrAddr == "" {
		l.complain(Warning, it.Value, "the kernel makes no fc connection without host-traddr", "")
	}
	if at, ok := p.seen[c.ID]; ok {
		l.complain(Warning, it.Value, "the same controller as in "+at.String(), "that one counts")
		return
	}
	p.seen[c.ID] = c.Place
	p.cfg.Controllers = append(p.cfg.Controllers, c)
}

// paramNames lists the fields that are parameters of connections.
func paramNames(d Daemon) []string {
	var names []string
	for i := range options {
		if _, ok := options[i].def(d); ok && options[i].param != nil {
			names = append(names, options[i].name)
		}
	}
	return names
}
