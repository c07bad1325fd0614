package conf

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// The sections.
const (
	global       = "Global"
	discovery    = "Service Discovery"
	dcManagement = "Discovery controller connection management"
	ioManagement = "I/O controller connection management"
	controllers  = "Controllers"
)

// option describes one option of the files.
type option struct {
	section, name string
	// Defaults in the words of the file. Empty: the kernel decides, or there
	// is none; unknown: the daemon does not have the option.
	stafd, stacd string
	allowed      string
	// One of these takes the value; a param may also stand in a controller=
	// line.
	assign func(*Config, string) error
	param  func(*Params, string) error
	list   bool // neither: every line counts, not only the last
	// unbuilt reports whether what was set asks for something that this
	// version does not do.
	unbuilt func(*Config) bool
}

const unknown = "\x00"

const (
	trueFalse       = "true, false"
	enabledDisabled = "enabled, disabled"
)

// options lists all of them in the order in which they take effect.
var options = []option{
	{section: global, name: "tron", stafd: "false", stacd: "false", allowed: trueFalse, assign: boolean(func(c *Config) *bool { return &c.Tron })},
	{section: global, name: "hdr-digest", stafd: "false", stacd: "false", allowed: trueFalse, param: boolean(func(p *Params) *bool { return &p.HdrDigest })},
	{section: global, name: "data-digest", stafd: "false", stacd: "false", allowed: trueFalse, param: boolean(func(p *Params) *bool { return &p.DataDigest })},
	{section: global, name: "disable-sqflow", stafd: "false", stacd: "false", allowed: trueFalse, param: boolean(func(p *Params) *bool { return &p.DisableSQFlow })},
	{section: global, name: "kato", stafd: "30", allowed: "seconds, 0 or more", param: number(0, math.MaxInt32, func(p *Params) **int { return &p.KATO })},
	{section: global, name: "queue-size", allowed: "16 to 1024", param: number(16, 1024, func(p *Params) **int { return &p.QueueSize })},
	{section: global, name: "reconnect-delay", allowed: "seconds, 1 or more", param: number(1, math.MaxInt32, func(p *Params) **int { return &p.ReconnectDelay })},
	{section: global, name: "ctrl-loss-tmo", stafd: "600", stacd: "600", allowed: "seconds, 0 or more, or -1 for ever", param: number(-1, math.MaxInt32, func(p *Params) **int { return &p.CtrlLossTMO })},
	{section: global, name: "nr-io-queues", stafd: unknown, allowed: "1 or more", param: number(1, math.MaxInt32, func(p *Params) **int { return &p.NrIOQueues })},
	{section: global, name: "nr-write-queues", stafd: unknown, allowed: "1 or more", param: number(1, math.MaxInt32, func(p *Params) **int { return &p.NrWriteQueues })},
	{section: global, name: "nr-poll-queues", stafd: unknown, allowed: "1 or more", param: number(1, math.MaxInt32, func(p *Params) **int { return &p.NrPollQueues })},
	{section: global, name: "ignore-iface", stafd: "false", stacd: "false", allowed: trueFalse, assign: boolean(func(c *Config) *bool { return &c.IgnoreIface })},
	{section: global, name: "ip-family", stafd: "ipv4+ipv6", stacd: "ipv4+ipv6", allowed: "ipv4, ipv6, ipv4+ipv6", assign: ipFamily},
	{
		section: global, name: "pleo", stafd: "enabled", stacd: unknown, allowed: enabledDisabled,
		assign:  onOff(func(c *Config) *bool { return &c.PLEO }),
		unbuilt: func(c *Config) bool { return c.PLEO },
	},
	{
		section: discovery, name: "zeroconf", stafd: "enabled", stacd: unknown, allowed: enabledDisabled,
		assign:  onOff(func(c *Config) *bool { return &c.Zeroconf }),
		unbuilt: func(c *Config) bool { return c.Zeroconf },
	},
	{
		section: dcManagement, name: "persistent-connections", stafd: "true", stacd: unknown, allowed: trueFalse,
		assign:  boolean(func(c *Config) *bool { return &c.PersistentConns }),
		unbuilt: func(c *Config) bool { return !c.PersistentConns },
	},
	{
		section: dcManagement, name: "zeroconf-connections-persistence", stafd: "72hours", stacd: unknown,
		allowed: `a time such as "72hours", "3 days 5 hours" or seconds; 0: none, -1: for ever`,
		assign:  persistence,
		unbuilt: func(*Config) bool { return true },
	},
	{
		section: ioManagement, name: "disconnect-scope", stafd: unknown, stacd: string(OnlyStasConnections),
		allowed: strings.Join([]string{string(OnlyStasConnections), string(AllConnections), string(NoDisconnect)}, ", "),
		assign:  disconnectScope,
		unbuilt: func(c *Config) bool { return c.DisconnectScope == AllConnections },
	},
	{
		section: ioManagement, name: "disconnect-trtypes", stafd: unknown, stacd: "tcp",
		allowed: `tcp, rdma, fc, or several joined by "+"`,
		assign:  disconnectTrtypes,
		unbuilt: func(*Config) bool { return true },
	},
	{
		section: ioManagement, name: "connect-attempts-on-ncc", stafd: unknown, stacd: "0",
		allowed: "0 for no limit, or 2 and more",
		assign:  attemptsOnNCC,
		unbuilt: func(c *Config) bool { return c.ConnectAttemptsOnNCC != 0 },
	},
	{section: controllers, name: "controller", list: true},
	{section: controllers, name: "exclude", list: true},
}

type place struct{ section, key string }

// moved has the names of nvme-stas 1.x.
var moved = map[place]place{
	{global, "persistent-connections"}: {dcManagement, "persistent-connections"},
	{controllers, "blacklist"}:         {controllers, "exclude"},
}

// def is the option's default for a daemon; false if the daemon does not have
// the option.
func (o *option) def(d Daemon) (string, bool) {
	text := o.stafd
	if d == Stacd {
		text = o.stacd
	}
	return text, text != unknown
}

func (o *option) set(c *Config, value string) error {
	if value == "" {
		return errors.New("there is no value")
	}
	if o.param != nil {
		return o.param(&c.Params, value)
	}
	return o.assign(c, value)
}

// used says in words what an option has whose value was refused.
func (o *option) used(c *Config) string {
	if o.name == "disconnect-trtypes" { // the one that may be right in parts
		return strings.Join(c.DisconnectTrtypes, "+")
	}
	if def, _ := o.def(c.Daemon); def != "" {
		return def
	}
	return "the kernel's default"
}

// find looks an option up; other says that only the other daemon has it.
func find(d Daemon, at place) (opt *option, other bool) {
	for i := range options {
		o := &options[i]
		if o.section != at.section || o.name != at.key {
			continue
		}
		if _, ok := o.def(d); ok {
			return o, false
		}
		return nil, true
	}
	return nil, false
}

// paramOption is the option of [Global] that a field of a controller= line
// overrides.
func paramOption(name string) *option {
	i := slices.IndexFunc(options, func(o option) bool { return o.name == name && o.param != nil })
	if i < 0 {
		return nil
	}
	return &options[i]
}

func sectionsOf(d Daemon) []string {
	var names []string
	for i := range options {
		if _, ok := options[i].def(d); ok && !slices.Contains(names, options[i].section) {
			names = append(names, options[i].section)
		}
	}
	return names
}

func keysOf(d Daemon, section string) []string {
	var names []string
	for i := range options {
		if _, ok := options[i].def(d); ok && options[i].section == section {
			names = append(names, options[i].name)
		}
	}
	return names
}

func boolean[T any](at func(*T) *bool) func(*T, string) error {
	return choice("true", "false", at)
}

func onOff(at func(*Config) *bool) func(*Config, string) error {
	return choice("enabled", "disabled", at)
}

func choice[T any](yes, no string, at func(*T) *bool) func(*T, string) error {
	return func(t *T, value string) error {
		switch {
		case strings.EqualFold(value, yes):
			*at(t) = true
		case strings.EqualFold(value, no):
			*at(t) = false
		default:
			return fmt.Errorf("neither %s nor %s", yes, no)
		}
		return nil
	}
}

func number(low, high int, at func(*Params) **int) func(*Params, string) error {
	return func(p *Params, value string) error {
		n, err := strconv.Atoi(value)
		switch {
		case errors.Is(err, strconv.ErrRange) || err == nil && (n < low || n > high):
			return errors.New("out of range")
		case err != nil:
			return errors.New("not a whole number")
		}
		*at(p) = &n
		return nil
	}
}

func ipFamily(c *Config, value string) error {
	switch value {
	case "ipv4":
		c.IPFamily = IPFamily{IPv4: true}
	case "ipv6":
		c.IPFamily = IPFamily{IPv6: true}
	case "ipv4+ipv6", "ipv6+ipv4":
		c.IPFamily = IPFamily{IPv4: true, IPv6: true}
	default:
		return errors.New("not a choice of address families")
	}
	return nil
}

func persistence(c *Config, value string) error {
	d, err := parseSpan(value)
	if err != nil {
		return err
	}
	c.ZeroconfPersistence = d
	return nil
}

func disconnectScope(c *Config, value string) error {
	switch s := DisconnectScope(value); s {
	case OnlyStasConnections, AllConnections, NoDisconnect:
		c.DisconnectScope = s
		return nil
	}
	return errors.New("not a scope")
}

// disconnectTrtypes keeps the transports it knows, and complains of the rest.
func disconnectTrtypes(c *Config, value string) error {
	var good, bad []string
	for t := range strings.SplitSeq(value, "+") {
		switch {
		case t != "tcp" && t != "rdma" && t != "fc":
			bad = append(bad, strconv.Quote(t))
		case !slices.Contains(good, t):
			good = append(good, t)
		}
	}
	if len(good) > 0 {
		c.DisconnectTrtypes = good
	}
	if len(bad) > 0 {
		return fmt.Errorf("no transport to choose: %s", strings.Join(bad, ", "))
	}
	return nil
}

func attemptsOnNCC(c *Config, value string) error {
	n, err := strconv.Atoi(value)
	switch {
	case err != nil:
		return errors.New("not a whole number")
	case n < 0:
		return errors.New("out of range")
	case n == 1:
		n = 2 // the first attempt is the one whose failure reports NCC
	}
	c.ConnectAttemptsOnNCC = n
	return nil
}

// suggest names what was probably meant, if that can be guessed.
func suggest(word string, known []string) string {
	best, dist := "", 2+len(word)/3
	for _, k := range known {
		if d := distance(strings.ToLower(strings.TrimSpace(word)), strings.ToLower(k)); d < dist {
			best, dist = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", best)
}

// distance is how many characters have to be changed, added or removed to get
// from a to b (Levenshtein).
func distance(a, b string) int {
	if len(a) > maxText {
		return len(a) // nobody's typo
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := diagonal
			if a[i] != b[j] {
				d = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}
