package mdns

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// wire is a link of its own time with the responders that the test puts on it.
type wire struct {
	*testing.T
	*link
	now   time.Time
	hosts map[string]*responder // by instance
	named map[string]string     // the instance, by host
	// answers are on their way.
	answers []answer
	queries []*dns.Msg
	times   []time.Time
	sizes   []int
	events  []string
	there   map[Key]Service
	told    []string
	lose    func() bool // packets, either way
}

type answer struct {
	at     time.Time
	packet []byte
}

// responder answers for one instance.
type responder struct {
	instance, host string // escaped
	port           uint16
	txt            []string
	addrs          []string
	ttl, pointer   uint32 // seconds: of host records, and of the rest
	split          bool   // nothing but what was asked for
}

var begin = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWire(t *testing.T) *wire {
	w := &wire{T: t, now: begin, hosts: make(map[string]*responder), named: make(map[string]string), there: make(map[Key]Service)}
	w.link = newLink(w.now, "eth0", 2, IPv4, rand.New(rand.NewPCG(1, 2)), func(text string) { w.told = append(w.told, text) })
	return w
}

func nvme(name string) *responder {
	return &responder{
		instance: name + "._nvme-disc._tcp.local.", host: name + ".local.", port: 8009,
		txt: []string{"p=tcp"}, addrs: []string{"192.0.2.1"}, ttl: 120, pointer: 4500,
	}
}

// add puts a responder on the wire, silently.
func (w *wire) add(r *responder) *responder {
	w.hosts[strings.ToLower(r.instance)] = r
	w.named[strings.ToLower(r.host)] = strings.ToLower(r.instance)
	return r
}

func (r *responder) ptr(ttl uint32) dns.RR {
	next, _ := dns.NextLabel(r.instance, 0)
	return &dns.PTR{Hdr: dns.RR_Header{Name: r.instance[next:], Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttl}, Ptr: r.instance}
}

const flush = dns.ClassINET | flagCacheFlush

// records are those of a question, or all of it.
func (r *responder) records(name string, qtype uint16, ttl, pointer uint32) (list []dns.RR) {
	list = []dns.RR{
		r.ptr(pointer),
		&dns.SRV{Hdr: dns.RR_Header{Name: r.instance, Rrtype: dns.TypeSRV, Class: flush, Ttl: ttl}, Port: r.port, Target: r.host},
		&dns.TXT{Hdr: dns.RR_Header{Name: r.instance, Rrtype: dns.TypeTXT, Class: flush, Ttl: pointer}, Txt: r.txt},
	}
	for _, a := range r.addrs {
		if addr := netip.MustParseAddr(a); addr.Is4() {
			list = append(list, &dns.A{Hdr: dns.RR_Header{Name: r.host, Rrtype: dns.TypeA, Class: flush, Ttl: ttl}, A: addr.AsSlice()})
		} else {
			list = append(list, &dns.AAAA{Hdr: dns.RR_Header{Name: r.host, Rrtype: dns.TypeAAAA, Class: flush, Ttl: ttl}, AAAA: addr.AsSlice()})
		}
	}
	return slices.DeleteFunc(list, func(rr dns.RR) bool {
		h := rr.Header()
		return qtype != 0 && (h.Rrtype != qtype || !strings.EqualFold(h.Name, name))
	})
}

func pack(t testing.TB, records ...dns.RR) []byte {
	m := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Authoritative: true}, Compress: true, Answer: records}
	packet, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

// hear has the link receive records now.
func (w *wire) hear(records ...dns.RR) {
	w.Helper()
	w.receive(w.now, netip.MustParseAddr("192.0.2.99"), pack(w, records...))
	w.step()
}

// announce says everything, goodbye that it ends.
func (w *wire) announce(r *responder) { w.hear(r.records("", 0, r.ttl, r.pointer)...) }
func (w *wire) goodbye(r *responder)  { w.hear(r.records("", 0, 0, 0)...) }

func (w *wire) step() {
	w.Helper()
	packets, events := w.link.step(w.now)
	if w.next().Before(w.now) {
		w.Fatalf("at %v the next step is due at %v", w.now, w.next())
	}
	for _, e := range events {
		w.events = append(w.events, fmt.Sprint(e.Kind, " ", e.Instance))
		if e.Kind == Removed {
			delete(w.there, e.Key())
		} else {
			w.there[e.Key()] = e.Service
		}
	}
	known := make(map[string]uint32) // of the message before, if it was truncated
	var asked []dns.Question
	for _, p := range packets {
		q := new(dns.Msg)
		if err := q.Unpack(p); err != nil {
			w.Fatal(err)
		}
		w.queries = append(w.queries, q)
		w.times = append(w.times, w.now)
		w.sizes = append(w.sizes, len(p))
		for _, a := range q.Answer {
			known[strings.ToLower(a.(*dns.PTR).Ptr)] = a.Header().Ttl
		}
		asked = append(asked, q.Question...)
		if !q.Truncated {
			w.respond(asked, known)
			known, asked = make(map[string]uint32), nil
		}
	}
	if len(asked) > 0 {
		w.Fatal("the last packet says that more follow")
	}
}

func (w *wire) lost() bool { return w.lose != nil && w.lose() }

func (w *wire) respond(questions []dns.Question, known map[string]uint32) {
	if w.lost() {
		return
	}
	said := make(map[*responder][]dns.RR)
	for _, q := range questions {
		if q.Qclass != dns.ClassINET {
			w.Errorf("%s is asked for by unicast", q.Name)
		}
		for _, r := range w.concerned(q) {
			got := r.records(q.Name, q.Qtype, r.ttl, r.pointer)
			if q.Qtype == dns.TypePTR && known[strings.ToLower(r.instance)] >= r.pointer/2 {
				continue
			}
			if q.Qtype == dns.TypePTR && !r.split {
				got = r.records("", 0, r.ttl, r.pointer)
			}
			said[r] = append(said[r], got...)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.hosts)) {
		if list := said[w.hosts[name]]; len(list) > 0 && !w.lost() {
			w.answers = append(w.answers, answer{w.now.Add(50 * time.Millisecond), pack(w, list...)})
		}
	}
}

// concerned are the responders that a question may be for.
func (w *wire) concerned(q dns.Question) (list []*responder) {
	if q.Qtype == dns.TypePTR {
		return slices.Collect(maps.Values(w.hosts))
	}
	if r := w.hosts[q.Name]; r != nil {
		return []*responder{r}
	}
	if r := w.hosts[w.named[q.Name]]; r != nil {
		return []*responder{r}
	}
	return nil
}

// run lets time pass.
func (w *wire) run(d time.Duration) {
	w.Helper()
	until := w.now.Add(d)
	for n := 0; ; n++ {
		if n > 1_000_000 {
			w.Fatal("there is no end")
		}
		next := w.next()
		if len(w.answers) > 0 && !w.answers[0].at.After(next) {
			next = w.answers[0].at
		}
		if next.After(until) {
			break
		}
		w.now = next
		if len(w.answers) > 0 && !w.answers[0].at.After(w.now) {
			w.receive(w.now, netip.MustParseAddr("192.0.2.99"), w.answers[0].packet)
			w.answers = w.answers[1:]
			continue // as in the daemon: packets first
		}
		w.step()
	}
	w.now = until
}

// expect compares the events since the last time.
func (w *wire) expect(what string, want ...string) {
	w.Helper()
	if !slices.Equal(w.events, want) {
		w.Errorf("%s: got %q, want %q", what, w.events, want)
	}
	w.events = nil
}

// only returns the one service that is there.
func (w *wire) only() Service {
	w.Helper()
	if len(w.there) != 1 {
		w.Fatalf("there are %v", w.there)
	}
	for _, s := range w.there {
		return s
	}
	panic("unreachable")
}

// asked returns "type name" of the questions since the last time, in order.
func (w *wire) asked() (list []string) {
	for _, m := range w.queries {
		for _, q := range m.Question {
			list = append(list, dns.Type(q.Qtype).String()+" "+q.Name)
		}
	}
	w.queries, w.times, w.sizes = nil, nil, nil
	return list
}

// TestSchedule: the types are asked for at 0, 1, 3, 7... seconds, then hourly.
func TestSchedule(t *testing.T) {
	w := newWire(t)
	w.run(24 * time.Hour)
	first := w.times[0].Sub(begin)
	if first < delayMin || first > delayMax {
		t.Errorf("the first query is sent after %v", first)
	}
	var got []time.Duration
	for _, at := range w.times {
		got = append(got, at.Sub(w.times[0])/time.Second)
	}
	want := []time.Duration{0, 1, 3, 7, 15, 31, 63, 127, 255, 511, 1023, 2047, 4095}
	for next := want[len(want)-1] + 3600; next < 24*3600; next += 3600 {
		want = append(want, next)
	}
	if !slices.Equal(got, want) {
		t.Errorf("queries at %d s, want %d", got, want)
	}
	for _, q := range w.queries {
		if len(q.Question) != 2 || q.RecursionDesired || q.Id != 0 {
			t.Fatalf("a query is %v", q)
		}
	}
}

// TestLife follows a service from its announcement to its goodbye.
func TestLife(t *testing.T) {
	w := newWire(t)
	w.run(10 * time.Second)
	r := nvme(`G\195\164rt\ A\.1`)
	r.txt = []string{"p=tcp", `NQN=nqn.2014-08.org.nvmexpress.discovery`, `b=\200\\`}
	r.addrs = []string{"fe80::1", "2001:db8::1", "192.0.2.2", "192.0.2.1", "169.254.1.1"}
	r.host = `Ger\.1.local.`
	w.add(r)
	w.announce(r)
	w.expect("announced", "added Gärt A.1")
	want := Service{
		Iface: "eth0", Index: 2, Family: IPv4, Type: "_nvme-disc._tcp", Instance: "Gärt A.1", Host: "Ger.1.local", Port: 8009,
		TXT: []string{"p=tcp", "NQN=nqn.2014-08.org.nvmexpress.discovery", "b=\xc8\\"},
	}
	for _, a := range []string{"169.254.1.1", "192.0.2.1", "192.0.2.2", "2001:db8::1", "fe80::1%eth0"} {
		want.Addrs = append(want.Addrs, netip.MustParseAddr(a))
	}
	same := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	if diff := cmp.Diff(want, w.only(), same); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	w.announce(r)
	w.run(6 * time.Hour)
	w.expect("nothing changes")

	// Everything that can change, one at a time; what is new replaces what was at once.
	r.port = 4420
	w.announce(r)
	w.expect("port", "updated Gärt A.1")
	w.run(2 * time.Second) // a flush spares what was heard a second ago
	r.addrs = []string{"192.0.2.7"}
	w.announce(r)
	w.expect("renumbered: IPv4 at once", "updated Gärt A.1")
	if got := w.only(); got.Port != 4420 || got.Addrs[0] != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("is %+v", got)
	}
	w.run(3 * time.Minute) // nobody said of the IPv6 addresses that they ended
	w.expect("and IPv6 when it was not heard of", "updated Gärt A.1")
	if got := w.only(); len(got.Addrs) != 1 {
		t.Errorf("is %+v", got)
	}
	r.txt = []string{"p=roce"}
	w.announce(r)
	w.expect("TXT", "updated Gärt A.1")
	r.host = "other.local."
	w.announce(w.add(r))
	w.expect("host", "updated Gärt A.1")
	w.run(time.Hour)
	w.expect("no flapping")
	if got := w.only(); got.Host != "other.local" || !slices.Equal(got.TXT, []string{"p=roce"}) {
		t.Errorf("is %+v", got)
	}

	w.goodbye(r)
	w.run(grace - time.Millisecond)
	w.expect("grace")
	w.announce(r)
	w.run(2 * grace)
	w.expect("saved within the grace")
	w.goodbye(r)
	clear(w.hosts)
	w.run(grace)
	w.expect("goodbye", "removed Gärt A.1")
	w.run(time.Minute) // the last of the addresses
	if n := len(w.entries); n != len(Types) {
		t.Errorf("%d entries are left", n)
	}
	if w.told != nil {
		t.Errorf("complaints: %q", w.told)
	}
}

// TestExpiry: who goes silent is asked four times for each record and then
// forgotten when the pointer ends, and not for the end of what it leads to.
func TestExpiry(t *testing.T) {
	w := newWire(t)
	r := w.add(nvme("a"))
	r.ttl, r.pointer = 100, 1000
	w.run(time.Second)
	w.expect("found", "added a")
	heard := w.now
	clear(w.hosts)
	w.run(2 * time.Second)
	w.queries, w.times = nil, nil
	w.run(140 * time.Second)
	w.expect("host records ended")
	var at []int
	for i, q := range w.queries {
		if slices.ContainsFunc(q.Question, func(q dns.Question) bool { return q.Qtype == dns.TypeSRV }) {
			at = append(at, int(w.times[i].Sub(heard)/time.Second))
		}
	}
	// 80, 85, 90, 95 % and up to 2 % later, then anew.
	if len(at) != 10 || at[0] < 79 || at[0] > 82 || at[1] < 84 || at[1] > 87 || at[2] < 89 || at[2] > 92 || at[3] < 94 || at[3] > 97 {
		t.Errorf("SRV is asked for after %d s", at)
	}
	w.run(1000*time.Second - w.now.Sub(heard) - 2*time.Second)
	w.expect("the pointer is not at its end")
	w.run(2 * time.Second)
	w.expect("it is", "removed a")
	w.asked()
	w.run(time.Hour)
	for _, q := range w.asked() {
		if !strings.HasPrefix(q, "PTR ") {
			t.Errorf("still asked: %s", q)
		}
	}
}

// TestSplit: who answers nothing but the question is asked for the rest, and any
// address will do.
func TestSplit(t *testing.T) {
	for _, c := range []struct{ name, addr string }{{"own family", "192.0.2.1"}, {"other family", "2001:db8::1"}} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t)
			r := w.add(nvme("A"))
			r.split, r.addrs = true, []string{c.addr}
			w.run(3 * time.Second)
			w.expect("resolved", "added A")
			asked := w.asked()
			for _, q := range []string{"SRV a._nvme-disc._tcp.local.", "TXT a._nvme-disc._tcp.local.", "A a.local."} {
				if n := count(asked, q); n != 1 && (q != "A a.local." || c.addr == "192.0.2.1") {
					t.Errorf("%s is asked for %d times in %q", q, n, asked)
				}
			}
			w.run(time.Hour)
			asked = w.asked()
			other := "AAAA a.local."
			if c.addr != "192.0.2.1" {
				other = "A a.local."
			}
			if n := count(asked, other); n > 1 {
				t.Errorf("%s, which there is not, is asked for %d times", other, n)
			}
		})
	}
}

func count(list []string, what string) (n int) {
	for _, s := range list {
		if s == what {
			n++
		}
	}
	return n
}

// TestOrder: records may come in any order, in one packet, and in other letters.
func TestOrder(t *testing.T) {
	for seed := range uint64(200) {
		w := newWire(t)
		r := nvme("Array")
		list := r.records("", 0, r.ttl, r.pointer)
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		w.hear(list...)
		w.expect(fmt.Sprint(list), "added Array")
		upper := nvme("ARRAY")
		upper.host = r.host
		w.hear(upper.records("", 0, r.ttl, r.pointer)...)
		w.expect("the same in other letters")
	}
}

// TestSeveral: two SRV records that are both repeated do not alternate, and one
// without a cache-flush bit replaces an old one, too.
func TestSeveral(t *testing.T) {
	w := newWire(t)
	one, two := nvme("a"), nvme("a")
	two.port = 4420
	w.announce(one)
	w.expect("first", "added a")
	w.run(5 * time.Second)
	list := two.records("", 0, 120, 4500)
	for _, rr := range list {
		rr.Header().Class = dns.ClassINET
	}
	w.hear(list...)
	w.expect("second", "updated a")
	for range 20 {
		w.hear(one.records("", 0, 120, 4500)[:2]...) // flushes what was heard a second ago
		w.hear(list...)
		w.run(300 * time.Millisecond)
	}
	w.expect("both repeated")
	if got := w.only(); got.Port != 4420 {
		t.Errorf("port %d", got.Port)
	}
}

// TestDay states what a host sends in a day for what is on the wire.
func TestDay(t *testing.T) {
	for _, c := range []struct {
		name        string
		n           int
		ttl         uint32
		split       bool
		loss        float64
		first, then float64 // packets at most: in the first hour, and in each hour after it
		hours       int
	}{
		{hours: 24, name: "nothing there", first: 12, then: 1},
		{hours: 24, name: "one array, host TTL 120 s", n: 1, ttl: 120, first: 50, then: 39},
		{hours: 24, name: "one array, host TTL 75 min", n: 1, ttl: 4500, first: 13, then: 3},
		{hours: 24, name: "200 arrays, host TTL 120 s", n: 200, ttl: 120, first: 420, then: 360},
		{hours: 4, name: "200 arrays, host TTL 120 s, nothing unasked", n: 200, ttl: 120, split: true, first: 420, then: 360},
		{hours: 24, name: "200 arrays, host TTL 75 min", n: 200, ttl: 4500, first: 80, then: 10},
		{hours: 8, name: "20 arrays, every tenth packet lost", n: 20, ttl: 120, loss: 0.1, first: 600, then: 600},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t)
			random := rand.New(rand.NewPCG(3, 4))
			w.lose = func() bool { return random.Float64() < c.loss }
			for i := range c.n {
				r := w.add(nvme(fmt.Sprintf("array-rack-%03d-sn0012", i)))
				r.addrs = []string{fmt.Sprintf("192.0.2.%d", i), fmt.Sprintf("fe80::%x", i+1)}
				r.ttl, r.split = c.ttl, c.split
			}
			w.run(time.Hour)
			if len(w.there) != c.n {
				t.Errorf("%d of %d are known", len(w.there), c.n)
			}
			first := len(w.queries)
			w.events = nil
			var bytes int
			w.run(time.Duration(c.hours-1) * time.Hour)
			for _, n := range w.sizes {
				bytes += n
				if n > maxQuery {
					t.Errorf("a query of %d bytes", n)
				}
			}
			then := float64(len(w.queries)-first) / float64(c.hours-1)
			t.Logf("%d packets in the first hour, %.1f in each later one; %d bytes a packet", first, then, bytes/len(w.sizes))
			if float64(first) > c.first || then > c.then {
				t.Errorf("more than %g and %g", c.first, c.then)
			}
			if c.loss == 0 && w.events != nil {
				t.Errorf("events: %q", w.events)
			}
			for _, e := range w.events {
				if !strings.HasPrefix(e, "updated ") {
					t.Errorf("%s, by nothing but loss", e)
				}
			}
			if w.told != nil && c.loss == 0 {
				t.Errorf("complaints: %q", w.told)
			}
		})
	}
}

// TestKnownAnswers: what is known is told, over several packets if need be.
func TestKnownAnswers(t *testing.T) {
	w := newWire(t)
	for i := range 200 {
		w.add(nvme(fmt.Sprintf("array-rack-%03d-serial-number-0012", i)))
	}
	w.run(500 * time.Millisecond)
	w.asked()
	w.run(time.Second) // the second query
	var known, parts int
	for i, q := range w.queries {
		parts++
		known += len(q.Answer)
		if last := i == len(w.queries)-1; q.Truncated == last || (len(q.Question) > 0) != (i == 0) {
			t.Errorf("packet %d: truncated %v, %d questions", i, q.Truncated, len(q.Question))
		}
		for _, a := range q.Answer {
			if ttl := a.Header().Ttl; ttl < 4490 || ttl > 4500 {
				t.Fatalf("TTL %d", ttl)
			}
		}
	}
	if known != 200 || parts < 5 || parts > 8 {
		t.Errorf("%d known answers in %d packets", known, parts)
	}
}

// TestMistakes: each is told once, and what is right beside it is served.
func TestMistakes(t *testing.T) {
	header := func(name string, qtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: qtype, Class: flush, Ttl: 120}
	}
	const tcp = "_nvme-disc._tcp.local."
	bad := nvme("bad")
	for _, c := range []struct {
		name    string
		records []dns.RR
		want    string
	}{
		{"instance of another type", []dns.RR{&dns.PTR{Hdr: header(tcp, dns.TypePTR), Ptr: "x._http._tcp.local."}}, `192.0.2.99 announces "x._http._tcp.local." as one of _nvme-disc._tcp.local.: it names no instance of the service`},
		{"the type itself", []dns.RR{&dns.PTR{Hdr: header(tcp, dns.TypePTR), Ptr: tcp}}, `192.0.2.99 announces "_nvme-disc._tcp.local." as one of _nvme-disc._tcp.local.: it names no instance of the service`},
		{"no UTF-8", []dns.RR{&dns.PTR{Hdr: header(tcp, dns.TypePTR), Ptr: `\255.` + tcp}}, `192.0.2.99 announces "\xff._nvme-disc._tcp.local." as one of _nvme-disc._tcp.local.: the name "\xff" is no text`},
		{"steers terminals", []dns.RR{&dns.PTR{Hdr: header(tcp, dns.TypePTR), Ptr: `\027[1m.` + tcp}}, `192.0.2.99 announces "\x1b[1m._nvme-disc._tcp.local." as one of _nvme-disc._tcp.local.: the name "\x1b[1m" is no text`},
		{"port 0", []dns.RR{bad.ptr(4500), &dns.SRV{Hdr: header(bad.instance, dns.TypeSRV), Target: bad.host}}, `192.0.2.99 says of "bad._nvme-disc._tcp.local." what makes no sense (SRV): it names no port or no host`},
		{"no host", []dns.RR{bad.ptr(4500), &dns.SRV{Hdr: header(bad.instance, dns.TypeSRV), Port: 1, Target: "."}}, `192.0.2.99 says of "bad._nvme-disc._tcp.local." what makes no sense (SRV): it names no port or no host`},
		{"long TXT", []dns.RR{bad.ptr(4500), &dns.TXT{Hdr: header(bad.instance, dns.TypeTXT), Txt: slices.Repeat([]string{strings.Repeat("x", 255)}, 6)}}, `192.0.2.99 says of "bad._nvme-disc._tcp.local." what makes no sense (TXT): it has 1536 bytes, more than the 1300 that are read`},
		{"unspecified address", append(bad.records("", 0, 120, 4500)[:3], &dns.A{Hdr: header(bad.host, dns.TypeA), A: []byte{0, 0, 0, 0}}), `192.0.2.99 says of "bad.local." what makes no sense (A): 0.0.0.0 is no address that one can connect to over a link`},
		{"loopback", append(bad.records("", 0, 120, 4500)[:3], &dns.AAAA{Hdr: header(bad.host, dns.TypeAAAA), AAAA: netip.MustParseAddr("::1").AsSlice()}), `192.0.2.99 says of "bad.local." what makes no sense (AAAA): ::1 is no address that one can connect to over a link`},
		{"of others", []dns.RR{&dns.SRV{Hdr: header("x._http._tcp.local.", dns.TypeSRV), Target: "."}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWire(t)
			good := w.add(nvme("good"))
			for range 3 {
				w.hear(append(c.records, good.records("", 0, 120, 4500)...)...)
				w.run(time.Second)
			}
			w.expect("beside it", "added good")
			want := []string{"eth0, IPv4: " + c.want}
			if c.want == "" {
				want = nil
			}
			if !slices.Equal(w.told, want) {
				t.Errorf("told %q\nwant %q", w.told, want)
			}
		})
	}
}

// TestUnanswered: an entry that leads nowhere is told of.
func TestUnanswered(t *testing.T) {
	w := newWire(t)
	w.hear(nvme("lost").ptr(4500))
	w.run(24 * time.Hour)
	want := []string{
		`eth0, IPv4: "lost._nvme-disc._tcp.local." is announced, but nobody answers the question for its SRV`,
		`eth0, IPv4: "lost._nvme-disc._tcp.local." is announced, but nobody answers the question for its TXT`,
	}
	if slices.Sort(w.told); !slices.Equal(w.told, want) {
		t.Errorf("told %q", w.told)
	}
	w.expect("nothing to report")
}

// TestFlood: a hostile host makes the link keep no more than its limits, and
// send no more than a packet a second.
func TestFlood(t *testing.T) {
	w := newWire(t)
	good := w.add(nvme("good"))
	w.announce(good)
	w.expect("good", "added good")
	random := rand.New(rand.NewPCG(5, 6))
	for i := range 4_000 {
		r := nvme(fmt.Sprintf("evil%d", random.IntN(5000)))
		r.port, r.ttl, r.pointer = uint16(random.IntN(65536)), uint32(random.IntN(3)), uint32(random.IntN(3))
		for range 40 {
			r.addrs = append(r.addrs, fmt.Sprintf("10.0.%d.%d", random.IntN(256), random.IntN(256)))
		}
		list := r.records("", 0, r.ttl, r.pointer)
		random.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		if random.IntN(2) == 0 {
			list = list[:1+random.IntN(len(list)-1)]
		}
		w.hear(list...)
		if i%20 == 0 {
			w.run(time.Second)
		}
		var records int
		for _, e := range w.entries {
			records += len(e.records)
			if len(e.records) > maxInstances {
				t.Fatal("too many records of one name")
			}
		}
		if len(w.entries) > 2+6*maxInstances || len(w.reported) > maxInstances || records > maxInstances*(2+2*maxPerName) {
			t.Fatalf("%d entries, %d records, %d services are kept", len(w.entries), records, len(w.reported))
		}
	}
	if seconds := w.now.Sub(begin).Seconds(); float64(len(w.queries)) > burst+1+seconds {
		t.Errorf("%d packets in %.0f s", len(w.queries), seconds)
	}
	if len(w.told) > maxTold+1 {
		t.Errorf("%d complaints", len(w.told))
	}
	w.lose = nil
	w.run(time.Hour)
	if w.only().Instance != "good" {
		t.Error("the good one has gone")
	}
}
