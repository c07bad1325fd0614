package conf

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nvme-stas/stas/pkg/fabrics"
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
	// or subsystem= line.
	assign func(*Config, string) error
	param  func(*Params, string) error
	list   bool // neither: every line counts, not only the last; see lines
	// safe is what takes the place of a value that makes no sense, where the
	// default would be less secure than what was asked for.
	safe string
	file bool // the value may be in a file of its own, after FilePrefix
}

const unknown = "\x00"

const (
	trueFalse       = "true, false"
	enabledDisabled = "enabled, disabled"
	keySerial       = "the serial number of a key, as keyctl(1) shows it"
	dhchapKey       = "DHHC-1:…:…:, or file:// and a path"
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
	{section: global, name: "fast-io-fail-tmo", allowed: "seconds, 0 or more, or -1 for off", param: number(-1, math.MaxInt32, func(p *Params) **int { return &p.FastIOFailTMO })},
	{section: global, name: "tos", allowed: "0 to 255", param: number(0, 255, func(p *Params) **int { return &p.TOS })},
	{section: global, name: "nr-io-queues", stafd: unknown, allowed: "1 or more", param: number(1, math.MaxInt32, func(p *Params) **int { return &p.NrIOQueues })},
	{section: global, name: "nr-write-queues", stafd: unknown, allowed: "1 or more", param: number(1, math.MaxInt32, func(p *Params) **int { return &p.NrWriteQueues })},
	{section: global, name: "nr-poll-queues", stafd: unknown, allowed: "1 or more", param: number(1, math.MaxInt32, func(p *Params) **int { return &p.NrPollQueues })},
	{section: global, name: "duplicate-connect", stafd: unknown, stacd: "false", allowed: trueFalse, param: boolean(func(p *Params) *bool { return &p.DuplicateConnect })},
	{section: global, name: "tls", stafd: "false", stacd: "false", allowed: trueFalse, safe: "true", param: boolean(func(p *Params) *bool { return &p.TLS })},
	{section: global, name: "concat", stafd: "false", stacd: "false", allowed: trueFalse, safe: "true", param: boolean(func(p *Params) *bool { return &p.Concat })},
	{section: global, name: "keyring", allowed: keySerial, param: serial(func(p *Params) **int32 { return &p.Keyring })},
	{section: global, name: "tls-key", allowed: keySerial, param: serial(func(p *Params) **int32 { return &p.TLSKey })},
	{section: global, name: "dhchap-secret", allowed: dhchapKey, safe: unusable, file: true, param: keyText(func(p *Params) *fabrics.Secret { return &p.DHChapSecret })},
	{section: global, name: "dhchap-ctrl-secret", allowed: dhchapKey, safe: unusable, file: true, param: keyText(func(p *Params) *fabrics.Secret { return &p.DHChapCtrlSecret })},
	{section: global, name: "ignore-iface", stafd: "false", stacd: "false", allowed: trueFalse, assign: boolean(func(c *Config) *bool { return &c.IgnoreIface })},
	{section: global, name: "ip-family", stafd: "ipv4+ipv6", stacd: "ipv4+ipv6", allowed: "ipv4, ipv6, ipv4+ipv6", assign: ipFamily},
	{
		section: global, name: "connect-retry-max", stafd: "60", stacd: "60",
		allowed: `a time from 1 second to 1 day, such as "60" (seconds) or "5 minutes"`, assign: connectRetryMax,
	},
	{
		section: global, name: "pleo", stafd: "enabled", stacd: unknown, allowed: enabledDisabled,
		assign: onOff(func(c *Config) *bool { return &c.PLEO }),
	},
	{
		section: discovery, name: "zeroconf", stafd: "enabled", stacd: unknown, allowed: enabledDisabled,
		assign: onOff(func(c *Config) *bool { return &c.Zeroconf }),
	},
	{
		section: discovery, name: "mdns", stafd: string(MDNSAuto), stacd: unknown,
		allowed: strings.Join([]string{string(MDNSAuto), string(MDNSAvahi), string(MDNSEmbedded)}, ", "),
		assign:  mdnsMode,
	},
	{
		section: dcManagement, name: "persistent-connections", stafd: "true", stacd: unknown, allowed: trueFalse,
		assign: boolean(func(c *Config) *bool { return &c.PersistentConns }),
	},
	{
		section: dcManagement, name: "zeroconf-connections-persistence", stafd: "72hours", stacd: unknown,
		allowed: `a time such as "72hours", "3 days 5 hours", "1:30:00" or seconds; 0: none, -1: for ever`,
		assign:  persistence,
	},
	{
		section: ioManagement, name: "disconnect-scope", stafd: unknown, stacd: string(OnlyStasConnections),
		allowed: strings.Join([]string{string(OnlyStasConnections), string(AllConnections), string(NoDisconnect)}, ", "),
		assign:  disconnectScope,
	},
	{
		section: ioManagement, name: "disconnect-trtypes", stafd: unknown, stacd: "tcp",
		allowed: `tcp, rdma, fc, or several joined by "+"`,
		assign:  disconnectTrtypes,
	},
	{
		section: ioManagement, name: "connect-attempts-on-ncc", stafd: unknown, stacd: "0",
		allowed: "0 for no limit, or 2 and more",
		assign:  attemptsOnNCC,
	},
	{
		section: ioManagement, name: "disconnect-in-use", stafd: unknown, stacd: "hold", allowed: "hold, allow",
		assign: choice("allow", "hold", func(c *Config) *bool { return &c.DisconnectInUse }),
	},
	{
		section: ioManagement, name: "honor-target-timeouts", stafd: unknown, stacd: "true", allowed: trueFalse,
		assign: boolean(func(c *Config) *bool { return &c.HonorTargetTimeouts }),
	},
	{
		section: ioManagement, name: "target-timeout-min", stafd: unknown, stacd: "1", allowed: "seconds, 1 or more",
		assign: seconds(func(c *Config) *int { return &c.TargetTimeoutMin }),
	},
	{
		section: ioManagement, name: "target-timeout-max", stafd: unknown, stacd: "86400", allowed: "seconds, 1 or more",
		assign: seconds(func(c *Config) *int { return &c.TargetTimeoutMax }),
	},
	{section: controllers, name: "exclude", list: true},
	{section: controllers, name: "include", list: true},
	{section: controllers, name: "subsystem", list: true},
	{section: controllers, name: "controller", list: true},
}

// lines has what takes a line of the options that are lists.
var lines = map[string]func(*parser, Item){
	"exclude":    (*parser).exclude,
	"include":    (*parser).include,
	"subsystem":  (*parser).subsystem,
	"controller": (*parser).controller,
}

type place struct{ section, key string }

// formerly has the places that options had in nvme-stas 1.x.
var formerly = map[place]place{
	{global, "persistent-connections"}: {dcManagement, "persistent-connections"},
	{controllers, "blacklist"}:         {controllers, "exclude"},
}

// gone has options of former versions of nvme-stas, in whatever section, and
// what to do without them.
var gone = map[string]string{
	"sticky-connections": "stacd.conf has disconnect-scope instead",
	"udev-rule":          "udev rules are looked after without being asked",
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

// set takes a value. After an error the option is as it was, or safe.
func (o *option) set(c *Config, value string) error {
	var err error
	if o.param != nil {
		err = o.setParam(&c.Params, value)
	} else {
		err = o.assign(c, value)
	}
	if err != nil && value == "" {
		return errors.New("there is no value")
	}
	return err
}

// setParam is set for the parameters of one connection.
func (o *option) setParam(p *Params, value string) error {
	err := o.param(p, value)
	if err != nil && o.safe != "" {
		_ = o.param(p, o.safe) // takes it, whatever it thinks of it
	}
	return err
}

// used says in words what an option has whose value was refused.
func (o *option) used(c *Config) string {
	if o.name == "disconnect-trtypes" { // the one that may be right in parts
		return "using " + strings.Join(c.DisconnectTrtypes, "+")
	}
	def, _ := o.def(c.Daemon)
	return o.usedFor(cmp.Or(def, "the kernel's default"))
}

// usedFor is used where something else than the default is the base.
func (o *option) usedFor(base string) string {
	switch o.safe {
	case "":
		return "using " + base
	case unusable:
		return "no connection is made with it"
	}
	return "using " + o.safe
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
		switch strings.ToLower(value) {
		case yes:
			*at(t) = true
		case no:
			*at(t) = false
		default:
			return fmt.Errorf("neither %s nor %s", yes, no)
		}
		return nil
	}
}

func seconds(at func(*Config) *int) func(*Config, string) error {
	return func(c *Config, value string) error {
		var p Params
		if err := number(1, math.MaxInt32, func(p *Params) **int { return &p.CtrlLossTMO })(&p, value); err != nil {
			return err
		}
		*at(c) = *p.CtrlLossTMO
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

// serial takes the serial number of a key, in decimal or, after "0x", in
// hexadecimal digits (keyrings(7), proc_keys(5)).
func serial(at func(*Params) **int32) func(*Params, string) error {
	return func(p *Params, value string) error {
		digits, base := value, 10
		if hex, ok := strings.CutPrefix(value, "0x"); ok {
			digits, base = hex, 16
		}
		n, err := strconv.ParseInt(digits, base, 32)
		if err != nil || n <= 0 {
			return errors.New("not the serial number of a key")
		}
		*at(p) = new(int32(n))
		return nil
	}
}

// unusable takes the place of a key that is none: [fabrics.Options.Encode]
// refuses it.
const unusable = "unusable"

func keyText(at func(*Params) *fabrics.Secret) func(*Params, string) error {
	return func(p *Params, value string) error {
		*at(p) = fabrics.NewSecret(value)
		if !at(p).IsDHChapKey() {
			return errors.New("not a DH-HMAC-CHAP key")
		}
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

func mdnsMode(c *Config, value string) error {
	switch m := MDNS(value); m {
	case MDNSAuto, MDNSAvahi, MDNSEmbedded:
		c.MDNS = m
		return nil
	}
	return errors.New("not a way to browse")
}

func persistence(c *Config, value string) error {
	d, err := parseSpan(value)
	if err != nil {
		return err
	}
	c.ZeroconfPersistence = d
	return nil
}

func connectRetryMax(c *Config, value string) error {
	d, err := parseSpan(value)
	if err == nil && (d < time.Second || d > 24*time.Hour) {
		err = errors.New("out of range")
	}
	if err != nil {
		return err
	}
	c.ConnectRetryMax = d
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
