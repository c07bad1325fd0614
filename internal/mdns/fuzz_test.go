package mdns

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/miekg/dns"
)

// FuzzPacket has a link that knows a service receive a packet, and an hour pass.
func FuzzPacket(f *testing.F) {
	r := nvme("good")
	f.Add(pack(f, r.records("", 0, 120, 4500)...))
	f.Add(pack(f, r.records("", 0, 0, 0)...))
	f.Add(pack(f, nvme(`\195\164\.b`).records("", 0, 1, 1)...))
	udp := nvme("a")
	udp.instance = "a._nvme-disc._udp.local."
	f.Add(pack(f, udp.records("", 0, 4000000000, 4000000000)...))
	f.Add([]byte{0, 0, 0x84, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0xc0, 12, 0, 12, 0, 1, 0, 0, 0, 1, 0, 2, 0xc0, 12})
	f.Fuzz(func(t *testing.T, packet []byte) {
		now := begin
		told := 0
		l := newLink(now, "eth0", 2, IPv6, rand.New(rand.NewPCG(1, 2)), func(string) { told++ })
		from := netip.MustParseAddr("fe80::1%eth0")
		l.receive(now, from, pack(t, r.records("", 0, 120, 4500)...))
		l.step(now)
		l.receive(now, from, packet)
		there := map[Key]bool{{2, IPv6, Types[0], "good"}: true}
		for steps := 0; now.Before(begin.Add(time.Hour)); steps++ {
			if steps > 20_000 {
				t.Fatal("too many steps")
			}
			packets, events := l.step(now)
			for _, e := range events {
				s := e.Service
				if was := there[s.Key()]; was == (e.Kind == Added) {
					t.Fatalf("%v of %+v, which was there: %v", e.Kind, s, was)
				}
				there[s.Key()] = e.Kind != Removed
				if e.Kind != Removed && (s.Port == 0 || len(s.Addrs) == 0 || s.Host == "" || s.Instance == "" || !utf8.ValidString(s.Instance)) {
					t.Fatalf("%+v", s)
				}
			}
			for _, p := range packets {
				var m dns.Msg
				if err := m.Unpack(p); err != nil || m.Response || len(p) > maxQuery {
					t.Fatalf("query of %d bytes: %v", len(p), err)
				}
			}
			if !l.next().After(now) {
				t.Fatalf("due at %v again", now)
			}
			now = l.next()
		}
		if told > maxTold+1 || len(l.entries) > 2+6*maxInstances {
			t.Fatalf("%d complaints, %d entries", told, len(l.entries))
		}
	})
}
