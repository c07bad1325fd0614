package conf

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
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
			IPFamily: families, PLEO: true, Zeroconf: true, PersistentConns: true,
			ZeroconfPersistence: 72 * time.Hour,
		},
		{
			Daemon:   Stacd,
			Params:   Params{CtrlLossTMO: new(600)},
			IPFamily: families, DisconnectScope: OnlyStasConnections, DisconnectTrtypes: []string{"tcp"},
		},
	} {
		got, issues := parse(t, want.Daemon, "")
		if diff := cmp.Diff(want, got); diff != "" || issues != nil {
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
		{name: "no trailing comments", text: "[Global]\ntron = true # x", issues: []string{`f:2: "tron = true # x": neither true nor false; allowed: true, false; using false`}},
		{name: "persistent-connections as it is", text: "[Discovery controller connection management]\npersistent-connections=true"},
		{
			name: "persistent-connections", text: "[Discovery controller connection management]\npersistent-connections=false", want: func(c *Config) { c.PersistentConns = false },
			issues: []string{`f:2: "persistent-connections = false": accepted, has no effect in this version`},
		},
		{
			name: "persistent-connections, old place", text: "[Global]\npersistent-connections=true",
			issues: []string{`f:2: "persistent-connections": the option is persistent-connections in [Discovery controller connection management] now; taken as that`},
		},
		{
			name: "blacklist", text: "[Controllers]\nblacklist=traddr=::1",
			want:   func(c *Config) { c.Excludes = Excludes{{Line: 2, rule: []field{{"traddr", "::1"}}}} },
			issues: []string{`f:2: "blacklist": the option is exclude in [Controllers] now; taken as that`},
		},

		// Not built yet.
		{name: "pleo as it is", text: "[Global]\npleo=Disabled", want: func(c *Config) { c.PLEO = false }},
		{name: "pleo", text: "[Global]\npleo=enabled", issues: []string{`f:2: "pleo = enabled": accepted, has no effect in this version`}},
		{name: "zeroconf as it is", text: "[Service Discovery]\nzeroconf=disabled", want: func(c *Config) { c.Zeroconf = false }},
		{name: "zeroconf", text: "[Service Discovery]\nzeroconf=enabled", issues: []string{`f:2: "zeroconf = enabled": accepted, has no effect in this version`}},
		{
			name: "zeroconf-connections-persistence", text: "[Discovery controller connection management]\nzeroconf-connections-persistence=-1",
			want:   func(c *Config) { c.ZeroconfPersistence = -time.Second },
			issues: []string{`f:2: "zeroconf-connections-persistence = -1": accepted, has no effect in this version`},
		},
		{
			name: "zeroconf-connections-persistence wrong", text: "[Discovery controller connection management]\nzeroconf-connections-persistence=2 weeks",
			issues: []string{`f:2: "zeroconf-connections-persistence = 2 weeks": not a time span; allowed: a time such as "72hours", "3 days 5 hours" or seconds; 0: none, -1: for ever; using 72hours`},
		},
		{
			name: "disconnect-scope", daemon: Stacd, text: "[I/O controller connection management]\ndisconnect-scope=no-disconnect",
			want: func(c *Config) { c.DisconnectScope = NoDisconnect },
		},
		{
			name: "disconnect-scope all", daemon: Stacd, text: "[I/O controller connection management]\ndisconnect-scope=all-connections-matching-disconnect-trtypes",
			want:   func(c *Config) { c.DisconnectScope = AllConnections },
			issues: []string{`f:2: "disconnect-scope = all-connections-matching-disconnect-trtypes": accepted, has no effect in this version`},
		},
		{
			name: "disconnect-trtypes", daemon: Stacd, text: "[I/O controller connection management]\ndisconnect-trtypes=fc+tcp+fc",
			want:   func(c *Config) { c.DisconnectTrtypes = []string{"fc", "tcp"} },
			issues: []string{`f:2: "disconnect-trtypes = fc+tcp+fc": accepted, has no effect in this version`},
		},
		{
			name: "disconnect-trtypes right in parts", daemon: Stacd, text: "[I/O controller connection management]\ndisconnect-trtypes=rdma+pcie+fc",
			want:   func(c *Config) { c.DisconnectTrtypes = []string{"rdma", "fc"} },
			issues: []string{`f:2: "disconnect-trtypes = rdma+pcie+fc": no transport to choose: "pcie"; allowed: tcp, rdma, fc, or several joined by "+"; using rdma+fc`},
		},
		{
			name: "connect-attempts-on-ncc", daemon: Stacd, text: "[I/O controller connection management]\nconnect-attempts-on-ncc=1",
			want:   func(c *Config) { c.ConnectAttemptsOnNCC = 2 },
			issues: []string{`f:2: "connect-attempts-on-ncc = 1": accepted, has no effect in this version`},
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
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(Exclude{}, field{})); diff != "" {
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
			Params: Params{CtrlLossTMO: new(600)}, Line: line,
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
				c.Params = Params{HdrDigest: true, NrIOQueues: new(4), KATO: new(0), CtrlLossTMO: new(-1)}
			}),
		},
		{
			name: "[Global] is the base, wherever it stands", text: line + ";kato=7\n[Global]\nkato=5\nqueue-size=64",
			want: with(tcp, func(c *Controller) { c.Params.KATO, c.Params.QueueSize = new(7), new(64) }),
		},
		{
			name: "wrong override (defect 19)", text: line + ";ctrl-loss-tmo=abc;kato=",
			want: []Controller{tcp},
			issues: []string{
				`f:2: "ctrl-loss-tmo=abc": not a whole number; allowed: seconds, 0 or more, or -1 for ever; using the value of [Global]`,
				`f:2: "kato=": not a whole number; allowed: seconds, 0 or more; using the value of [Global]`,
			},
		},
		{name: "not an override", text: line + ";tron=true", want: []Controller{tcp}, issues: []string{`f:2: "tron=true": this can be set for all controllers only, in [Global]; field ignored`}},
		{name: "unknown field", text: line + ";host-ifcae=eth0", want: []Controller{tcp}, issues: []string{`f:2: "host-ifcae": no such field, did you mean "host-iface"?; field ignored`}},
		{name: "no field", text: line + ";eth0", want: []Controller{tcp}, issues: []string{`f:2: "eth0": no "=": a field has the form name=value; field ignored`}},
		{
			name: "secrets, padded (defect 9)", text: line + ";dhchap-secret=" + secret + ";dhchap-ctrl-secret=" + secret + "x",
			want: with(tcp, func(c *Controller) {
				c.DHChapSecret, c.DHChapCtrlSecret = fabrics.NewSecret(secret), fabrics.NewSecret(secret+"x")
			}),
		},
		{name: "wrong secret", text: line + ";dhchap-secret=geheim", issues: []string{`f:2: "dhchap-secret=<secret>": not a DH-HMAC-CHAP key; allowed: DHHC-1:…:…:; controller ignored`}},
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
			issues: []string{`f:3: "transport=TCP;traddr=::ffff:10.0.0.1;trsvcid=08009;nqn=` + nqn + `": the same controller as in line 2; that one counts`},
		},
		{
			name: "discovery", daemon: Stafd, text: "controller=transport=tcp;traddr=10.0.0.1;nr-io-queues=1",
			want:   with(tcp, func(c *Controller) { c.ID.SubsysNQN, c.Params.KATO = nvme.WellKnownDiscoveryNQN, new(30) }),
			issues: []string{`f:2: "nr-io-queues=1": discovery controllers have no I/O queues; field ignored`},
		},
		{
			name: "discovery by its name, with a secret", daemon: Stafd, text: line + ";dhchap-secret=" + secret,
			want: with(tcp, func(c *Controller) {
				c.Params.KATO, c.DHChapSecret = new(30), fabrics.NewSecret(secret)
			}),
			issues: []string{`f:2: "dhchap-secret=<secret>": accepted, has no effect in this version`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			daemon := Stacd
			if tt.daemon != "" {
				daemon = tt.daemon
			}
			cfg, issues := parse(t, daemon, "[Controllers]\n"+tt.text)
			if diff := cmp.Diff(tt.want, cfg.Controllers, cmp.Comparer(func(a, b fabrics.Secret) bool { return a == b })); diff != "" {
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
	if _, err := cfg.Controllers[0].TID("", false); err == nil || !strings.Contains(err.Error(), "line 2: no host NQN") {
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
		{rule: ";", issue: "no field to exclude by; the rule excludes nothing"},
		{rule: "host-traddr=2001:db8::9", issue: "no field to exclude by; the rule excludes nothing"},
		{rule: "tcp", issue: `no "=": a field has the form name=value; the rule excludes nothing`},
		{rule: "transport=tcp;nqn", issue: "the rule excludes nothing"},
		{rule: "transport=tcp;kato=30", issue: "no field to exclude by; the rule excludes nothing"},
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
	if (Exclude{}).Match(id) {
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
		"1e300": math.MaxInt64, "-1e300": math.MinInt64,
	} {
		if got, err := parseSpan(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-", "x", "2 weeks", "5ms", "5 s 3 m", "1 hour x", "inf", "nan", "0x10", "1_0", "1:24", "--1"} {
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
	if err != nil || issues != nil || cmp.Diff(cfg, want) != "" {
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
		text, err := os.ReadFile("../../configs/" + string(d) + ".conf")
		if err != nil {
			t.Fatal(err)
		}
		cfg, issues := parse(t, d, string(text))
		if diff := cmp.Diff(defaults(d), cfg); diff != "" || issues != nil {
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
			_, issues := parse(t, d, strings.Join(one, "\n"))
			checkNotes(t, issues)
		}
		cfg, issues = parse(t, d, strings.Join(all, "\n"))
		checkNotes(t, issues)
		if len(cfg.Controllers) != strings.Count("\n"+string(text), "\n#controller=") ||
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

func checkNotes(t *testing.T, issues []Issue) {
	t.Helper()
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
		for _, e := range cfg.Excludes {
			if e.Match(tid.TID{}) {
				t.Errorf("rule %q excludes a controller without fields", e)
			}
		}
	})
}
