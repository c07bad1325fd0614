package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/nvme-stas/stas/internal/tid"
)

// Rules are the exclude= or include= rules of a configuration.
type Rules []Rule

// Match returns the first rule that applies to a controller.
func (r Rules) Match(id tid.TID) (Rule, bool) {
	i := slices.IndexFunc(r, func(rule Rule) bool { return rule.Match(id) })
	if i < 0 {
		return Rule{}, false
	}
	return r[i], true
}

// Rule names controllers by what they have in common: it applies to those
// that have all its values.
type Rule struct {
	Place
	fields []field // in the spelling of canonical
}

// Match reports whether the rule applies to a controller. A rule without
// fields applies to none.
func (r Rule) Match(id tid.TID) bool {
	for _, f := range r.fields {
		if !matchers[f.name](f.value, canonical(f.name, *idFields[f.name](&id))) {
			return false
		}
	}
	return len(r.fields) > 0
}

func (r Rule) String() string {
	parts := make([]string, len(r.fields))
	for i, f := range r.fields {
		parts[i] = f.name + "=" + f.value
	}
	return strings.Join(parts, ";")
}

// matchers compare what a rule says with what a controller has, for each field
// that a rule may have.
var matchers = map[string]func(pattern, value string) bool{
	"transport":  equal,
	"traddr":     inNetwork,
	"trsvcid":    equal,
	"subsysnqn":  glob,
	"host-iface": equal,
	"host-nqn":   glob,
}

// ruleFields has the names of these fields, as they may be written.
var ruleFields = []string{"host-iface", "host-nqn", "nqn", "subsysnqn", "traddr", "transport", "trsvcid"}

var transports = []string{tid.TCP, tid.RDMA, tid.FC, tid.Loop}

func equal(pattern, value string) bool { return pattern == value }

// inNetwork takes an address, or a network in the notation of CIDR.
func inNetwork(pattern, value string) bool {
	network, err := netip.ParsePrefix(pattern)
	if err != nil {
		return pattern == value
	}
	addr, err := netip.ParseAddr(value)
	return err == nil && network.Contains(addr.WithZone(""))
}

// glob takes a name in which "*" stands for any text and "?" for any character.
func glob(pattern, value string) bool {
	p, v := []rune(pattern), []rune(value)
	star, resume := -1, 0 // where the last "*" is, and where what follows it was tried
	i := 0
	for j := 0; j < len(v); {
		switch {
		case i < len(p) && p[i] == '*':
			star, resume = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == v[j]):
			i++
			j++
		case star >= 0:
			resume++
			i, j = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(string(p[i:]), "*") == ""
}

// canonical makes values comparable that may be spelled in several ways. A
// rule need not name the transport, so that cannot be asked for how.
func canonical(name, value string) string {
	switch name {
	case "transport":
		return strings.ToLower(value)
	case "traddr":
		if network, err := netip.ParsePrefix(value); err == nil {
			return network.Masked().String()
		}
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
	l := line{parser: p, Item: it}
	fs, ok := l.fields("the rule excludes nothing")
	if !ok {
		return
	}
	// Candidates were never compared by their source address.
	i := slices.IndexFunc(fs, func(f field) bool { return f.name == "host-traddr" })
	if i >= 0 {
		l.complain(Warning, fs[i].String(), "controllers are not excluded by host-traddr", "field ignored")
		fs = slices.Delete(fs, i, i+1)
	}
	if rule, ok := l.rule(fs, "the rule excludes nothing"); ok {
		p.cfg.Excludes = append(p.cfg.Excludes, rule)
	}
}

// include takes one include= line. One that cannot be understood includes
// nothing, but may have been meant for any controller.
func (p *parser) include(it Item) {
	const ignored = "the rule includes nothing"
	p.cfg.AllowList = true
	l := line{parser: p, Item: it, precious: true}
	if fs, ok := l.fields(ignored); ok {
		if rule, ok := l.rule(fs, ignored); ok {
			p.cfg.Includes = append(p.cfg.Includes, rule)
		}
	}
}

// Subsystem is a subsystem= line: what the connections of some controllers
// have for parameters, unless a controller= line says something else.
type Subsystem struct {
	Rule
	Params Params // of [Global], as changed by the line
}

// ParamsFor are the parameters of the connection to a controller that no
// controller= line is about.
func (c *Config) ParamsFor(id tid.TID) Params {
	if s := c.subsystemOf(id); s != nil {
		return s.Params
	}
	return c.Params
}

func (c *Config) subsystemOf(id tid.TID) *Subsystem {
	for i := range c.Subsystems {
		if c.Subsystems[i].Match(id) {
			return &c.Subsystems[i]
		}
	}
	return nil
}

// subsystem takes one subsystem= line.
func (p *parser) subsystem(it Item) {
	const ignored = "the line applies to nothing"
	l := line{parser: p, Item: it, base: inGlobal}
	fs, ok := l.fields(ignored)
	if !ok {
		return
	}
	s := Subsystem{Params: p.cfg.Params}
	var pattern []field
	for _, f := range fs {
		switch {
		case f.name == "host-nqn":
			l.complain(Error, f.String(), "parameters do not depend on the host NQN", ignored)
			return
		case matchers[f.name] != nil:
			pattern = append(pattern, f)
		default:
			l.param(&s.Params, f, "no such field", ruleFields)
		}
	}
	l.contradiction(s.Params, p.cfg.Params)
	if s.Rule, ok = l.rule(pattern, ignored); ok {
		p.cfg.Subsystems = append(p.cfg.Subsystems, s)
	}
}

// rule makes a rule of its fields.
func (l line) rule(fs []field, ignored string) (Rule, bool) {
	rule := Rule{Place: l.Place}
	for _, f := range fs {
		switch problem := f.unmatchable(); {
		case problem != "":
			l.complain(Error, f.String(), problem, ignored)
			return rule, false
		case f.name == "host-iface" && l.parser.cfg.IgnoreIface:
			l.complain(Warning, f.String(), "with ignore-iface = true no controller has an interface", ignored)
		}
		rule.fields = append(rule.fields, field{f.name, canonical(f.name, f.value)})
	}
	if len(rule.fields) == 0 {
		l.complain(Error, l.Value, "the rule has no field to match controllers by", ignored)
		return rule, false
	}
	return rule, true
}

// unmatchable says why no controller can have what the field of a rule says,
// or nothing.
func (f field) unmatchable() string {
	switch {
	case matchers[f.name] == nil:
		return "no field to match controllers by" + suggest(f.name, ruleFields)
	case f.value == "":
		return "there is no value"
	case hint(f.value) != "":
		return "no controller can have this value" + hint(f.value)
	case f.name == "transport" && !slices.Contains(transports, strings.ToLower(f.value)):
		return "no such transport" + suggest(f.value, transports)
	case f.name == "traddr" && strings.Contains(f.value, "/"):
		if _, err := netip.ParsePrefix(f.value); err != nil {
			return "not a network such as 192.0.2.0/24 or 2001:db8::/32"
		}
	}
	return ""
}

// Refusal is why a controller is not to be connected.
type Refusal struct {
	Why string
	// Sure says that it is not to be connected whatever the lines say that
	// were ignored; if not, a connection that exists must not be removed for it.
	Sure bool
}

// Refuses says why the configuration forbids a controller; nil if it does not.
// A controller that is named has a controller= line.
func (c *Config) Refuses(id tid.TID, named bool) *Refusal {
	if rule, ok := c.Excludes.Match(id); ok {
		return &Refusal{fmt.Sprintf("%s excludes %s", rule.Place, rule), true}
	}
	if _, ok := c.Includes.Match(id); c.AllowList && !named && !ok {
		return &Refusal{"none of the include= lines of the configuration names it", !c.Doubtful}
	}
	if addr, err := netip.ParseAddr(id.TrAddr); err == nil && !c.IPFamily.Allows(addr) {
		return &Refusal{"ip-family forbids its address", !c.Doubtful}
	}
	return nil
}
