package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/nvme-stas/stas/internal/mdns"
	"github.com/nvme-stas/stas/pkg/target"
)

// ear hears what is said by mDNS on the loopback interface.
type ear struct{ *mdns.Socket }

func listenMDNS(t *testing.T) ear {
	t.Helper()
	lo, err := loopback()
	if err != nil {
		t.Skip(err)
	}
	socket, err := mdns.Open(lo.Name, lo.Index, mdns.IPv4)
	if err != nil {
		t.Skip("mDNS cannot be heard here: ", err)
	}
	t.Cleanup(func() { socket.Close() })
	e := ear{socket}
	// Does the interface carry multicasts at all?
	e.ask(t, "is-there-an-echo.local.")
	if !e.hear(5*time.Second, func(m dns.Msg) bool {
		return !m.Response && len(m.Question) == 1 && m.Question[0].Name == "is-there-an-echo.local."
	}) {
		t.Skip("the loopback interface carries no multicasts here")
	}
	return e
}

func loopback() (net.Interface, error) {
	list, err := interfacesFor("", netip.MustParseAddr("127.0.0.1"))
	if err != nil {
		return net.Interface{}, err
	}
	return list[0], nil
}

func (e ear) ask(t *testing.T, name string) {
	t.Helper()
	m := &dns.Msg{Question: []dns.Question{{Name: name, Qtype: dns.TypePTR, Qclass: dns.ClassINET}}}
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Send(packet); err != nil {
		t.Skip("the loopback interface takes no multicasts here: ", err)
	}
}

// hear waits for a message.
func (e ear) hear(within time.Duration, is func(dns.Msg) bool) bool {
	_ = e.SetReadDeadline(time.Now().Add(within))
	buf := make([]byte, maxMessage)
	for {
		n, err := e.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false
		}
		var m dns.Msg
		if err == nil && m.Unpack(buf[:n]) == nil && is(m) {
			return true
		}
	}
}

// says reports whether a message has all of these records.
func says(m dns.Msg, records ...string) bool {
	var all []string
	for _, rr := range slices.Concat(m.Answer, m.Extra) {
		rr.Header().Class &^= 1 << 15 // cache flush
		ttl := "live"
		if rr.Header().Ttl == 0 {
			ttl = "gone"
		}
		rr.Header().Ttl = 0
		all = append(all, ttl+" "+strings.Join(strings.Fields(rr.String()), " "))
	}
	for _, r := range records {
		if !slices.Contains(all, r) {
			return false
		}
	}
	return m.Response
}

// TestAnnounce follows an announcement from the opening of its listener through
// a restart to the end.
func TestAnnounce(t *testing.T) {
	e := listenMDNS(t)
	lab := Test(t, fmt.Sprintf(`
listeners:
- {name: a, address: "127.0.0.1:0", discovery: {type: cdc, nqn: "nqn.2026-01.org.example:cdc"}, announce: {name: "lab No.1 %d"}}
- {name: b, address: "127.0.0.1:0"}
`, os.Getpid()))
	address, err := netip.ParseAddrPort(lab.Listeners()[0].Address)
	if err != nil {
		t.Fatal(err)
	}
	name := `lab\ No\.1\ ` + strconv.Itoa(os.Getpid())
	instance := name + "._nvme-disc._tcp.local."
	host := fmt.Sprintf("lab-127-0-0-1-%d.local.", address.Port())
	records := []string{
		"_nvme-disc._tcp.local. 0 IN PTR " + instance,
		fmt.Sprintf("%s 0 IN SRV 0 0 %d %s", instance, address.Port(), host),
		instance + ` 0 IN TXT "p=tcp" "nqn=nqn.2026-01.org.example:cdc"`,
		host + " 0 IN A 127.0.0.1",
	}
	subtype := "_cdc._sub._nvme-disc._tcp.local. 0 IN PTR " + instance
	expect := func(what, prefix string, records ...string) {
		t.Helper()
		for i, r := range records {
			records[i] = prefix + r
		}
		if !e.hear(20*time.Second, func(m dns.Msg) bool { return says(m, records...) }) {
			t.Errorf("%s: nobody says %q", what, records)
		}
	}
	expect("opened", "live ", slices.Clone(records)...)
	e.ask(t, "_nvme-disc._tcp.local.")
	expect("asked", "live ", slices.Clone(records)...)
	e.ask(t, "_CDC._sub._nvme-disc._tcp.local.")
	expect("asked for a CDC", "live ", subtype)
	if got := lab.Listeners(); got[0].Announced != fmt.Sprintf("lab No.1 %d", os.Getpid()) || got[1].Announced != "" {
		t.Errorf("shown as %q, %q", got[0].Announced, got[1].Announced)
	}

	if err := lab.Restart("a", time.Hour); err != nil {
		t.Fatal(err)
	}
	expect("restarting", "gone ", append(slices.Clone(records), subtype)...)
	if err := lab.RemoveListener("a"); err != nil {
		t.Fatal(err)
	}
	add := Listener{Announce: Announce{Name: fmt.Sprintf("second %d", os.Getpid()), Interface: "lo"}}
	add.Name, add.Address = "c", "127.0.0.1:0"
	if err := lab.AddListener(add); err != nil {
		t.Fatal(err)
	}
	second := fmt.Sprintf(`_nvme-disc._tcp.local. 0 IN PTR second\ %d._nvme-disc._tcp.local.`, os.Getpid())
	expect("a second one", "live ", second)
	lab.Close()
	expect("closed", "gone ", second)
}

func TestAnnounceMistakes(t *testing.T) {
	l := Test(t, "listeners: [{name: a, address: 127.0.0.1:0}]")
	for _, c := range []struct {
		announce Announce
		want     string
	}{
		{Announce{Name: "x", Interface: "eth99"}, `announce: there is no interface "eth99"; there are `},
		{Announce{Name: strings.Repeat("x", 64)}, "announce: the name has 64 bytes, 63 are allowed"},
		{Announce{Name: "x", TTL: target.Duration(1500 * time.Millisecond)}, "announce: the TTL has to be of whole seconds, up to 24h0m0s"},
		{Announce{TTL: target.Duration(time.Second)}, "announce: the name is missing"},
		{Announce{Name: "x."}, `announce: the name "x." must not begin or end in a dot`},
	} {
		add := Listener{Announce: c.announce}
		add.Name, add.Address = "b", "127.0.0.1:0"
		if err := l.AddListener(add); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
		if n := len(l.Listeners()); n != 1 {
			t.Errorf("%d listeners are left", n)
		}
	}
	if _, err := interfacesFor("", netip.MustParseAddr("203.0.113.99")); err == nil || !strings.Contains(err.Error(), "no interface has the address") {
		t.Errorf("got %v", err)
	}
}

// TestRecords: a listener at any address has those of the interface told.
func TestRecords(t *testing.T) {
	lo, err := loopback()
	if err != nil {
		t.Skip(err)
	}
	for address, want := range map[string]string{
		"[::]:8009":             "127.0.0.1",
		"192.0.2.1:8009":        "192.0.2.1",
		"[fe80::1%eth0]:8009":   "fe80::1",
		"[::ffff:10.0.0.1]:809": "10.0.0.1",
	} {
		a := announcement{Announce: Announce{Name: "x", TTL: target.Duration(7 * time.Second)}, address: netip.MustParseAddrPort(address), cdc: true}
		list, err := a.records(lo)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, rr := range list {
			if rr.Header().Ttl != 7 {
				t.Errorf("TTL of %v", rr)
			}
			switch rr := rr.(type) {
			case *dns.A:
				got = append(got, rr.A.String())
			case *dns.AAAA:
				got = append(got, rr.AAAA.String())
			}
		}
		if !slices.Contains(got, want) || address != "[::]:8009" && len(got) != 1 {
			t.Errorf("%s: %v", address, got)
		}
		if n := len(list) - len(got); n != 4 {
			t.Errorf("%d records besides", n)
		}
	}
}

func TestHostName(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:8009": "lab-192-0-2-1-8009", "[fe80::1%eth0]:8009": "lab-fe80--1-8009",
	} {
		if got := hostName(netip.MustParseAddrPort(address)); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
