package staf

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/mdns"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// network is what a fake browser hears.
type network struct {
	r      *rig
	mode   conf.MDNS // of who browses, "" if nobody does
	report func(mdns.Event)
	there  map[mdns.Key]mdns.Service
	asked  int // to browse
}

// newNetwork makes a rig whose stafd is not configured, and browses.
func newNetwork(t *testing.T) (*rig, *network) {
	r := newRig(t)
	r.conf = ""
	n := &network{r: r, there: make(map[mdns.Key]mdns.Service)}
	r.mdns = func(mode conf.MDNS) mdns.Browser { return browser{n, mode} }
	return r, n
}

type browser struct {
	*network
	mode conf.MDNS
}

func (b browser) Browse(ctx context.Context, report func(mdns.Event)) error {
	n := b.network
	n.mode, n.report = b.mode, report
	n.asked++
	report(mdns.Event{Kind: mdns.SourceFound})
	for _, s := range n.there {
		report(mdns.Event{Kind: mdns.Added, Service: s})
	}
	<-ctx.Done()
	n.mode, n.report = "", func(mdns.Event) {}
	return nil
}

// offer is a service at an address of the rig's target.
func offer(iface, port string, txt ...string) mdns.Service {
	s := mdns.Service{
		Iface: iface, Index: int(iface[len(iface)-1]), Family: mdns.IPv4, Type: mdns.Types[0], Instance: "dc" + port, Host: "array.local",
		Addrs: []netip.Addr{netip.MustParseAddr(addr)}, TXT: append([]string{"p=tcp"}, txt...),
	}
	fmt.Sscan(port, &s.Port)
	return s
}

func (n *network) tell(kind mdns.Kind, s mdns.Service) {
	switch kind {
	case mdns.Added, mdns.Updated:
		n.there[s.Key()] = s
	case mdns.Removed:
		delete(n.there, s.Key())
	}
	n.report(mdns.Event{Kind: kind, Service: s})
	settle()
}

// discovered lists the controllers as "PORT[@IFACE] ORIGIN STATE".
func (r *rig) discovered() string {
	r.t.Helper()
	report, err := r.daemon.Report(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	var all []string
	for _, c := range report.Controllers {
		text := c.TrSvcID
		if c.HostIface != "" {
			text += "@" + c.HostIface
		}
		for _, o := range c.Origins {
			text += " " + o.Kind
		}
		all = append(all, text+" "+c.State)
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

func (r *rig) expect(what, want string) {
	r.t.Helper()
	if got := r.discovered(); got != want {
		r.t.Errorf("%s: controllers %q, want %q", what, got, want)
	}
}

func (r *rig) expectLog(what, text string, times int) {
	r.t.Helper()
	if got := strings.Count(r.log.String(), text); got != times {
		r.t.Errorf("%s: %q was logged %d times, want %d", what, text, got, times)
	}
}

const (
	persistence = "[Discovery controller connection management]\nzeroconf-connections-persistence="
	disabled    = "[Service Discovery]\nzeroconf=disabled\n"
)

// What is announced is connected, and stays when it is announced no longer.
func TestAnnouncedIsConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := newNetwork(t)
		r.conf = persistence + "1 hour\n"
		r.start()
		n.tell(mdns.Added, offer("eth0", "1"))
		r.expect("announced", "1@eth0 discovered live")
		n.tell(mdns.Updated, offer("eth0", "1", "more=text"))
		n.tell(mdns.Added, offer("eth0", "2"))
		n.tell(mdns.Added, offer("eth1", "2"))
		r.expect("two more", "1@eth0 discovered live; 2@eth0 discovered live; 2@eth1 discovered live")
		n.tell(mdns.Removed, offer("eth0", "1"))
		time.Sleep(3 * time.Hour)
		settle()
		r.expect("not announced", "1@eth0 discovered live; 2@eth0 discovered live; 2@eth1 discovered live")
		if slices.Contains(r.signals, "dc_removed") {
			t.Error("a controller was removed")
		}
	})
}

// A controller that says where it is before it listens is connected within a
// second of listening.
func TestAnnouncedBeforeItListens(t *testing.T) {
	for _, late := range []time.Duration{300 * time.Millisecond, 1300 * time.Millisecond, 4 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			r, n := newNetwork(t)
			r.kernel.ClosePort(addr, "1")
			r.start()
			n.report(mdns.Event{Kind: mdns.Added, Service: offer("eth0", "1")})
			time.Sleep(late)
			r.kernel.OpenPort(1, addr, "1")
			time.Sleep(time.Second)
			synctest.Wait()
			r.expect(late.String(), "1@eth0 discovered live")
		})
	}
}

// The time of a controller that is neither announced nor reached is up after
// zeroconf-connections-persistence.
func TestAgeing(t *testing.T) {
	const long = 80 * time.Hour
	for _, c := range []struct {
		name, conf string
		after      time.Duration
		want       string // then
	}{
		{name: "at once", conf: persistence + "0\n", after: 10 * time.Second},
		{name: "not yet", conf: persistence + "1 hour\n", after: 59 * time.Minute, want: "1@eth0 discovered waiting"},
		{name: "after a while", conf: persistence + "1 hour\n", after: 61 * time.Minute},
		{name: "as a rule", after: 71 * time.Hour, want: "1@eth0 discovered waiting"},
		{name: "as a rule, after", after: long},
		{name: "never", conf: persistence + "-1\n", after: long, want: "1@eth0 discovered waiting"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, n := newNetwork(t)
				r.conf = c.conf + "[Global]\nctrl-loss-tmo=0\nconnect-retry-max=30 minutes\n"
				r.start()
				n.tell(mdns.Added, offer("eth0", "1"))
				time.Sleep(time.Minute)
				n.tell(mdns.Removed, offer("eth0", "1"))
				r.expect("connected", "1@eth0 discovered live")
				r.kernel.ClosePort(addr, "1")
				time.Sleep(c.after)
				settle()
				if got := strings.Replace(r.discovered(), "connecting", "waiting", 1); got != c.want {
					t.Errorf("controllers %q, want %q", got, c.want)
				}
				if removed := slices.Contains(r.signals, "dc_removed"); removed != (c.want == "") {
					t.Errorf("signals %q", r.signals)
				}
			})
		})
	}
}

// What is announced again, or comes back, does not age on.
func TestAgeingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := newNetwork(t)
		r.conf = persistence + "1 hour\n[Global]\nctrl-loss-tmo=0\n"
		r.start()
		n.tell(mdns.Added, offer("eth0", "1"))
		r.expectUnresponsive("connected", "0.0s [off]", "3600 sec", "---")
		time.Sleep(time.Minute)
		n.tell(mdns.Removed, offer("eth0", "1"))
		r.kernel.ClosePort(addr, "1")
		time.Sleep(30 * time.Minute)
		id := dcID("1")
		id.HostIface = "eth0"
		one, err := r.daemon.Controller(t.Context(), id)
		if err != nil || one == nil || len(one.Origins) != 1 || time.Until(one.Origins[0].Until).Round(time.Minute) != 30*time.Minute {
			t.Fatalf("nothing tells that it ages: %+v, %v", one, err)
		}
		list, err := r.daemon.ListControllers(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		if timer := list[0]["unresponsive timer"]; !strings.HasPrefix(timer, "3600.0s [18") {
			t.Errorf("the timer is %q", timer)
		}
		if _, err := time.ParseInLocation(time.ANSIC, list[0]["unresponsive time"], time.Local); err != nil {
			t.Error(err)
		}
		n.tell(mdns.Added, offer("eth0", "1"))
		r.expectUnresponsive("announced again", "0.0s [off]", "3600 sec", "---")
		n.tell(mdns.Removed, offer("eth0", "1"))
		time.Sleep(45 * time.Minute) // less than a hour since
		r.kernel.OpenPort(1, addr, "1")
		time.Sleep(2 * time.Minute)
		r.expectUnresponsive("connected again", "0.0s [off]", "3600 sec", "---")
		time.Sleep(5 * time.Hour)
		r.expect("connected again", "1@eth0 discovered live")
	})
}

func (r *rig) expectUnresponsive(what, timer, timeout, when string) {
	r.t.Helper()
	list, err := r.daemon.ListControllers(r.t.Context(), true)
	if err != nil || len(list) != 1 {
		r.t.Fatal(list, err)
	}
	want := []string{timer, timeout, when}
	if got := []string{list[0]["unresponsive timer"], list[0]["unresponsive timeout"], list[0]["unresponsive time"]}; !slices.Equal(got, want) {
		r.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// Only what is discovered ages.
func TestUnresponsiveTimeout(t *testing.T) {
	for text, want := range map[string]string{
		"72 hours": "259200 sec", "1.5": "1.5 sec", "0": "0 sec", "-1": "forever", "-5 minutes": "forever",
	} {
		synctest.Test(t, func(t *testing.T) {
			r, n := newNetwork(t)
			r.conf = persistence + text + "\n"
			r.start()
			n.tell(mdns.Added, offer("eth0", "1"))
			r.expectUnresponsive(text, "0.0s [off]", want, "---")
		})
	}
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		list, err := r.daemon.ListControllers(t.Context(), true)
		if _, ok := list[0]["unresponsive timeout"]; ok || err != nil {
			t.Errorf("a configured controller has %v, %v", list, err)
		}
	})
}

// While nobody listens, nothing is known of what is announced, and nothing is
// forgotten.
func TestSourceLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := newNetwork(t)
		r.conf = persistence + "0\n[Global]\nctrl-loss-tmo=0\n"
		r.start()
		n.tell(mdns.Added, offer("eth0", "1"))
		n.tell(mdns.Added, offer("eth0", "2"))
		n.tell(mdns.SourceLost, mdns.Service{})
		r.kernel.ClosePort(addr, "1")
		r.kernel.ClosePort(addr, "2")
		time.Sleep(time.Hour)
		if got := strings.ReplaceAll(r.discovered(), "connecting", "waiting"); got != "1@eth0 discovered waiting; 2@eth0 discovered waiting" {
			t.Errorf("while nobody listens: %s", got)
		}
		if got := r.services(); len(got) != 0 {
			t.Errorf("process_info tells of %v", got)
		}
		n.tell(mdns.SourceFound, mdns.Service{})
		n.tell(mdns.Added, offer("eth0", "1"))
		time.Sleep(25 * time.Second)
		if got := strings.ReplaceAll(r.discovered(), "connecting", "waiting"); got != "1@eth0 discovered waiting; 2@eth0 discovered waiting" {
			t.Errorf("shortly after: %s", got)
		}
		time.Sleep(2 * time.Minute)
		if got := strings.ReplaceAll(r.discovered(), "connecting", "waiting"); got != "1@eth0 discovered waiting" {
			t.Errorf("what was not heard again: %s", got)
		}
	})
}

// A link that is down says nothing of what is behind it either, for a while.
func TestLinkLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := newNetwork(t)
		r.start()
		eth0, eth1 := offer("eth0", "1"), offer("eth1", "2")
		n.tell(mdns.Added, eth0)
		n.tell(mdns.Added, eth1)
		n.tell(mdns.SourceLost, mdns.Service{Index: eth0.Index, Family: mdns.IPv4})
		r.expectBrowse("down", "dc1 eth0 unconfirmed; dc2 eth1")
		n.tell(mdns.Added, eth0)
		r.expectBrowse("up", "dc1 eth0; dc2 eth1")
		n.tell(mdns.SourceLost, mdns.Service{Index: eth0.Index, Family: mdns.IPv4})
		time.Sleep(time.Minute)
		r.expectBrowse("down for good", "dc2 eth1")
		r.expect("down for good", "1@eth0 discovered live; 2@eth1 discovered live")
	})
}

func (r *rig) browse() stasbus.Browse {
	r.t.Helper()
	b, err := r.daemon.Browse(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func (r *rig) expectBrowse(what, want string) {
	r.t.Helper()
	var all []string
	for _, s := range r.browse().Services {
		text := s.Instance + " " + s.Iface
		if !s.Confirmed {
			text += " unconfirmed"
		}
		all = append(all, text)
	}
	if got := strings.Join(all, "; "); got != want {
		r.t.Errorf("%s: announced %q, want %q", what, got, want)
	}
}

// A restarted stafd knows what was discovered, and does not take what has not
// been announced yet for gone.
func TestDiscoveredSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := newNetwork(t)
		r.conf = persistence + "0\n"
		r.start()
		n.tell(mdns.Added, offer("eth0", "1"))
		r.stop()
		n.there = make(map[mdns.Key]mdns.Service)
		r.start()
		time.Sleep(time.Hour)
		r.expect("connected", "1@eth0 discovered live")
		r.stop()
		r.kernel.ClosePort(addr, "1")
		time.Sleep(time.Hour) // the kernel gives up
		r.start()
		time.Sleep(20 * time.Second)
		if got := r.discovered(); !strings.HasPrefix(got, "1@eth0") {
			t.Errorf("shortly after the start: %q", got)
		}
		time.Sleep(2 * time.Minute)
		r.expect("neither announced nor reached", "")
	})
}

// The deadline of one that ages survives a restart as well.
func TestAgeingSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := newNetwork(t)
		r.conf = persistence + "2 hours\n[Global]\nctrl-loss-tmo=0\n"
		r.start()
		n.tell(mdns.Added, offer("eth0", "1"))
		time.Sleep(time.Minute)
		n.tell(mdns.Removed, offer("eth0", "1"))
		r.kernel.ClosePort(addr, "1")
		time.Sleep(90 * time.Minute)
		r.stop()
		r.start()
		time.Sleep(25 * time.Minute)
		if r.discovered() == "" {
			t.Error("it was forgotten too early")
		}
		time.Sleep(10 * time.Minute)
		r.expect("after two hours", "")
	})
}

// The configuration has the last word on what is announced.
func TestAnnouncedAndForbidden(t *testing.T) {
	for _, c := range []struct{ name, conf, why, want string }{
		{"exclude", "[Controllers]\nexclude=host-iface=eth0\n", "excludes host-iface=eth0", "2@eth1 discovered live"},
		{"include", "[Controllers]\ninclude=host-iface=eth1\n", "none of the include= lines", "2@eth1 discovered live"},
		{"ip-family", "[Global]\nip-family=ipv6\n", "ip-family forbids", ""},
		{"ignore-iface", "[Global]\nignore-iface=true\n", "", "1 discovered live; 2 discovered live"},
		{"configured as well", "[Controllers]\ncontroller=transport=tcp;traddr=10.0.0.1;trsvcid=1;host-iface=eth0\n", "", "1@eth0 configured discovered live; 2@eth1 discovered live"},
		{"doubtful", "[Controllers]\nexclude=host-iface=eth0\nincontroller=\n", "excludes", "2@eth1 discovered live"},
		{"disabled", disabled, "", "1@eth0 discovered live; 2@eth1 discovered live"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, n := newNetwork(t)
				r.start()
				n.tell(mdns.Added, offer("eth0", "1"))
				n.tell(mdns.Added, offer("eth1", "2"))
				r.reconfigure(c.conf)
				r.expect("reloaded", c.want)
				if c.name == "disabled" {
					return
				}
				n.tell(mdns.Updated, offer("eth0", "1", "again"))
				if c.why != "" {
					r.expectLog("refused", c.why, max(1, strings.Count(r.log.String(), c.why)))
					if got := r.browse().Services[0].Addresses[0].Refused; !strings.Contains(got, c.why) {
						t.Errorf("browse tells why: %q", got)
					}
				}
				r.reconfigure("")
				r.expect("allowed again", "1@eth0 discovered live; 2@eth1 discovered live")
			})
		})
	}
}

// What is excluded goes, whether it is announced or not.
func TestExcludedUnannounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := newNetwork(t)
		r.start()
		n.tell(mdns.Added, offer("eth0", "1"))
		n.tell(mdns.Added, offer("eth0", "2"))
		n.tell(mdns.Removed, offer("eth0", "1"))
		r.reconfigure("[Controllers]\nexclude=trsvcid=1\n")
		r.expect("excluded", "2@eth0 discovered live")
		r.reconfigure("")
		r.expect("allowed, but not announced", "2@eth0 discovered live")
	})
}

// Browsing is switched off, on, and over to another way by a reload.
func TestModes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := newNetwork(t)
		r.conf = persistence + "0\n"
		r.start()
		n.tell(mdns.Added, offer("eth0", "1"))
		for _, c := range []struct{ conf, mode, browse string }{
			{"", "auto", "dc1 eth0"},
			{"[Service Discovery]\nmdns=avahi\n", "avahi", "dc1 eth0"},
			{"[Service Discovery]\nmdns=embedded\n", "embedded", "dc1 eth0"},
			{disabled, "", ""},
			{"", "auto", "dc1 eth0"},
		} {
			r.reconfigure(c.conf)
			if string(n.mode) != c.mode {
				t.Errorf("%s: browsed by %q, want %q", c.conf, n.mode, c.mode)
			}
			r.expectBrowse(c.conf, c.browse)
			r.expect(c.conf, "1@eth0 discovered live")
		}
	})
}

// Under another host NQN, what was discovered is another controller, announced
// or not; the former connection is left to who uses it.
func TestDiscoveredAndAnotherIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := newNetwork(t)
		r.start()
		n.tell(mdns.Added, offer("eth0", "1"))
		n.tell(mdns.Added, offer("eth0", "2"))
		n.tell(mdns.Removed, offer("eth0", "2"))
		r.identity.NQN, r.identity.ID = "nqn.2014-08.org.example:another", "46ebf5a9-1df9-47b3-a6d0-e9ba32e428a2"
		r.reconfigure("")
		r.expect("another host NQN", "1@eth0 discovered live; 2@eth0 discovered live")
		hosts := make(map[string]int)
		for _, c := range r.kernel.Controllers() {
			hosts[c.HostNQN]++
		}
		if want := map[string]int{identity.NQN: 2, r.identity.NQN: 2}; !maps.Equal(hosts, want) {
			t.Errorf("connections by host NQN: %v, want %v", hosts, want)
		}
	})
}

// Who cannot listen is asked again at a reload, and who can is not.
func TestReloadWhileNobodyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := newNetwork(t)
		r.start()
		r.reconfigure("")
		r.reconfigure("")
		if n.asked != 1 {
			t.Errorf("asked %d times", n.asked)
		}
		n.tell(mdns.SourceLost, mdns.Service{})
		r.reconfigure("")
		if n.asked != 2 {
			t.Errorf("asked %d times, while nobody listened", n.asked)
		}
	})
}

// With browsing switched off for good, what is lost is forgotten in the end.
func TestDisabledAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := newNetwork(t)
		r.conf = "[Global]\nctrl-loss-tmo=0\n"
		r.start()
		n.tell(mdns.Added, offer("eth0", "1"))
		r.reconfigure(disabled + persistence + "1 hour\n")
		time.Sleep(5 * time.Hour)
		r.expect("connected", "1@eth0 discovered live")
		r.kernel.ClosePort(addr, "1")
		time.Sleep(2 * time.Hour)
		r.expect("lost", "")
	})
}

// What is announced by both protocols, or by two names, is one controller, and
// nothing is wrong with that. On two interfaces there is.
func TestSameAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const wrong = "is announced on several interfaces: eth0, eth1"
		r, n := newNetwork(t)
		r.start()
		n.tell(mdns.Added, offer("eth0", "1"))
		six := offer("eth0", "1")
		six.Family = mdns.IPv6
		n.tell(mdns.Added, six)
		other := offer("eth0", "1")
		other.Instance = "another name"
		n.tell(mdns.Added, other)
		other.Type = mdns.Types[1]
		n.tell(mdns.Added, other)
		r.expect("one interface", "1@eth0 discovered discovered live")
		r.expectLog("one interface", "is announced on several", 0)
		for i := range 3 {
			n.tell(mdns.Added, offer("eth1", "1", fmt.Sprint("n=", i)))
		}
		r.expect("two interfaces", "1@eth0 discovered discovered live; 1@eth1 discovered live")
		r.expectLog("two interfaces", wrong, 1)
	})
}

// The TXT record says what is there (TP 8009); in what is no "key=value", or not
// printable, it says nothing.
func TestTextOfAnnouncement(t *testing.T) {
	const unique = "nqn.2026-11.org.example:dc"
	id := func(transport, nqn, iface string) tid.TID {
		return tid.New(tid.TID{Transport: transport, TrAddr: addr, TrSvcID: "1", SubsysNQN: nqn, HostIface: iface, HostNQN: identity.NQN})
	}
	known := id("tcp", nvme.WellKnownDiscoveryNQN, "eth0")
	rdma := id("rdma", nvme.WellKnownDiscoveryNQN, "")
	for _, c := range []struct {
		name string
		txt  []string
		want tid.TID
		log  string
	}{
		{"as SPDK", []string{"p=tcp", "nqn=" + nvme.WellKnownDiscoveryNQN}, known, ""},
		{"unique NQN", []string{"p=tcp", "nqn=" + unique}, id("tcp", unique, "eth0"), ""},
		{"NQN with an equals sign", []string{"p=tcp", "nqn=" + unique + "=1"}, id("tcp", unique+"=1", "eth0"), ""},
		{"empty NQN", []string{"p=tcp", "nqn="}, known, ""},
		{"any case", []string{"P= TCP "}, known, ""},
		{"the last one counts", []string{"p=roce", "p=tcp"}, known, ""},
		{"nonsense beside", []string{"", "=", "=x", "nqn", "nqn=\x01", "nqn=\xff", "p=tcp"}, known, ""},
		{"RoCE", []string{"p=roce"}, rdma, ""},
		{"iWARP", []string{"p=iWARP"}, rdma, ""},
		{"RDMA", []string{"p=rdma"}, rdma, ""},
		{"no transport", []string{"nqn=" + unique}, tid.TID{}, "does not tell the transport"},
		{"unknown transport", []string{"p=udp"}, tid.TID{}, "unknown transport"},
		{"nothing", nil, tid.TID{}, "does not tell the transport"},
		{"NQN that is none", []string{"p=tcp", "nqn=a,b=c"}, id("tcp", "a,b=c", "eth0"), "cannot be connected"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, n := newNetwork(t)
				r.start()
				s := offer("eth0", "1")
				s.TXT = c.txt
				for range 3 {
					n.tell(mdns.Removed, s)
					n.tell(mdns.Added, s)
				}
				b := r.browse()
				if len(b.Services) != 1 || len(b.Services[0].Addresses) != 1 {
					t.Fatalf("browse tells %+v", b)
				}
				a := b.Services[0]
				var got tid.TID
				if a.Addresses[0].ID != nil {
					got = tid.TID(*a.Addresses[0].ID)
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Error(diff)
				}
				if (a.Wrong != "") != (c.want == tid.TID{}) {
					t.Errorf("wrong with it is %q", a.Wrong)
				}
				if c.log != "" {
					r.expectLog("complaint", c.log, 1)
				}
				if wanted := a.Addresses[0].Controller != nil; wanted != (c.log == "") {
					t.Errorf("wanted is %v", wanted)
				}
			})
		})
	}
}

// Link-local addresses need their zone, and are used where there is no other.
func TestAddressesOfAnnouncement(t *testing.T) {
	for _, c := range []struct{ name, conf, addrs, want string }{
		{"link-local", "", "fe80::1%eth0", "fe80::1%eth0"},
		{"both families", "", "2001:db8::1 192.0.2.1", "192.0.2.1 2001:db8::1"},
		{"two of a family", "", "192.0.2.1 192.0.2.2", "192.0.2.1 192.0.2.2"},
		{"beside another", "", "fe80::1%eth0 192.0.2.1", "192.0.2.1"},
		{"beside one that may not be used", "[Global]\nip-family=ipv6\n", "fe80::1%eth0 192.0.2.1", "fe80::1%eth0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, n := newNetwork(t)
				r.conf = c.conf
				r.start()
				s := offer("eth0", "1")
				s.Addrs = nil
				for a := range strings.FieldsSeq(c.addrs) {
					s.Addrs = append(s.Addrs, netip.MustParseAddr(a))
				}
				n.tell(mdns.Added, s)
				report, err := r.daemon.Report(t.Context())
				var got []string
				for _, c := range report.Controllers {
					got = append(got, c.TrAddr)
				}
				slices.Sort(got)
				if err != nil || strings.Join(got, " ") != c.want {
					t.Errorf("wanted at %q, %v, want %q", got, err, c.want)
				}
			})
		})
	}
}

func (r *rig) services() map[string]map[string]string {
	r.t.Helper()
	text, err := r.daemon.ProcessInfo(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	var info struct {
		Avahi struct {
			Types    []string                     `json:"service types"`
			Services map[string]map[string]string `json:"services"`
		} `json:"avahi"`
	}
	if err := json.Unmarshal([]byte(text), &info); err != nil {
		r.t.Fatal(err)
	}
	return info.Avahi.Services
}

// process_info has the keys of nvme-stas.
func TestAvahiOfProcessInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := newNetwork(t)
		r.kernel.ClosePort(addr, "2")
		r.start()
		n.tell(mdns.Added, offer("eth0", "1", "nqn=nqn.2026-11.org.example:dc"))
		n.tell(mdns.Added, offer("eth0", "2"))
		six := offer("eth1", "3")
		six.Family, six.Type, six.TXT = mdns.IPv6, mdns.Types[1], []string{"p=roce"}
		n.tell(mdns.Added, six)
		six.Instance, six.TXT = "wrong", nil
		n.tell(mdns.Added, six)
		time.Sleep(10 * time.Second)
		want := map[string]map[string]string{
			"(eth0, IPv4, dc1.local, _nvme-disc._tcp)": {
				"transport": "tcp", "traddr": addr, "trsvcid": "1", "host-iface": "eth0", "subsysnqn": "nqn.2026-11.org.example:dc", "reachable": "True",
			},
			"(eth0, IPv4, dc2.local, _nvme-disc._tcp)": {
				"transport": "tcp", "traddr": addr, "trsvcid": "2", "host-iface": "eth0", "subsysnqn": nvme.WellKnownDiscoveryNQN, "reachable": "False",
			},
			"(eth1, IPv6, dc3.local, _nvme-disc._udp)": {
				"transport": "rdma", "traddr": addr, "trsvcid": "3", "host-iface": "", "subsysnqn": nvme.WellKnownDiscoveryNQN, "reachable": "True",
			},
			"(eth1, IPv6, wrong.local, _nvme-disc._udp)": {"reachable": "False"},
		}
		if diff := cmp.Diff(want, r.services()); diff != "" {
			t.Error(diff)
		}
		n.tell(mdns.Removed, six)
		if got := slices.Sorted(maps.Keys(r.services())); len(got) != 3 {
			t.Errorf("after a goodbye: %q", got)
		}
	})
}

// A network that announces more than makes sense is believed up to a limit.
func TestAnnouncementsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, n := newNetwork(t)
		r.start()
		first := offer("eth0", "1")
		n.tell(mdns.Added, first)
		for i := range maxDiscovered + 100 {
			s := offer("eth1", "1")
			s.Instance = fmt.Sprintf("%05d", i)
			s.Addrs = []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}
			n.report(mdns.Event{Kind: mdns.Added, Service: s})
		}
		settle()
		report, err := r.daemon.Report(t.Context())
		if err != nil || len(report.Controllers) != maxDiscovered || !strings.Contains(r.discovered(), "1@eth0 discovered live") {
			t.Errorf("%d controllers are wanted, %v", len(report.Controllers), err)
		}
		for i := range 2 * maxAnnounced {
			s := offer("eth1", "1")
			s.Instance = fmt.Sprint("x", i)
			n.report(mdns.Event{Kind: mdns.Added, Service: s})
		}
		settle()
		if got := len(r.browse().Services); got != maxAnnounced {
			t.Errorf("%d services are remembered", got)
		}
	})
}

// Whatever is heard or not, in whatever order: what is connected stays as it
// is, and once the world is quiet, what is announced is connected.
func TestAnnouncementsInAnyOrder(t *testing.T) {
	for range 20 {
		seed := rand.Uint64()
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			r, n := newNetwork(t)
			r.conf = persistence + "0\n"
			r.start()
			connected := make(map[string]string) // device by address and interface
			for step := range 100 {
				s := offer([]string{"eth0", "eth1"}[random.IntN(2)], []string{"1", "2"}[random.IntN(2)], fmt.Sprint("n=", random.IntN(3)))
				switch random.IntN(10) {
				case 0, 1, 2:
					n.tell(mdns.Added, s)
				case 3:
					n.tell(mdns.Updated, s)
				case 4:
					n.tell(mdns.Removed, s)
				case 5:
					n.tell(mdns.SourceLost, mdns.Service{})
				case 6:
					n.tell(mdns.SourceLost, mdns.Service{Index: s.Index, Family: s.Family})
				case 7:
					n.tell(mdns.SourceFound, mdns.Service{})
				case 8:
					time.Sleep(time.Duration(random.IntN(60)) * time.Second)
				case 9:
					switch random.IntN(3) {
					case 0:
						r.stop()
						r.start()
					case 1:
						r.reconfigure(persistence + "0\n[Service Discovery]\nmdns=" + []string{"auto", "avahi", "embedded"}[random.IntN(3)] + "\n")
					case 2:
						r.reconfigure(persistence + "0\n" + disabled)
					}
				}
				settle()
				now := make(map[string]string)
				for _, c := range r.kernel.Controllers() {
					now[c.TrSvcID+"@"+c.HostIface] = c.Name
				}
				for where, device := range connected {
					if now[where] != device {
						t.Fatalf("seed %d, step %d: %s was %s and is %q", seed, step, where, device, now[where])
					}
				}
				connected = now
			}
			r.reconfigure(persistence + "0\n")
			time.Sleep(2 * time.Minute)
			for _, s := range n.there {
				if connected[fmt.Sprint(s.Port, "@", s.Iface)] == "" && !strings.Contains(r.discovered(), fmt.Sprintf("%d@%s discovered live", s.Port, s.Iface)) {
					t.Errorf("seed %d: %v is announced, and not connected: %s", seed, s.Key(), r.discovered())
				}
			}
		})
	}
}

func FuzzText(f *testing.F) {
	f.Add("p=tcp", "nqn=x=y", "=")
	f.Add("P=", "\x00=\xff", "a")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		for key, value := range parseText([]string{a, b, c}) {
			if key == "" || key != strings.ToLower(key) || strings.ContainsAny(key+value, "\x00\n\r") || strings.Contains(key, "=") {
				t.Errorf("%q=%q", key, value)
			}
		}
	})
}
