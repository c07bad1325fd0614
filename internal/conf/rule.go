package conf

import (
	"slices"
	"strings"

	"github.com/nvme-stas/stas/internal/tid"
)

// Excludes are the exclude= rules of a configuration.
type Excludes []Exclude

// Match returns the first rule that excludes a controller.
func (x Excludes) Match(id tid.TID) (Exclude, bool) {
	i := slices.IndexFunc(x, func(e Exclude) bool { return e.Match(id) })
	if i < 0 {
		return Exclude{}, false
	}
	return x[i], true
}

// Exclude is one rule: no connection is made to a controller that has all its
// values.
type Exclude struct {
	Line int
	rule []field // in the spelling of canonical
}

// Match reports whether the rule excludes a controller. A rule without fields
// excludes none.
func (e Exclude) Match(id tid.TID) bool {
	if len(e.rule) == 0 {
		return false
	}
	for _, f := range e.rule {
		if canonical(f.name, *idFields[f.name](&id)) != f.value {
			return false
		}
	}
	return true
}

func (e Exclude) String() string {
	parts := make([]string, len(e.rule))
	for i, f := range e.rule {
		parts[i] = f.name + "=" + f.value
	}
	return strings.Join(parts, ";")
}

// canonical makes values comparable that may be spelled in several ways. A
// rule need not name the transport, so that cannot be asked for how.
func canonical(name, value string) string {
	switch name {
	case "transport":
		return strings.ToLower(value)
	case "traddr":
		return tid.CanonicalAddr(value)
	case "trsvcid":
		return tid.CanonicalPort(value)
	}
	return value
}

// exclude takes one exclude= line. A field that cannot be understood takes its
// whole rule with it: without the field the rule would exclude more
// controllers than anybody asked for.
func (p *parser) exclude(it Item) {
	complain := func(s Severity, text, problem, used string) {
		p.doubt(s == Error && it.Continued) // it may not be a rule at all
		p.issues.add(Issue{Line: it.Line, Severity: s, Text: text, Problem: problem, Used: used})
	}
	const ignored = "the rule excludes nothing"
	fs, bad := fields(it.Value)
	for _, b := range bad {
		complain(Error, b, "no \"=\": a field has the form name=value"+hint(b), ignored)
		return
	}
	e := Exclude{Line: it.Line}
	for _, f := range fs {
		text := f.name + "=" + f.value
		switch {
		case idFields[f.name] == nil:
			complain(Error, text, "no field to exclude by"+suggest(f.name, ruleFields()), ignored)
			return
		case f.value == "":
			complain(Error, text, "there is no value", ignored)
			return
		case hint(f.value) != "":
			complain(Error, text, "no controller can have this value"+hint(f.value), ignored)
			return
		case f.name == "transport" && !slices.Contains(transports, strings.ToLower(f.value)):
			complain(Error, text, "no such transport"+suggest(f.value, transports), ignored)
			return
		case f.name == "host-traddr":
			complain(Warning, text, "controllers are not excluded by host-traddr", "field ignored")
			continue
		case f.name == "host-iface" && p.cfg.IgnoreIface:
			complain(Warning, text, "with ignore-iface = true no controller has an interface", ignored)
		}
		e.rule = append(e.rule, field{f.name, canonical(f.name, f.value)})
	}
	if len(e.rule) == 0 {
		complain(Error, it.Value, "the rule has no field to exclude by", ignored)
		return
	}
	p.cfg.Excludes = append(p.cfg.Excludes, e)
}

var transports = []string{tid.TCP, tid.RDMA, tid.FC, tid.Loop}

func ruleFields() []string {
	names := []string{"nqn"}
	for name := range idFields {
		if name != "host-traddr" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
