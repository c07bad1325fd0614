package mdns

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// wire is a link of its own time with the responders that the test puts on it.
type wire struct {
	*testing.T
	*link
	now   time.Time
	hosts map[string]*responder // by instance
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
	w := &wire{T: t, now: begin, hosts: make(map[string]*responder), there: make(map[Key]Service)}
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
	w.hosts[r.instance] = r
	return r
}

func (r *responder) ptr(ttl uint32) dns.RR {
	_, end := dns.NextLabel(r.instance, 0)
	next, _ := dns.NextLabel(r.instance, 0)
	if end {
		panic("no type")
	}
	return &dns.PTR{Hdr: dns.RR_Header{Name: r.instance[next:], Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttl}, Ptr: r.instance}
}

const flush = dns.ClassINET | flagCacheFlush

// records are those of a question, or all of it.
func (r *responder) records(name string, qtype uint16, ttl, pointer uint32) (list []dns.RR) {
	for _, rr := range []dns.RR{
		r.ptr(pointer),
		&dns.SRV{Hdr: dns.RR_Header{Name: r.instance, Rrtype: dns.TypeSRV, Class: flush, Ttl: ttl}, Port: r.port, Target: r.host},
		&dns.TXT{Hdr: dns.RR_Header{Name: r.instance, Rrtype: dns.TypeTXT, Class: flush, Ttl: pointer}, Txt: r.txt},
	} {
		list = append(list, rr)
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
	w.link.receive(w.now, netip.MustParseAddr("192.0.2.99"), pack(w, records...))
	w.step()
}

// announce says everything, goodbye that it ends.
func (w *wire) announce(r *responder) { w.hear(r.records("", 0, r.ttl, r.pointer)...) }
func (w *wire) goodbye(r *responder)  { w.hear(r.records("", 0, 0, 0)...) }

func (w *wire) step() {
	w.Helper()
	packets, events := w.link.step(w.now)
	if w.link.next().Before(w.now) {
		w.Fatalf("at %v the next step is due at %v", w.now, w.link.next())
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
	for _, name := range slices.Sorted(maps.Keys(w.hosts)) {
		r := w.hosts[name]
		var list []dns.RR
		for _, q := range questions {
			if q.Qclass != dns.ClassINET {
				w.Errorf("%s is asked for by unicast", q.Name)
			}
			got := r.records(q.Name, q.Qtype, r.ttl, r.pointer)
			if len(got) == 0 {
				continue
			}
			if q.Qtype == dns.TypePTR {
				if known[strings.ToLower(r.instance)] >= r.pointer/2 {
					continue
				}
				if !r.split {
					got = r.records("", 0, r.ttl, r.pointer)
				}
			}
			list = append(list, got...)
		}
		if len(list) > 0 && !w.lost() {
			w.answers = append(w.answers, answer{w.now.Add(50 * time.Millisecond), pack(w, list...)})
		}
	}
}

// run lets time pass.
func (w *wire) run(d time.Duration) {
	w.Helper()
	until := w.now.Add(d)
	for n := 0; ; n++ {
		if n > 1_000_000 {
			w.Fatal("there is no end")
		}
		next := w.link.next()
		if len(w.answers) > 0 && !w.answers[0].at.After(next) {
			next = w.answers[0].at
		}
		if next.After(until) {
			break
		}
		w.now = next
		if len(w.answers) > 0 && !w.answers[0].at.After(w.now) {
			w.link.receive(w.now, netip.MustParseAddr("192.0.2.99"), w.answers[0].packet)
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

var _ = cmp.Compare[int]
