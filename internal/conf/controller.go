package conf

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// Controller is what a controller= line asks for.
type Controller struct {
	// ID identifies the controller; an empty HostNQN stands for the host's.
	ID               tid.TID
	Params           Params // of [Global], as changed by the line
	DHChapSecret     fabrics.Secret
	DHChapCtrlSecret fabrics.Secret
	Line             int
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
		return tid.TID{}, fmt.Errorf("controller of line %d: %w", c.Line, err)
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

var secretFields = map[string]func(*Controller) *fabrics.Secret{
	"dhchap-secret":      func(c *Controller) *fabrics.Secret { return &c.DHChapSecret },
	"dhchap-ctrl-secret": func(c *Controller) *fabrics.Secret { return &c.DHChapCtrlSecret },
}

// field is one "name=value" of a controller= or exclude= line.
type field struct{ name, value string }

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
	case strings.Contains(value, " #"):
		return " (comments have lines of their own)"
	case strings.Contains(value, ","):
		return " (fields are separated by \";\", not by \",\")"
	}
	return ""
}

// controller takes one controller= line.
func (p *parser) controller(it Item) {
	const ignored = "controller ignored"
	complain := func(s Severity, text, problem, allowed, used string) {
		p.doubt(s == Error)
		p.issues.add(Issue{Line: it.Line, Severity: s, Text: text, Problem: problem, Allowed: allowed, Used: used})
	}
	c := Controller{Params: p.cfg.Params, Line: it.Line}
	fs, bad := fields(it.Value)
	for _, b := range bad {
		complain(Error, b, "no \"=\": a field has the form name=value"+hint(b), "", "field ignored")
	}
	for _, f := range fs {
		text := f.name + "=" + f.value
		if at, ok := idFields[f.name]; ok {
			*at(&c.ID) = f.value
			continue
		}
		if at, ok := secretFields[f.name]; ok {
			if !isSecret(f.value) {
				// Without it the connection would be less safe than asked for.
				complain(Error, text, "not a DH-HMAC-CHAP key", "DHHC-1:…:…:", ignored)
				return
			}
			*at(&c) = fabrics.NewSecret(f.value)
			if p.cfg.Daemon == Stafd {
				complain(Note, text, "accepted, has no effect in this version", "", "")
			}
			continue
		}
		p.override(&c, f, text, complain)
	}
	if p.cfg.Daemon == Stafd {
		c.ID.SubsysNQN = cmp.Or(c.ID.SubsysNQN, nvme.WellKnownDiscoveryNQN)
	}
	c.ID = tid.New(c.ID)

	// The host NQN is not known here; any will do to check the rest.
	id := c.ID
	id.HostNQN = cmp.Or(id.HostNQN, nvme.WellKnownDiscoveryNQN)
	if err := id.Validate(); err != nil {
		complain(Error, it.Value, err.Error()+hint(it.Value), "", ignored)
		return
	}
	if c.ID.Transport == tid.FC && c.ID.HostTrAddr == "" {
		complain(Warning, it.Value, "the kernel makes no fc connection without host-traddr", "", "")
	}
	if line, ok := p.seen[c.ID]; ok {
		complain(Warning, it.Value, fmt.Sprintf("the same controller as in line %d", line), "", "that one counts")
		return
	}
	p.seen[c.ID] = c.Line
	p.cfg.Controllers = append(p.cfg.Controllers, c)
}

// override takes a field that has the name of an option of [Global].
func (p *parser) override(c *Controller, f field, text string, complain func(s Severity, text, problem, allowed, used string)) {
	opt := paramOption(f.name)
	if opt == nil {
		if o, other := find(p.cfg.Daemon, place{global, f.name}); o != nil || other {
			complain(Warning, text, "this can be set for all controllers only, in [Global]", "", "field ignored")
			return
		}
		complain(Error, f.name, "no such field"+suggest(f.name, fieldNames()), "", "field ignored")
		return
	}
	if _, ok := opt.def(p.cfg.Daemon); !ok {
		complain(Warning, text, "discovery controllers have no I/O queues", "", "field ignored")
		return
	}
	if err := opt.param(&c.Params, f.value); err != nil {
		complain(Warning, text, err.Error()+hint(f.value), opt.allowed, "using the value of [Global]")
	}
}

func fieldNames() []string {
	names := []string{"nqn"}
	for name := range idFields {
		names = append(names, name)
	}
	for name := range secretFields {
		names = append(names, name)
	}
	for _, o := range options {
		if o.param != nil {
			names = append(names, o.name)
		}
	}
	slices.Sort(names)
	return names
}

// isSecret checks the form of a key; the kernel checks the rest
// (drivers/nvme/host/fabrics.c, NVMF_OPT_DHCHAP_SECRET).
func isSecret(s string) bool {
	return strings.HasPrefix(s, "DHHC-1:") && len(s) >= len("DHHC-1:00:x") && !strings.ContainsAny(s, ", \t")
}
