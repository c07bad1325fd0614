package fabrics

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// Options are the options of one connect, named as in the kernel's option
// string (drivers/nvme/host/fabrics.c, opt_tokens). A nil number, an empty
// text and a false flag leave the option to the kernel; any other number is
// sent, zero too.
type Options struct {
	Transport  string // "tcp", "rdma", "fc", "loop"
	TrAddr     string // an address, never a host name
	TrSvcID    string
	NQN        string
	HostNQN    string
	HostID     string
	HostTrAddr string
	HostIface  string
	Discovery  bool // NQN is that of a discovery controller

	KeepAliveTMO   *int
	QueueSize      *int
	NrIOQueues     *int
	NrWriteQueues  *int
	NrPollQueues   *int
	ReconnectDelay *int
	CtrlLossTMO    *int
	FastIOFailTMO  *int
	TOS            *int

	DisableSQFlow    bool
	HdrDigest        bool
	DataDigest       bool
	DuplicateConnect bool
	TLS              bool
	Concat           bool

	Keyring          *int32 // serial number of a key
	TLSKey           *int32 // serial number of a key
	DHChapSecret     Secret
	DHChapCtrlSecret Secret
}

// maxOptionString is what the kernel takes in one write: less than a page,
// and nobody has smaller pages.
const maxOptionString = 4095

// transports is a set of transports.
type transports uint8

const (
	tcp transports = 1 << iota
	rdma
	fc
	loop

	ip  = tcp | rdma
	all = tcp | rdma | fc | loop
)

var transportBits = map[string]transports{"tcp": tcp, "rdma": rdma, "fc": fc, "loop": loop}

// option describes one option: the transports that accept it, and whether a
// connection without it would be another one than was asked for (another
// path, less secure, another kind of controller) and so must not be made.
type option struct {
	name   string
	on     transports
	vital  bool
	value  func(*Options) (text string, given bool)
	secret func(*Options) Secret // in place of value
}

// options lists all of them, in the order they are written
// (fabrics.h NVMF_ALLOWED_OPTS; {tcp,rdma,fc,loop}.c, nvme_*_transport).
var options = []option{
	{name: "nqn", on: all, vital: true, value: text(func(o *Options) string { return o.NQN })},
	{name: "transport", on: all, vital: true, value: text(func(o *Options) string { return o.Transport })},
	{name: "traddr", on: all, vital: true, value: text(func(o *Options) string { return o.TrAddr })},
	{name: "host_traddr", on: ip | fc, vital: true, value: text(func(o *Options) string { return o.HostTrAddr })},
	{name: "host_iface", on: tcp, vital: true, value: text(func(o *Options) string { return o.HostIface })},
	{name: "trsvcid", on: ip, value: text(func(o *Options) string { return o.TrSvcID })},
	{name: "hostnqn", on: all, vital: true, value: text(func(o *Options) string { return o.HostNQN })},
	{name: "hostid", on: all, vital: true, value: text(func(o *Options) string { return o.HostID })},
	{name: "discovery", on: all, vital: true, value: flag(func(o *Options) bool {
		// The kernel knows the well-known name without being told, and before
		// Linux 5.16 it knows nothing else.
		return o.Discovery && o.NQN != nvme.WellKnownDiscoveryNQN
	})},
	// Without it a controller that asks the host for proof refuses the
	// connection, and any other makes the same one; so a key that a host has
	// for all occasions does no harm on a kernel that cannot use it.
	{name: "dhchap_secret", on: all, secret: func(o *Options) Secret { return o.DHChapSecret }},
	{name: "dhchap_ctrl_secret", on: all, vital: true, secret: func(o *Options) Secret { return o.DHChapCtrlSecret }},
	{name: "nr_io_queues", on: all, value: number(func(o *Options) *int { return o.NrIOQueues })},
	{name: "nr_write_queues", on: ip, value: number(func(o *Options) *int { return o.NrWriteQueues })},
	{name: "nr_poll_queues", on: ip, value: number(func(o *Options) *int { return o.NrPollQueues })},
	{name: "queue_size", on: all, value: number(func(o *Options) *int { return o.QueueSize })},
	{name: "keep_alive_tmo", on: all, value: number(func(o *Options) *int { return o.KeepAliveTMO })},
	{name: "reconnect_delay", on: ip | fc, value: number(func(o *Options) *int { return o.ReconnectDelay })},
	{name: "ctrl_loss_tmo", on: ip | fc, value: number(func(o *Options) *int { return o.CtrlLossTMO })},
	{name: "fast_io_fail_tmo", on: all, value: number(func(o *Options) *int { return o.FastIOFailTMO })},
	{name: "tos", on: ip, value: number(func(o *Options) *int { return o.TOS })},
	{name: "keyring", on: tcp, vital: true, value: number(func(o *Options) *int32 { return o.Keyring })},
	{name: "tls_key", on: tcp, vital: true, value: number(func(o *Options) *int32 { return o.TLSKey })},
	{name: "duplicate_connect", on: all, value: flag(func(o *Options) bool { return o.DuplicateConnect })},
	{name: "disable_sqflow", on: all, value: flag(func(o *Options) bool { return o.DisableSQFlow })},
	{name: "hdr_digest", on: tcp, value: flag(func(o *Options) bool { return o.HdrDigest })},
	{name: "data_digest", on: tcp, value: flag(func(o *Options) bool { return o.DataDigest })},
	{name: "tls", on: tcp, vital: true, value: flag(func(o *Options) bool { return o.TLS })},
	{name: "concat", on: tcp, vital: true, value: flag(func(o *Options) bool { return o.Concat })},
}

func text(get func(*Options) string) func(*Options) (string, bool) {
	return func(o *Options) (string, bool) {
		s := get(o)
		return "=" + s, s != ""
	}
}

func number[T int | int32](get func(*Options) *T) func(*Options) (string, bool) {
	return func(o *Options) (string, bool) {
		n := get(o)
		if n == nil {
			return "", false
		}
		return "=" + strconv.FormatInt(int64(*n), 10), true
	}
}

func flag(get func(*Options) bool) func(*Options) (string, bool) {
	return func(o *Options) (string, bool) { return "", get(o) }
}

// token renders the option as it is written, the value of a secret in clear
// only if reveal is set. An option that is not given has no token.
func (opt *option) token(o *Options, reveal bool) (string, bool) {
	if opt.secret != nil {
		s := opt.secret(o)
		v := s.String()
		if reveal {
			v = s.Reveal()
		}
		return opt.name + "=" + v, s != Secret{}
	}
	v, given := opt.value(o)
	return opt.name + v, given
}

// String lists the options that are given, without secrets.
func (o Options) String() string {
	var tokens []string
	for i := range options {
		if t, given := options[i].token(&o, false); given {
			tokens = append(tokens, t)
		}
	}
	return strings.Join(tokens, ",")
}

// Difference is an option that two sets of options have in different ways.
type Difference struct {
	Name     string // the kernel's
	Was, Now string // nothing, if it is left to the kernel; a secret is not told
	Secret   bool
}

// Differences lists what would be different with other options.
func (o Options) Differences(other Options) []Difference {
	var all []Difference
	for i := range options {
		opt := &options[i]
		if opt.secret != nil {
			if opt.secret(&o) != opt.secret(&other) {
				all = append(all, Difference{Name: opt.name, Secret: true})
			}
			continue
		}
		was, had := opt.value(&o)
		now, has := opt.value(&other)
		if was != now || had != has {
			all = append(all, Difference{Name: opt.name, Was: told(was, had), Now: told(now, has)})
		}
	}
	return all
}

// told is the value of an option; a flag that is set is true.
func told(value string, given bool) string {
	if given && value == "" {
		return "true"
	}
	return strings.TrimPrefix(value, "=")
}

// GoString keeps %#v as readable as the rest.
func (o Options) GoString() string { return "fabrics.Options(" + o.String() + ")" }

// OptionString is what is written to /dev/nvme-fabrics. It may carry secrets
// and prints like one.
type OptionString struct {
	Secret
	// Dropped names the options that were given and left out, because the
	// transport or this kernel does not take them.
	Dropped []string
}

// Encode renders the options for a kernel that supports the given set. It
// fails rather than connect elsewhere, or less securely, than asked.
func (o Options) Encode(supported OptionSet) (OptionString, error) {
	if err := o.check(); err != nil {
		return OptionString{}, err
	}
	var tokens, dropped []string
	for i := range options {
		opt := &options[i]
		token, given := opt.token(&o, true)
		if !given {
			continue
		}
		if err := checkToken(token); err != nil {
			return OptionString{}, fmt.Errorf("option %s: %w", opt.name, err)
		}
		var why string
		switch {
		case opt.on&transportBits[o.Transport] == 0:
			why = "transport " + o.Transport
		case !supported.Has(opt.name):
			why = "this kernel"
		default:
			tokens = append(tokens, token)
			continue
		}
		if opt.vital {
			return OptionString{}, fmt.Errorf("%s does not support option %s", why, opt.name)
		}
		dropped = append(dropped, opt.name)
	}
	line := strings.Join(tokens, ",")
	if len(line) > maxOptionString {
		return OptionString{}, fmt.Errorf("the options take %d bytes, %d are allowed", len(line), maxOptionString)
	}
	return OptionString{NewSecret(line), dropped}, nil
}

// check finds what the kernel would answer with a bare EINVAL.
func (o *Options) check() error {
	on, known := transportBits[o.Transport]
	switch {
	case !known:
		return fmt.Errorf("there is no transport %q", o.Transport)
	case o.NQN == "":
		return errors.New("option nqn is missing")
	case o.TrAddr == "" && on != loop:
		return errors.New("option traddr is missing")
	case o.HostTrAddr == "" && on == fc:
		return errors.New("option host_traddr is missing")
	case (o.HostNQN == "") != (o.HostID == ""):
		// The kernel would complete the pair from its own default host and
		// then refuse the mixture.
		return errors.New("hostnqn and hostid go together: both or neither")
	}
	for i := range options {
		if get := options[i].secret; get != nil && get(o) != (Secret{}) && !get(o).IsDHChapKey() {
			return fmt.Errorf("option %s is not a DH-HMAC-CHAP key", options[i].name)
		}
	}
	return nil
}

// checkToken refuses what would make the kernel read something else than one
// option. It does not repeat the token, which may be a secret.
func checkToken(token string) error {
	if !utf8.ValidString(token) {
		return errors.New("the value is not UTF-8")
	}
	for _, r := range token {
		if r == ',' || unicode.IsSpace(r) || unicode.IsControl(r) {
			return fmt.Errorf("the value contains %q", r)
		}
	}
	return nil
}

// OptionSet is a set of option names.
type OptionSet struct {
	names []string // sorted
}

// NewOptionSet makes a set.
func NewOptionSet(names ...string) OptionSet {
	names = slices.Clone(names)
	slices.Sort(names)
	return OptionSet{slices.Compact(names)}
}

// Has reports whether the set contains the option.
func (s OptionSet) Has(name string) bool {
	_, found := slices.BinarySearch(s.names, name)
	return found
}

func (s OptionSet) String() string { return strings.Join(s.names, ",") }
