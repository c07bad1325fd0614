package conf

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
)

const (
	host   = "nqn.2014-08.org.nvmexpress:uuid:0f3e8a52-9a0f-4f0c-8c5e-5b5a5f1d7e01"
	secret = "DHHC-1:00:c2VjcmV0IG9mIHRoZSBob3N0IGZvciB0ZXN0cw==:"
)

// secrets compares keys, which cannot be looked into.
var secrets = cmp.Comparer(func(a, b fabrics.Secret) bool { return a == b })

func parse(t *testing.T, d Daemon, text string) (*Config, []Issue) {
	t.Helper()
	cfg, issues, err := Parse(d, "f", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return cfg, issues
}

func TestDefaults(t *testing.T) {
	families := IPFamily{IPv4: true, IPv6: true}
	for _, want := range []*Config{
		{
			Daemon:   Stafd,
			Params:   Params{KATO: new(30), CtrlLossTMO: new(600)},
			IPFamily: families, ConnectRetryMax: time.Minute, PLEO: true, Zeroconf: true, MDNS: MDNSAuto, PersistentConns: true,
			ZeroconfPersistence: 72 * time.Hour,
		},
		{
			Daemon:   Stacd,
			Params:   Params{CtrlLossTMO: new(600)},
			IPFamily: families, ConnectRetryMax: time.Minute, DisconnectScope: OnlyStasConnections, DisconnectTrtypes: []string{"tcp"},
			HonorTargetTimeouts: true, TargetTimeoutMin: 1, TargetTimeoutMax: 86400,
		},
	} {
		got, issues := parse(t, want.Daemon, "")
		if diff := cmp.Diff(want, got, secrets); diff != "" || issues != nil {
			t.Errorf("%s: %s %v", want.Daemon, diff, issues)
		}
	}
}

// TestOptions sets one thing, and says what becomes of it.
func TestOptions(t *testing.T) {
	tests := []struct {
		name   string
		daemon Daemon // Stafd if empty
		text   string
		want   func(*Config) // changes the defaults
		issues []string
	}{
		{name: "comments", text: "# [Global]\n ; x\n\n[Global]\n # y\n;tron=true"},
		{name: "bool, any case", text: "[Global]\nTRON = TrUe", want: func(c *Config) { c.Tron = true }},
		{name: "CRLF", text: "[Global]\r\ntron=true\r\n", want: func(c *Config) { c.Tron = true }},
		{
			name: "no bool", text: "[Global]\ntron=yes",
			issues: []string{`f:2: "tron = yes": neither true nor false; allowed: true, false; using false`},
		},
		{name: "last one counts", text: "[Global]\nkato=5\nkato=6\n[Global]\nkato=7", want: func(c *Config) { c.Params.KATO = new(7) }},
		{
			name: "last one counts, being wrong", text: "[Global]\nkato=5\nkato=x",
			issues: []string{`f:3: "kato = x": not a whole number; allowed: seconds, 0 or more; using 30`},
		},
		{name: "continued", text: "[Global]\nkato=\n  7", want: func(c *Config) { c.Params.KATO = new(7) }},
		{
			name: "continued by mistake", text: "[Global]\nkato=5\n  tron=true",
			issues: []string{`f:3: "kato = tron=true": not a whole number (being indented, the line continues the option above); allowed: seconds, 0 or more; using 30`},
		},
		{name: "all indented", text: "  [Global]\n  kato=5\n  tron=true", want: func(c *Config) { c.Params.KATO, c.Tron = new(5), true }},
		{name: "kato 0 is a value", text: "[Global]\nkato=0", want: func(c *Config) { c.Params.KATO = new(0) }},
		{name: "kato -1", text: "[Global]\nkato=-1", issues: []string{`f:2: "kato = -1": out of range; allowed: seconds, 0 or more; using 30`}},
		{name: "kato huge", daemon: Stacd, text: "[Global]\nkato=99999999999999999999", issues: []string{`f:2: "kato = 99999999999999999999": out of range; allowed: seconds, 0 or more; using the kernel's default`}},
		{name: "kato empty", text: "[Global]\nkato=", issues: []string{`f:2: "kato = ": there is no value; allowed: seconds, 0 or more; using 30`}},
		{name: "signed", text: "[Global]\nctrl-loss-tmo = -1\nreconnect-delay=+5", want: func(c *Config) { c.Params.CtrlLossTMO, c.Params.ReconnectDelay = new(-1), new(5) }},
		{name: "ctrl-loss-tmo -2", text: "[Global]\nctrl-loss-tmo=-2", issues: []string{`f:2: "ctrl-loss-tmo = -2": out of range; allowed: seconds, 0 or more, or -1 for ever; using 600`}},
		{name: "queue-size", text: "[Global]\nqueue-size=16", want: func(c *Config) { c.Params.QueueSize = new(16) }},
		{name: "queue-size small", text: "[Global]\nqueue-size=15", issues: []string{`f:2: "queue-size = 15": out of range; allowed: 16 to 1024; using the kernel's default`}},
		{name: "queues", daemon: Stacd, text: "[Global]\nnr-io-queues=1\nnr-write-queues=2\nnr-poll-queues=3", want: func(c *Config) {
			c.Params.NrIOQueues, c.Params.NrWriteQueues, c.Params.NrPollQueues = new(1), new(2), new(3)
		}},
		{name: "queues 0", daemon: Stacd, text: "[Global]\nnr-io-queues=0", issues: []string{`f:2: "nr-io-queues = 0": out of range; allowed: 1 or more; using the kernel's default`}},
		{name: "digests", text: "[Global]\nhdr-digest=true\ndata-digest=true\ndisable-sqflow=true", want: func(c *Config) {
			c.Params.HdrDigest, c.Params.DataDigest, c.Params.DisableSQFlow = true, true, true
		}},
		{name: "ip-family", text: "[Global]\nip-family=ipv6", want: func(c *Config) { c.IPFamily.IPv4 = false }},
		{name: "ip-family wrong", text: "[Global]\nip-family=IPv6", issues: []string{`f:2: "ip-family = IPv6": not a choice of address families; allowed: ipv4, ipv6, ipv4+ipv6; using ipv4+ipv6`}},
		{name: "no trailing comments", text: "[Global]\ntron = true # x", issues: []string{`f:2: "tron = true # x": neither true nor false (comments have lines of their own); allowed: true, false; using false`}},
		{name: "the rest of the kernel's", text: "[Global]\nfast-io-fail-tmo=0\ntos=0\ntls=true\nkeyring=0x1f\ntls-key=32", want: func(c *Config) {
			c.Params.FastIOFailTMO, c.Params.TOS, c.Params.TLS = new(0), new(0), true
			c.Params.Keyring, c.Params.TLSKey = new(int32(31)), new(int32(32))
		}},
		{name: "fast-io-fail-tmo off", text: "[Global]\nfast-io-fail-tmo=-1", want: func(c *Config) { c.Params.FastIOFailTMO = new(-1) }},
		{name: "tos 256", text: "[Global]\ntos=256", issues: []string{`f:2: "tos = 256": out of range; allowed: 0 to 255; using the kernel's default`}},
		{name: "keyring by name", text: "[Global]\nkeyring=.nvme", issues: []string{
			`f:2: "keyring =<secret>": not the serial number of a key; allowed: the serial number of a key, as keyctl(1) shows it; using the kernel's default`,
		}},
		{name: "tls, doubted", text: "[Global]\ntls=ture", want: func(c *Config) { c.Params.TLS = true }, issues: []string{
			`f:2: "tls = ture": neither true nor false; allowed: true, false; using true`,
		}},
		{name: "concat without a value", text: "[Global]\nconcat=", want: func(c *Config) { c.Params.Concat = true }, issues: []string{
			`f:2: "concat = ": there is no value; allowed: true, false; using true`,
		}},
		{name: "tls and concat", text: "[Global]\ntls=true\nconcat=true", want: func(c *Config) { c.Params.TLS, c.Params.Concat = true, true }, issues: []string{
			`f:3: "concat = true": tls and concat exclude each other; the kernel makes no such connection`,
		}},
		{name: "keys", text: "[Global]\ndhchap-secret=" + secret + "\ndhchap-ctrl-secret = " + secret + "=", want: func(c *Config) {
			c.Params.DHChapSecret, c.Params.DHChapCtrlSecret = fabrics.NewSecret(secret), fabrics.NewSecret(secret+"=")
		}},
		{name: "no key", text: "[Global]\ndhchap-ctrl-secret=geheim", want: func(c *Config) { c.Params.DHChapCtrlSecret = fabrics.NewSecret(unusable) }, issues: []string{
			`f:2: "dhchap-ctrl-secret =<secret>": not a DH-HMAC-CHAP key; allowed: DHHC-1:…:…:, or file:// and a path; no connection is made with it`,
		}},
		{name: "empty values behind", text: "[Global]\nkato=7\nkato=\n", want: func(c *Config) { c.Params.KATO = new(7) }},
		{name: "duplicate-connect", daemon: Stacd, text: "[Global]\nduplicate-connect=true", want: func(c *Config) { c.Params.DuplicateConnect = true }},
		{name: "section with inner blanks", text: "[ Global ]\nkato=7", issues: []string{`f:1: "[ Global ]": no such section, did you mean "Global"?; the whole section is ignored`}},
		{name: "colon", text: "[Global]\nkato: 7", issues: []string{`f:2: "kato: 7": no "=": an option has the form name = value; line ignored`}},
		{name: "quotes and percent signs", text: "[Global]\nkato=\"7\"\ntos=%(kato)s", issues: []string{
			`f:2: "kato = \"7\"": not a whole number; allowed: seconds, 0 or more; using 30`,
			`f:3: "tos = %(kato)s": not a whole number; allowed: 0 to 255; using the kernel's default`,
		}},
		{name: "in another section", text: "[Controllers]\nkato=7", issues: []string{`f:2: "kato": no such option in [Controllers], it belongs into [Global]; line ignored`}},
		{name: "sticky-connections", daemon: Stacd, text: "[Controllers]\nsticky-connections=enabled", issues: []string{`f:2: "sticky-connections": this option is no more: stacd.conf has disconnect-scope instead; line ignored`}},
		{name: "udev-rule", daemon: Stacd, text: "[Global]\nudev-rule=disabled", issues: []string{`f:2: "udev-rule": this option is no more: udev rules are looked after without being asked; line ignored`}},
		{name: "persistent-connections as it is", text: "[Discovery controller connection management]\npersistent-connections=true"},
		{
			name: "persistent-connections", text: "[Discovery controller connection management]\npersistent-connections=false", want: func(c *Config) { c.PersistentConns = false },
		},
		{
			name: "persistent-connections, old place", text: "[Global]\npersistent-connections=true",
			issues: []string{`f:2: "persistent-connections": the option is persistent-connections in [Discovery controller connection management] now; taken as that`},
		},
		{
			name: "persistent-connections, both places", text: "[Discovery controller connection management]\npersistent-connections=true\n[Global]\npersistent-connections=false",
			issues: []string{`f:4: "persistent-connections": the option is persistent-connections in [Discovery controller connection management] now; line ignored, as that one is given, too`},
		},
		{
			name: "blacklist", text: "[Controllers]\nblacklist=traddr=::1",
			want:   func(c *Config) { c.Excludes = Rules{{Place{"f", 2}, []field{{"traddr", "::1"}}}} },
			issues: []string{`f:2: "blacklist": the option is exclude in [Controllers] now; taken as that`},
		},

		{name: "zeroconf", text: "[Service Discovery]\nzeroconf=disabled", want: func(c *Config) { c.Zeroconf = false }},
		{name: "mdns", text: "[Service Discovery]\nmdns=embedded", want: func(c *Config) { c.MDNS = MDNSEmbedded }},
		{
			name: "mdns wrong", text: "[Service Discovery]\nmdns=bonjour",
			issues: []string{`f:2: "mdns = bonjour": not a way to browse; allowed: auto, avahi, embedded; using auto`},
		},
		{
			name: "zeroconf-connections-persistence", text: "[Discovery controller connection management]\nzeroconf-connections-persistence=-1",
			want: func(c *Config) { c.ZeroconfPersistence = -time.Second },
		},
		{name: "connect-retry-max", text: "[Global]\nconnect-retry-max=5 minutes", want: func(c *Config) { c.ConnectRetryMax = 5 * time.Minute }},
		{
			name: "connect-retry-max, too short", text: "[Global]\nconnect-retry-max=0",
			issues: []string{`f:2: "connect-retry-max = 0": out of range; allowed: a time from 1 second to 1 day, such as "60" (seconds) or "5 minutes"; using 60`},
		},
		{
			name: "connect-retry-max, never", daemon: Stacd, text: "[Global]\nconnect-retry-max=soon",
			issues: []string{`f:2: "connect-retry-max = soon": not a time span; allowed: a time from 1 second to 1 day, such as "60" (seconds) or "5 minutes"; using 60`},
		},

		// Not built yet.
		{name: "pleo as it is", text: "[Global]\npleo=Disabled", want: func(c *Config) { c.PLEO = false }},
		{name: "pleo", text: "[Global]\npleo=enabled"},
		{
			name: "zeroconf-connections-persistence wrong", text: "[Discovery controller connection management]\nzeroconf-connections-persistence=2 weeks",
			issues: []string{`f:2: "zeroconf-connections-persistence = 2 weeks": not a time span; allowed: a time such as "72hours", "3 days 5 hours", "1:30:00" or seconds; 0: none, -1: for ever; using 72hours`},
		},
		{
			name: "disconnect-scope", daemon: Stacd, text: "[I/O controller connection management]\ndisconnect-scope=no-disconnect",
			want: func(c *Config) { c.DisconnectScope = NoDisconnect },
		},
		{
			name: "disconnect-scope all", daemon: Stacd, text: "[I/O controller connection management]\ndisconnect-scope=all-connections-matching-disconnect-trtypes",
			want: func(c *Config) { c.DisconnectScope = AllConnections },
		},
		{
			name: "disconnect-trtypes", daemon: Stacd, text: "[I/O controller connection management]\ndisconnect-trtypes=fc+tcp+fc",
			want: func(c *Config) { c.DisconnectTrtypes = []string{"fc", "tcp"} },
		},
		{
			name: "disconnect-trtypes right in parts", daemon: Stacd, text: "[I/O controller connection management]\ndisconnect-trtypes=rdma+pcie+fc",
			want:   func(c *Config) { c.DisconnectTrtypes = []string{"rdma", "fc"} },
			issues: []string{`f:2: "disconnect-trtypes = rdma+pcie+fc": no transport to choose: "pcie"; allowed: tcp, rdma, fc, or several joined by "+"; using rdma+fc`},
		},
		{
			name: "connect-attempts-on-ncc", daemon: Stacd, text: "[I/O controller connection management]\nconnect-attempts-on-ncc=1",
			want: func(c *Config) { c.ConnectAttemptsOnNCC = 2 },
		},

		{
			name: "disconnect-in-use", daemon: Stacd, text: "[I/O controller connection management]\ndisconnect-in-use=Allow",
			want: func(c *Config) { c.DisconnectInUse = true },
		},
		{
			name: "disconnect-in-use, wrong", daemon: Stacd, text: "[I/O controller connection management]\ndisconnect-in-use=never",
			issues: []string{`f:2: "disconnect-in-use = never": neither allow nor hold; allowed: hold, allow; using hold`},
		},
		{
			name: "target time-outs", daemon: Stacd,
			text: "[I/O controller connection management]\nhonor-target-timeouts=false\ntarget-timeout-min=5\ntarget-timeout-max=60",
			want: func(c *Config) { c.HonorTargetTimeouts, c.TargetTimeoutMin, c.TargetTimeoutMax = false, 5, 60 },
		},
		{
			name: "target time-outs, wrong", daemon: Stacd, text: "[I/O controller connection management]\ntarget-timeout-min=0",
			issues: []string{`f:2: "target-timeout-min = 0": out of range; allowed: seconds, 1 or more; using 1`},
		},

		// What the daemon does not have.
		{name: "typo in an option", text: "[Global]\nkatoo=5", issues: []string{`f:2: "katoo": no such option in [Global], did you mean "kato"?; line ignored`}},
		{name: "nothing like it", text: "[Global]\nsticky=5\n  6", issues: []string{`f:2: "sticky": no such option in [Global]; line ignored`}},
		{name: "typo in a section", text: "[global]\nkato=5\nfoo=6", issues: []string{`f:1: "[global]": no such section, did you mean "Global"?; the whole section is ignored`}},
		{name: "section DEFAULT", text: "[DEFAULT]\nkato=5", issues: []string{`f:1: "[DEFAULT]": no such section; the whole section is ignored`}},
		{name: "option of the other", text: "[Global]\nnr-io-queues=5", issues: []string{`f:2: "nr-io-queues": not an option of stafd, only of the other daemon; line ignored`}},
		{name: "section of the other", daemon: Stacd, text: "[Service Discovery]\nzeroconf=enabled", issues: []string{`f:1: "[Service Discovery]": not a section of stacd, only of the other daemon; the whole section is ignored`}},

		// Lines that are damaged.
		{name: "no equals sign", text: "[Global]\nkato=5\nkato", want: func(c *Config) { c.Params.KATO = new(5) }, issues: []string{`f:3: "kato": no "=": an option has the form name = value; line ignored`}},
		{name: "NUL", text: "[Global]\nkato=\x005", issues: []string{`f:2: "kato=\x005": not UTF-8 text; line ignored`}},
		{name: "not UTF-8", text: "[Global]\nkato=\xff5", issues: []string{`f:2: "kato=` + "\uFFFD" + `5": not UTF-8 text; line ignored`}},
		{name: "text behind a header", text: "[Global] x\ntron=true", want: func(c *Config) { c.Tron = true }, issues: []string{`f:1: "[Global] x": there is text behind the section name; text ignored`}},
		{name: "BOM", text: "\uFEFF[Global]\ntron=true", want: func(c *Config) { c.Tron = true }, issues: []string{`f:1: "\ufeff": the file begins with a byte order mark; skipped`}},
		{name: "in the order of lines", text: "[Global]\nkato=x\nfoo=1\ntron=x", issues: []string{
			`f:2: "kato = x": not a whole number; allowed: seconds, 0 or more; using 30`,
			`f:3: "foo": no such option in [Global]; line ignored`,
			`f:4: "tron = x": neither true nor false; allowed: true, false; using false`,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			daemon := Stafd
			if tt.daemon != "" {
				daemon = tt.daemon
			}
			want := defaults(daemon)
			if tt.want != nil {
				tt.want(want)
			}
			got, issues := parse(t, daemon, tt.text)
			got.Doubtful = false // see TestDoubtful
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(Rule{}, field{}), secrets); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.issues, texts(issues)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func texts(issues []Issue) []string {
	var s []string
	for _, i := range issues {
		s = append(s, i.String())
	}
	return s
}

func TestSyntaxErrors(t *testing.T) {
	for _, tt := range []struct {
		text, want string
	}{
		{"\nkato=5", `f:2: "kato=5": this stands before the first [Section]`},
		{"[Global]\n[broken\n", `f:2: "[broken": the section name has no closing "]"`},
		{"[]", `f:1: "[]": the section has no name`},
		{"[Global]\n = 5", `f:2: "= 5": there is no name before the "="`},
		{"[Glo\x00bal]", `f:1: "[Glo\x00bal]": a section name has to be UTF-8 text`},
		{"dhchap-secret=" + secret, `f:1: "dhchap-secret=<secret>": this stands before`},
	} {
		_, _, err := Parse(Stafd, "f", strings.NewReader(tt.text))
		if _, ok := errors.AsType[*SyntaxError](err); !ok || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %s", tt.text, err, tt.want)
		}
	}
	if _, _, err := Parse(Stafd, "f", strings.NewReader(strings.Repeat("#\n", maxFile))); err == nil {
		t.Error("a file of 2 MiB was read")
	}
}

func TestControllers(t *testing.T) {
	const nqn = "nqn.2026-01.org.example:storage"
	c := func(line int, transport, traddr, trsvcid string) Controller {
		return Controller{
			ID:     tid.TID{Transport: transport, TrAddr: traddr, TrSvcID: trsvcid, SubsysNQN: nqn},
			Params: Params{CtrlLossTMO: new(600)}, Place: Place{"f", line},
		}
	}
	with := func(c Controller, edit func(*Controller)) []Controller {
		edit(&c)
		return []Controller{c}
	}
	tcp := c(2, "tcp", "10.0.0.1", "8009")
	const line = "controller=transport=tcp;traddr=10.0.0.1;nqn=" + nqn

	tests := []struct {
		name   string
		daemon Daemon // Stacd if empty
		text   string // below [Controllers]
		want   []Controller
		issues []string
	}{
		{name: "plain", text: line, want: []Controller{tcp}},
		{name: "host name", text: strings.Replace(line, "10.0.0.1", "DC1.example.org", 1), want: []Controller{c(2, "tcp", "dc1.example.org", "8009")}},
		{
			name: "no host name", text: strings.Replace(line, "10.0.0.1", "dc1..org", 1),
			issues: []string{`f:2: "transport=tcp;traddr=dc1..org;nqn=` + nqn + `": traddr "dc1..org" is not an IP address; controller ignored`},
		},
		{name: "blanks and empty fields", text: "controller =  transport = tcp ;; traddr= 10.0.0.1 ; nqn =" + nqn + ";", want: []Controller{tcp}},
		{name: "last field counts", text: "controller=traddr=10.0.0.2;transport=tcp;traddr=10.0.0.1;nqn=nqn.x;nqn=" + nqn, want: []Controller{tcp}},
		{name: "nqn before subsysnqn", text: "controller=nqn=" + nqn + ";transport=tcp;traddr=10.0.0.1;subsysnqn=nqn.x", want: []Controller{tcp}},
		{name: "name with =", text: line + "=a", want: with(tcp, func(c *Controller) { c.ID.SubsysNQN += "=a" })},
		{
			name: "empty lines between, and items (defect 2)",
			text: line + "\n\ncontroller=\n\n" + "controller=transport=rdma;traddr=::1;nqn=" + nqn,
			want: []Controller{tcp, c(6, "rdma", "::1", "4420")},
		},
		{
			name: "continued",
			text: "controller =\n  transport=tcp;traddr=10.0.0.1;nqn=" + nqn + "\n # comment\n\n  transport=tcp;traddr=10.0.0.2;nqn=" + nqn,
			want: []Controller{c(3, "tcp", "10.0.0.1", "8009"), c(6, "tcp", "10.0.0.2", "8009")},
		},
		{
			name: "fc and loop (defect 10)",
			text: "controller=transport=fc;traddr=nn-0xA:pn-0xB;host-traddr=nn-0xC:pn-0xD;nqn=" + nqn + "\ncontroller=transport=loop;traddr=1;nqn=" + nqn,
			want: []Controller{
				with(c(2, "fc", "nn-0xa:pn-0xb", ""), func(c *Controller) { c.ID.HostTrAddr = "nn-0xc:pn-0xd" })[0],
				c(3, "loop", "1", ""),
			},
		},
		{
			name: "fc without source", text: "controller=transport=fc;traddr=nn-0xA:pn-0xB;nqn=" + nqn,
			want:   []Controller{c(2, "fc", "nn-0xa:pn-0xb", "")},
			issues: []string{`f:2: "transport=fc;traddr=nn-0xA:pn-0xB;nqn=` + nqn + `": the kernel makes no fc connection without host-traddr`},
		},
		{
			name: "host side", text: line + ";host-traddr=::ffff:10.0.0.9;host-iface=eth0;host-nqn=" + host,
			want: with(tcp, func(c *Controller) {
				c.ID.HostTrAddr, c.ID.HostIface, c.ID.HostNQN = "10.0.0.9", "eth0", host
			}),
		},
		{
			name: "overrides", text: line + ";hdr-digest=TRUE;nr-io-queues=4;kato=0;ctrl-loss-tmo=-1",
			want: with(tcp, func(c *Controller) {
				c.Params = Params{HdrDigest: true, NrIOQueues: new(4), KATO: new(0), CtrlLossTMO: new(-1), Own: OwnTimes{CtrlLossTMO: true}}
				c.Shown = map[string]string{"hdr-digest": "True", "nr-io-queues": "4", "kato": "0", "ctrl-loss-tmo": "-1"}
			}),
		},
		{
			name: "[Global] is the base, wherever it stands", text: line + ";kato=7\n[Global]\nkato=5\nqueue-size=64",
			want: with(tcp, func(c *Controller) {
				c.Params.KATO, c.Params.QueueSize, c.Shown = new(7), new(64), map[string]string{"kato": "7"}
			}),
		},
		{
			name: "wrong override (defect 19)", text: line + ";ctrl-loss-tmo=abc;kato=",
			want: []Controller{tcp},
			issues: []string{
				`f:2: "ctrl-loss-tmo=abc": not a whole number; allowed: seconds, 0 or more, or -1 for ever; using the value of [Global]`,
				`f:2: "kato=": there is no value; allowed: seconds, 0 or more; using the value of [Global]`,
			},
		},
		{name: "not an override", text: line + ";tron=true", want: []Controller{tcp}, issues: []string{`f:2: "tron=true": this can be set for all controllers only, in [Global]; field ignored`}},
		{name: "unknown field", text: line + ";host-ifcae=eth0", want: []Controller{tcp}, issues: []string{`f:2: "host-ifcae": no such field, did you mean "host-iface"?; field ignored`}},
		{name: "no field", text: line + ";eth0", want: []Controller{tcp}, issues: []string{`f:2: "eth0": no "=": a field has the form name=value; field ignored`}},
		{
			name: "secrets, padded (defect 9)", text: line + ";dhchap-secret=" + secret + ";dhchap-ctrl-secret=" + secret + "x",
			want: with(tcp, func(c *Controller) {
				c.Params.DHChapSecret, c.Params.DHChapCtrlSecret = fabrics.NewSecret(secret), fabrics.NewSecret(secret+"x")
			}),
		},
		{
			name: "wrong secret", text: line + ";dhchap-secret=geheim",
			want:   with(tcp, func(c *Controller) { c.Params.DHChapSecret = fabrics.NewSecret(unusable) }),
			issues: []string{`f:2: "dhchap-secret=<secret>": not a DH-HMAC-CHAP key; allowed: DHHC-1:…:…:, or file:// and a path; no connection is made with it`},
		},
		{name: "no NQN", text: "controller=transport=tcp;traddr=10.0.0.1", issues: []string{`f:2: "transport=tcp;traddr=10.0.0.1": no NQN, the name of the subsystem or discovery controller; controller ignored`}},
		{name: "no transport", text: "controller=traddr=10.0.0.1", issues: []string{`f:2: "traddr=10.0.0.1": no transport: it has to be one of tcp, rdma, fc, loop; controller ignored`}},
		{name: "no traddr", text: "controller=transport=tcp", issues: []string{`f:2: "transport=tcp": no traddr, the address of the controller; controller ignored`}},
		{
			name: "commas", text: "controller=transport=tcp,traddr=10.0.0.1,dhchap-secret=" + secret,
			issues: []string{`f:2: "transport=tcp,traddr=10.0.0.1,dhchap-secret=<secret>": transport "tcp,traddr=10.0.0.1,dhchap-secret=<secret>" is not one of tcp, rdma, fc, loop (fields are separated by ";", not by ","); controller ignored`},
		},
		{
			name: "trailing comment", text: line + " # mine",
			issues: []string{`f:2: "transport=tcp;traddr=10.0.0.1;nqn=` + nqn + ` # mine": subsysnqn "` + nqn + ` # mine" contains a comma, a blank or a control character (comments have lines of their own); controller ignored`},
		},
		{
			name: "twice", text: line + "\ncontroller=transport=TCP;traddr=::ffff:10.0.0.1;trsvcid=08009;nqn=" + nqn, want: []Controller{tcp},
			issues: []string{`f:3: "transport=TCP;traddr=::ffff:10.0.0.1;trsvcid=08009;nqn=` + nqn + `": the same controller as in f:2; that one counts`},
		},
		{
			name: "discovery", daemon: Stafd, text: "controller=transport=tcp;traddr=10.0.0.1;nr-io-queues=1",
			want:   with(tcp, func(c *Controller) { c.ID.SubsysNQN, c.Params.KATO = nvme.WellKnownDiscoveryNQN, new(30) }),
			issues: []string{`f:2: "nr-io-queues=1": discovery controllers do not have this parameter; field ignored`},
		},
		{
			name: "discovery by its name, with a secret", daemon: Stafd, text: line + ";dhchap-secret=" + secret,
			want: with(tcp, func(c *Controller) {
				c.Params.KATO, c.Params.DHChapSecret = new(30), fabrics.NewSecret(secret)
			}),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			daemon := Stacd
			if tt.daemon != "" {
				daemon = tt.daemon
			}
			cfg, issues := parse(t, daemon, "[Controllers]\n"+tt.text)
			if diff := cmp.Diff(tt.want, cfg.Controllers, secrets); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.issues, texts(issues)); diff != "" {
				t.Error(diff)
			}
			if all := fmt.Sprintf("%+v %#v %v", cfg, cfg, issues); strings.Contains(all, "c2VjcmV0") {
				t.Errorf("a secret is shown: %s", all)
			}
		})
	}
}

// TestDoubtful says which mistakes may have cost a controller.
func TestDoubtful(t *testing.T) {
	const ok = "[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1\n"
	for text, want := range map[string]bool{
		"":                               false,
		ok:                               false,
		ok + "controler=transport=tcp":   true,
		ok + "controller=transport=tcp":  true,
		ok + "controller":                true,
		ok + "controller=\x00":           true,
		ok + "  [Global]":                true,
		ok + "exclude=junk":              false, // excludes less, not more
		ok + "exclude=traddr=::1\n  x=y": true,  // what was that?
		ok + "[Global]\nkato=x":          false,
		ok + "[Global]\nkato=5\n  junk":  true,
		ok + "[Global]\nfoo=1":           false,
		ok + "[Global]\nfoo=1\n  2":      true,
		ok + "[Global]\ncontroller=1":    true,
		ok + "[Global]\nnr-io-queues=1":  false,
		"[Contollers]\n" + ok:            true,
		"[I/O controller connection management]\ndisconnect-scope=no-disconnect\n" + ok: false,
	} {
		if cfg, _ := parse(t, Stafd, text); cfg.Doubtful != want {
			t.Errorf("%q: doubtful %v, want %v", text, cfg.Doubtful, want)
		}
	}
}

func TestControllerTID(t *testing.T) {
	cfg, _ := parse(t, Stafd, "[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1;host-iface=eth0\ncontroller=transport=tcp;traddr=10.0.0.1;host-nqn=nqn.x")
	got, err := cfg.Controllers[0].TID(host, true)
	want := tid.TID{Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: "8009", SubsysNQN: nvme.WellKnownDiscoveryNQN, HostNQN: host}
	if err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	want.HostIface = "eth0"
	if got, err := cfg.Controllers[0].TID(host, false); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := cfg.Controllers[1].TID(host, false); err != nil || got.HostNQN != "nqn.x" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := cfg.Controllers[0].TID("", false); err == nil || !strings.Contains(err.Error(), "f:2: no host NQN") {
		t.Errorf("got %v", err)
	}
}

func TestExcludes(t *testing.T) {
	id := tid.TID{Transport: "tcp", TrAddr: "2001:db8::1", TrSvcID: "4420", SubsysNQN: "nqn.a", HostTrAddr: "2001:db8::9", HostIface: "eth0", HostNQN: host}
	tests := []struct {
		rule  string
		want  bool
		issue string // part of it
	}{
		{rule: "transport=tcp", want: true},
		{rule: "transport=TCP", want: true},
		{rule: "transport=rdma"},
		{rule: "transport=tpc", issue: `no such transport, did you mean "tcp"?; the rule excludes nothing`},
		{rule: "traddr=2001:DB8:0::1", want: true},
		{rule: "traddr=2001:db8::2"},
		{rule: "trsvcid=04420", want: true},
		{rule: "trsvcid=8009"},
		{rule: "nqn=nqn.a", want: true},
		{rule: "subsysnqn=nqn.a", want: true},
		{rule: "nqn=nqn.A"},
		{rule: "host-iface=eth0", want: true},
		{rule: "host-iface=eth1"},
		{rule: "host-nqn=" + host, want: true},
		{rule: "transport=tcp;nqn=nqn.a;", want: true},
		{rule: "transport=tcp;nqn=nqn.b"},
		{rule: "transport=tcp;host-traddr=::5", want: true, issue: "not excluded by host-traddr; field ignored"},

		// Rules that must not exclude everything.
		{rule: ""},
		{rule: ";", issue: "no field to match controllers by; the rule excludes nothing"},
		{rule: "host-traddr=2001:db8::9", issue: "no field to match controllers by; the rule excludes nothing"},
		{rule: "tcp", issue: `no "=": a field has the form name=value; the rule excludes nothing`},
		{rule: "transport=tcp;nqn", issue: "the rule excludes nothing"},
		{rule: "transport=tcp;kato=30", issue: "no field to match controllers by; the rule excludes nothing"},
		{rule: "transport=tcp;taddr=::5", issue: `did you mean "traddr"?; the rule excludes nothing`},
		{rule: "transport=tcp;traddr=", issue: "there is no value; the rule excludes nothing"},
		{rule: "host-iface=eth0 # x", issue: "(comments have lines of their own); the rule excludes nothing"},
		{rule: "transport=tcp,traddr=::5", issue: `separated by ";"`},
	}
	for _, tt := range tests {
		t.Run(tt.rule, func(t *testing.T) {
			cfg, issues := parse(t, Stacd, "[Controllers]\nexclude="+tt.rule)
			if _, got := cfg.Excludes.Match(id); got != tt.want {
				t.Errorf("excluded: %v, want %v", got, tt.want)
			}
			switch {
			case tt.issue == "" && issues != nil:
				t.Errorf("complaints: %v", issues)
			case tt.issue != "" && !strings.Contains(strings.Join(texts(issues), "\n"), tt.issue):
				t.Errorf("complaints %v, want %s", issues, tt.issue)
			}
		})
	}

	// Defect 2: an empty line between two rules.
	cfg, issues := parse(t, Stacd, "[Controllers]\nexclude=traddr=::1\n\nexclude=traddr=::2\n")
	if _, got := cfg.Excludes.Match(id); got || issues != nil || len(cfg.Excludes) != 2 {
		t.Errorf("excluded: %v, %v, %v", got, issues, cfg.Excludes)
	}
	if (Rule{}).Match(id) {
		t.Error("a rule without fields excludes")
	}
	fc := tid.New(tid.TID{Transport: "fc", TrAddr: "nn-0xA:pn-0xB"})
	cfg, _ = parse(t, Stacd, "[Controllers]\nexclude=traddr=nn-0xA:PN-0xb\n")
	if e, ok := cfg.Excludes.Match(fc); !ok || e.Line != 2 || e.String() != "traddr=nn-0xa:pn-0xb" {
		t.Errorf("fc: %v %v", e, ok)
	}
	_, issues = parse(t, Stacd, "[Global]\nignore-iface=true\n[Controllers]\nexclude=host-iface=eth0\n")
	if len(issues) != 1 || !strings.Contains(issues[0].Problem, "no controller has an interface") {
		t.Errorf("ignore-iface: %v", issues)
	}
}

// TestGlobs compares names with patterns.
func TestGlobs(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"nqn.a", "nqn.a", true},
		{"nqn.a", "nqn.ab", false},
		{"nqn.*", "nqn.ab", true},
		{"nqn.*", "nqn.", true},
		{"*", "", true},
		{"?", "", false},
		{"nqn.?", "nqn.é", true},
		{"nqn.*:db*", "nqn.2026-01.org.example:web:db7", true},
		{"nqn.*:db", "nqn.2026-01.org.example:db:db", true},
		{"nqn.*:db", "nqn.2026-01.org.example:db:", false},
		{"*a*a*a*b", strings.Repeat("a", 200), false},
		{"nqn.[ab]", "nqn.a", false},
		{"nqn.[ab]", "nqn.[ab]", true},
	} {
		if got := glob(tt.pattern, tt.name); got != tt.want {
			t.Errorf("%q, %q: %v", tt.pattern, tt.name, got)
		}
	}
}

// TestIncludes says what of three controllers may be connected.
func TestIncludes(t *testing.T) {
	ids := []tid.TID{
		{Transport: "tcp", TrAddr: "192.0.2.1", TrSvcID: "4420", SubsysNQN: "nqn.a:db", HostNQN: host},
		{Transport: "tcp", TrAddr: "192.0.2.130", TrSvcID: "4420", SubsysNQN: "nqn.a:web", HostNQN: host},
		{Transport: "tcp", TrAddr: "fe80::1%eth0", TrSvcID: "4420", SubsysNQN: "nqn.b", HostNQN: host},
	}
	for _, tt := range []struct {
		name, text string // below [Controllers]
		want       string // of each: "y", "n", or "?" for: what is connected stays
		issue      string // part of it
	}{
		{name: "no rule", want: "yyy"},
		{name: "empty", text: "include=", want: "yyy"},
		{name: "by name", text: "include=nqn=nqn.a:*", want: "yyn"},
		{name: "by network", text: "include=traddr=192.0.2.0/25", want: "ynn"},
		{name: "by network of the other family", text: "include=traddr=fe80::/10", want: "nny"},
		{name: "all the values", text: "include=traddr=192.0.2.0/24;nqn=nqn.?:web", want: "nyn"},
		{name: "one of the rules", text: "include=nqn=nqn.b\ninclude=traddr=192.0.2.1", want: "yny"},
		{name: "exclude comes first", text: "include=nqn=nqn.a*\nexclude=traddr=192.0.2.128/25", want: "ynn"},
		{name: "exclude by network", text: "exclude=traddr=192.0.2.77/24", want: "nny"},
		{name: "exclude by name", text: "exclude=nqn=*:web", want: "yny"},
		{name: "no network", text: "exclude=traddr=192.0.2.0/33", want: "yyy", issue: "not a network such as 192.0.2.0/24 or 2001:db8::/32; the rule excludes nothing"},
		{name: "a rule that is broken", text: "include=nqn=nqn.b\ninclude=nqm=nqn.a:db", want: "??y", issue: `did you mean "nqn"?; the rule includes nothing`},
		{name: "the only rule is broken", text: "include=nqn", want: "???", issue: "the rule includes nothing"},
		{name: "no field is left", text: "include=host-traddr=192.0.2.9", want: "???", issue: "no field to match controllers by"},
		{name: "another line is broken", text: "include=nqn=nqn.b\nfoo=1\nexclude=nqn=nqn.a:db", want: "n?y", issue: "no such option"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, issues := parse(t, Stacd, "[Controllers]\n"+tt.text)
			got := ""
			for _, id := range ids {
				switch no := cfg.Refuses(id, false); {
				case no == nil:
					got += "y"
				case no.Sure:
					got += "n"
				default:
					got += "?"
				}
			}
			if got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if all := strings.Join(texts(issues), "\n"); (all == "") != (tt.issue == "") || !strings.Contains(all, tt.issue) {
				t.Errorf("complaints %v, want %s", issues, tt.issue)
			}
		})
	}

	cfg, _ := parse(t, Stacd, "[Controllers]\ninclude=nqn=nqn.c\n")
	if no := cfg.Refuses(ids[0], true); no != nil {
		t.Errorf("a controller= line needs an include= line: %v", no)
	}
	cfg, _ = parse(t, Stacd, "[Global]\nip-family=ipv4\n[Controllers]\nexclude=nqn=nqn.a:db\n")
	for i, want := range []string{"f:4 excludes subsysnqn=nqn.a:db", "", "ip-family forbids its address"} {
		why := ""
		if no := cfg.Refuses(ids[i], true); no != nil {
			why = no.Why
		}
		if why != want {
			t.Errorf("refused for %q, want %q", why, want)
		}
	}
}

// TestSubsystems says what parameters a controller gets.
func TestSubsystems(t *testing.T) {
	id := tid.TID{Transport: "tcp", TrAddr: "192.0.2.1", TrSvcID: "4420", SubsysNQN: "nqn.a:db", HostNQN: host}
	for _, tt := range []struct {
		name, text string // below [Controllers]
		want       func(*Params)
		issue      string // part of it
	}{
		{name: "none", want: func(*Params) {}},
		{name: "one", text: "subsystem=nqn=nqn.a:*;ctrl-loss-tmo=-1;kato=0;fast-io-fail-tmo=5;tos=8", want: func(p *Params) {
			p.CtrlLossTMO, p.KATO, p.FastIOFailTMO, p.TOS = new(-1), new(0), new(5), new(8)
			p.Own = OwnTimes{CtrlLossTMO: true, FastIOFailTMO: true}
		}},
		{name: "another", text: "subsystem=nqn=nqn.b;kato=7", want: func(*Params) {}},
		{name: "the first counts", text: "subsystem=transport=tcp;kato=7\nsubsystem=nqn=nqn.a:db;kato=8;tos=1", want: func(p *Params) { p.KATO = new(7) }},
		{name: "the second fits", text: "subsystem=traddr=192.0.2.0/30;trsvcid=4421;kato=7\nsubsystem=traddr=192.0.2.0/30;kato=8", want: func(p *Params) { p.KATO = new(8) }},
		{name: "based on [Global]", text: "subsystem=nqn=*;kato=7\n[Global]\nqueue-size=64\nkato=9", want: func(p *Params) { p.KATO, p.QueueSize = new(7), new(64) }},
		{name: "wrong value", text: "subsystem=nqn=*;kato=x", want: func(*Params) {}, issue: "not a whole number; allowed: seconds, 0 or more; using the value of [Global]"},
		{name: "wrong field", text: "subsystem=nqn=*;kata=5;tos=1", want: func(p *Params) { p.TOS = new(1) }, issue: `"kata": no such field, did you mean "kato"?; field ignored`},
		{name: "wrong key", text: "subsystem=nqn=*;dhchap-ctrl-secret=geheim", want: func(p *Params) { p.DHChapCtrlSecret = fabrics.NewSecret(unusable) }, issue: "no connection is made with it"},
		{name: "tls, doubted", text: "subsystem=nqn=*;tls=yes", want: func(p *Params) { p.TLS = true }, issue: "using true"},
		{name: "no pattern", text: "subsystem=kato=5", want: func(*Params) {}, issue: "no field to match controllers by; the line applies to nothing"},
		{name: "wrong pattern", text: "subsystem=transport=tpc;kato=5", want: func(*Params) {}, issue: "the line applies to nothing"},
		{name: "host-nqn", text: "subsystem=host-nqn=" + host + ";kato=5", want: func(*Params) {}, issue: "parameters do not depend on the host NQN; the line applies to nothing"},
		{name: "both", text: "subsystem=nqn=*;tls=true;concat=true", want: func(p *Params) { p.TLS, p.Concat = true, true }, issue: "exclude each other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg, issues := parse(t, Stacd, "[Controllers]\n"+tt.text)
			want := cfg.Params
			tt.want(&want)
			if diff := cmp.Diff(want, cfg.ParamsFor(id), secrets); diff != "" {
				t.Error(diff)
			}
			if all := strings.Join(texts(issues), "\n"); (all == "") != (tt.issue == "") || !strings.Contains(all, tt.issue) {
				t.Errorf("complaints %v, want %s", issues, tt.issue)
			}
			if cfg.Doubtful {
				t.Error("parameters make nobody doubt who is wanted")
			}
		})
	}

	// A controller= line starts from what fits it, wherever that stands.
	cfg, issues := parse(t, Stacd, "[Controllers]\ncontroller=transport=tcp;traddr=192.0.2.1;nqn=nqn.a;kato=1;tos=x\nsubsystem=traddr=192.0.2.1;kato=7;tos=8\n")
	want := Params{CtrlLossTMO: new(600), KATO: new(1), TOS: new(8)}
	if diff := cmp.Diff(want, cfg.Controllers[0].Params, secrets); diff != "" || len(issues) != 1 || !strings.HasSuffix(issues[0].String(), "using the value of f:3") {
		t.Errorf("%s %v", diff, issues)
	}
}

func TestIPFamily(t *testing.T) {
	for addr, is4 := range map[string]bool{"10.0.0.1": true, "::ffff:10.0.0.1": true, "::1": false, "fe80::1%eth0": false} {
		a := netip.MustParseAddr(addr)
		if (IPFamily{IPv4: true}).Allows(a) != is4 || (IPFamily{IPv6: true}).Allows(a) == is4 || !(IPFamily{true, true}).Allows(a) {
			t.Errorf("%s is taken for the wrong family", addr)
		}
	}
}

func TestSpan(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90": 90 * time.Second, "0.5": 500 * time.Millisecond, "-1": -time.Second, "1e3": 1000 * time.Second,
		"72hours": 72 * time.Hour, "3 days 5 hours": 77 * time.Hour, "1m24s": 84 * time.Second,
		"1 minute, 24 secs": 84 * time.Second, "2H": 2 * time.Hour, "1.2 minutes": 72 * time.Second,
		"5days": 120 * time.Hour, "- 1 minute": -time.Minute, "+ 5": 5 * time.Second, "0": 0,
		"1:24": 84 * time.Second, "1:24.5": 84500 * time.Millisecond, "2:04:13": 2*time.Hour + 4*time.Minute + 13*time.Second,
		"1 day, 2:04:13": 26*time.Hour + 4*time.Minute + 13*time.Second, "1:02:03:04": 26*time.Hour + 3*time.Minute + 4*time.Second,
		":22": 22 * time.Second, "-1:24": -84 * time.Second, "100:00:00": 100 * time.Hour,
		"- 1.5 minutes 3 secs": -93 * time.Second, "1 dy/2 hr": 26 * time.Hour, "1DYS2HRS3MINS4SECS": 26*time.Hour + 3*time.Minute + 4*time.Second,
		"1e300": math.MaxInt64, "-1e300": math.MinInt64,
	} {
		if got, err := parseSpan(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-", "x", "2 weeks", "5ms", "5 s 3 m", "1 hour x", "inf", "nan", "0x10", "1_0", "--1", "|1", "1:2", "123:00", "1:2:3", "1 hour 2:03", "1 week", "1 month", "5:"} {
		if got, err := parseSpan(text); err == nil {
			t.Errorf("%q was read as %v", text, got)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	cfg, issues, err := Load(Stafd, filepath.Join(dir, "none"))
	want := defaults(Stafd)
	want.Doubtful = true
	if err != nil || issues != nil || cmp.Diff(cfg, want, secrets) != "" {
		t.Errorf("no file: %v %v %v", cfg, issues, err)
	}
	if _, _, err := Load(Stafd, dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a directory: %v", err)
	}
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("[Global]\nfoo=1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, issues, err = Load(Stafd, path); err != nil || len(issues) != 1 || issues[0].File != path {
		t.Errorf("a file: %v %v", issues, err)
	}
}

// TestDropIns reads several files as one configuration.
func TestDropIns(t *testing.T) {
	const dc = "[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.%d\n"
	for _, tt := range []struct {
		name     string
		files    map[string]string // "main", and names in the directory
		want     string            // KATO and the last numbers of the addresses
		doubtful bool
		issues   []string // with "@/" for the directory of main
		err      string   // part of it
	}{
		{name: "none", files: map[string]string{"main": "[Global]\nkato=5"}, want: "5"},
		{name: "later wins", files: map[string]string{"main": "[Global]\nkato=5", "20.conf": "[Global]\nkato=7", "10.conf": "[Global]\nkato=6"}, want: "7"},
		{
			name:  "lists grow",
			files: map[string]string{"main": fmt.Sprintf(dc, 1), "b.conf": fmt.Sprintf(dc, 3), "a.conf": fmt.Sprintf(dc, 2)},
			want:  "30 1 2 3",
		},
		{
			name:  "an exclude= of one file is for all",
			files: map[string]string{"main": fmt.Sprintf(dc, 1) + "exclude=traddr=10.0.0.2", "a.conf": fmt.Sprintf(dc, 2)},
			want:  "30 1 2!",
		},
		{
			name:  "parameters of all files, for the controllers of all",
			files: map[string]string{"main": fmt.Sprintf(dc, 1), "a.conf": "[Controllers]\nsubsystem=transport=tcp;kato=9\n"},
			want:  "30 1/9",
		},
		{name: "other names", files: map[string]string{"main": "", "a.conf~": "[Global]\nkato=7", ".b.conf": "junk", "README": "junk"}, want: "30"},
		{
			name:  "no section of another file",
			files: map[string]string{"main": "[Global]\n", "a.conf": "kato=7"},
			err:   `@/main.d/a.conf:1: "kato=7": this stands before the first [Section]`,
		},
		{
			name:   "complaints in order",
			files:  map[string]string{"main": "[Global]\n\nkato=x\n", "a.conf": "[Global]\nfoo=1\n[Controllers]\n" + "controller=transport=tcp;traddr=10.0.0.1\n", "b.conf": fmt.Sprintf(dc, 1)},
			want:   "30 1",
			issues: []string{"@/main:3: ", "@/main.d/a.conf:2: ", "@/main.d/b.conf:2: "},
		},
		{name: "main missing", files: map[string]string{"a.conf": fmt.Sprintf(dc, 1)}, want: "30 1", doubtful: true},
		{
			name:  "one that cannot be read",
			files: map[string]string{"main": fmt.Sprintf(dc, 1), "a.conf/x": "", "b.conf": fmt.Sprintf(dc, 2)},
			want:  "30 1 2", doubtful: true,
			issues: []string{"@/main.d/a.conf: reading @/main.d/a.conf: read @/main.d/a.conf: is a directory; the configuration goes without it, and takes nothing away"},
		},
		{
			name:  "one that leads nowhere",
			files: map[string]string{"main": "", "a.conf": "->nowhere"},
			want:  "30", doubtful: true,
			issues: []string{"@/main.d/a.conf: open @/main.d/a.conf: no such file or directory; "},
		},
		{
			name:  "a file in place of the directory",
			files: map[string]string{"main": "", "": "junk"},
			want:  "30", doubtful: true,
			issues: []string{"@/main.d: open @/main.d: not a directory; "},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			main := filepath.Join(dir, "main")
			for name, text := range tt.files {
				path := filepath.Join(main+".d", name)
				if name == "main" {
					path = main
				}
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if to, ok := strings.CutPrefix(text, "->"); ok {
					if err := os.Symlink(to, path); err != nil {
						t.Fatal(err)
					}
				} else if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			cfg, issues, err := Load(Stafd, main)
			if tt.err != "" {
				if err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), dir, "@"), tt.err) || cfg != nil {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprint(*cfg.Params.KATO)
			for _, c := range cfg.Controllers {
				got += " " + strings.TrimPrefix(c.ID.TrAddr, "10.0.0.")
				if *c.Params.KATO != 30 {
					got += fmt.Sprintf("/%d", *c.Params.KATO)
				}
				if cfg.Refuses(c.ID, true) != nil {
					got += "!"
				}
			}
			if got != tt.want || cfg.Doubtful != tt.doubtful {
				t.Errorf("got %s, doubtful %v, want %s", got, cfg.Doubtful, tt.want)
			}
			for i, issue := range issues {
				if text := strings.ReplaceAll(issue.String(), dir, "@"); i >= len(tt.issues) || !strings.HasPrefix(text, tt.issues[i]) {
					t.Errorf("complaint %s, want %v", text, tt.issues)
				}
			}
			if len(issues) < len(tt.issues) {
				t.Errorf("%d complaints, want %v", len(issues), tt.issues)
			}
		})
	}
}

// TestKeysInFiles reads keys from files of their own.
func TestKeysInFiles(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good, empty, bad := file("good", "  "+secret+" of the host\nx\n"), file("empty", "\n"), file("bad", "geheim")
	main := file("main", "[Global]\ndhchap-secret=file://"+good+"\n[Controllers]\n"+
		"controller=transport=tcp;traddr=10.0.0.1;nqn=nqn.a;dhchap-ctrl-secret=file://"+good+"\n"+
		"controller=transport=tcp;traddr=10.0.0.2;nqn=nqn.a;dhchap-ctrl-secret=file://"+empty+"\n"+
		"controller=transport=tcp;traddr=10.0.0.3;nqn=nqn.a;dhchap-secret=file://"+dir+"/none\n"+
		"controller=transport=tcp;traddr=10.0.0.4;nqn=nqn.a;dhchap-secret=file://"+bad+"\n")
	cfg, issues, err := Load(Stacd, main)
	if err != nil {
		t.Fatal(err)
	}
	key, no := fabrics.NewSecret(secret), fabrics.NewSecret(unusable)
	for i, want := range [][2]fabrics.Secret{{key, key}, {key, no}, {no, {}}, {no, {}}} {
		if p := cfg.Controllers[i].Params; p.DHChapSecret != want[0] || p.DHChapCtrlSecret != want[1] {
			t.Errorf("controller %d has the wrong keys", i)
		}
	}
	wants := []string{" is empty", "/none: no such file", "not a DH-HMAC-CHAP key"}
	for i, want := range wants {
		if i >= len(issues) || !strings.Contains(issues[i].String(), want) || strings.Contains(issues[i].String(), "geheim") {
			t.Errorf("complaints: %v, want %s", issues, want)
		}
	}
	if all := fmt.Sprintf("%+v %#v %v", cfg, cfg, issues); strings.Contains(all, "c2VjcmV0") || len(issues) != len(wants) || cfg.Doubtful {
		t.Errorf("%s", all)
	}
}

func TestManyComplaints(t *testing.T) {
	for _, text := range []string{"foo=1\n", "foo\n"} {
		_, issues := parse(t, Stafd, "[Global]\n"+strings.Repeat(text, 5000))
		if n := len(issues); n > maxIssues+2 {
			t.Errorf("%d complaints about lines like %q", n, text)
		}
	}
}

// TestShipped takes the files that are shipped: as they are, they change
// nothing, and each of their options can be used by removing the "#".
func TestShipped(t *testing.T) {
	for _, d := range []Daemon{Stafd, Stacd} {
		load := func(text string) (*Config, []Issue, error) {
			p := newParser(d)
			p.readFile = func(string) (string, error) { return secret, nil }
			err := p.scan("f", strings.NewReader(text))
			cfg, issues := p.parse()
			return cfg, issues, err
		}
		text, err := os.ReadFile("../../configs/" + string(d) + ".conf")
		if err != nil {
			t.Fatal(err)
		}
		cfg, issues, err := load(string(text))
		if diff := cmp.Diff(defaults(d), cfg, secrets); diff != "" || issues != nil || err != nil {
			t.Errorf("%s as shipped: %s %v", d, diff, issues)
		}

		lines := strings.Split(string(text), "\n")
		all := make([]string, len(lines))
		var used []string
		for i, line := range lines {
			all[i] = line
			opt, ok := strings.CutPrefix(line, "#")
			if !ok || opt == "" || opt[0] == ' ' {
				continue
			}
			all[i] = opt
			name, _, _ := strings.Cut(opt, "=")
			used = append(used, name)
			one := append([]string{}, lines...)
			one[i] = opt
			_, issues, err := load(strings.Join(one, "\n"))
			checkNotes(t, issues, err)
		}
		cfg, issues, err = load(strings.Join(all, "\n"))
		checkNotes(t, issues, err)
		if len(cfg.Controllers) != strings.Count("\n"+string(text), "\n#controller=") ||
			len(cfg.Subsystems) != strings.Count("\n"+string(text), "\n#subsystem=") ||
			len(cfg.Includes) != strings.Count("\n"+string(text), "\n#include=") ||
			len(cfg.Excludes) != strings.Count("\n"+string(text), "\n#exclude=") {
			t.Errorf("%s: %d controllers, %d rules", d, len(cfg.Controllers), len(cfg.Excludes))
		}
		for i := range options {
			if _, ok := options[i].def(d); ok && !strings.Contains(" "+strings.Join(used, " ")+" ", " "+options[i].name+" ") {
				t.Errorf("%s.conf does not show %s", d, options[i].name)
			}
		}
	}
}

func checkNotes(t *testing.T, issues []Issue, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	for _, i := range issues {
		if i.Severity != Note {
			t.Errorf("%s", i)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[Global]\nkato=5\n  6\n\n[Controllers]\ncontroller=transport=tcp;traddr=::1;dhchap-secret="+secret, true)
	f.Add("[Controllers]\nexclude=;\nexclude=transport=tcp,x=y # z\nblacklist=traddr=", false)
	f.Add("\uFEFF[Discovery controller connection management]\r\nzeroconf-connections-persistence=1 day, 2 hours\r", true)
	f.Add("[Global]\n\x00\n[\xff", false)
	f.Add("[Controllers]\ninclude=nqn=a*;traddr=10.0.0.0/8\nsubsystem=nqn=*;kato=0;tls=x\nsubsystem=traddr=::/0;dhchap-secret=file://x", false)
	f.Fuzz(func(t *testing.T, text string, stafd bool) {
		daemon := Stacd
		if stafd {
			daemon = Stafd
		}
		cfg, issues, err := Parse(daemon, "f", strings.NewReader(text))
		if (cfg == nil) == (err == nil) {
			t.Fatalf("%v and %v", cfg, err)
		}
		for _, i := range issues {
			s := i.String()
			if !strings.HasPrefix(s, fmt.Sprintf("f:%d: ", i.Line)) || i.Line < 1 || strings.Contains(s, "\n") || i.Problem == "" || len(s) > 4096 {
				t.Errorf("complaint %q", s)
			}
		}
		if err != nil {
			return
		}
		for _, c := range cfg.Controllers {
			if _, err := c.TID(host, false); err != nil {
				t.Errorf("%+v: %v", c, err)
			}
		}
		if len(cfg.Includes) > 0 && !cfg.AllowList {
			t.Error("include= rules that do not count")
		}
		rules := slices.Concat(cfg.Excludes, cfg.Includes)
		for _, s := range cfg.Subsystems {
			rules = append(rules, s.Rule)
		}
		for _, r := range rules {
			if r.String() == "" || r.Match(tid.TID{}) && !strings.Contains(r.String(), "*") {
				t.Errorf("rule %q fits a controller without fields", r)
			}
		}
	})
}
