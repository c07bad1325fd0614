package mdns

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/miekg/dns"
)

// Times of RFC 6762.
const (
	grace       = time.Second // from a goodbye, or a cache flush, to the end (10.1, 10.2)
	firstQuery  = time.Second // from the first query to the second, then twice that (5.2)
	lastQuery   = time.Hour   // and at most that (5.2)
	delayMin    = 20 * time.Millisecond
	delayMax    = 120 * time.Millisecond // before a first query (5.2)
	refreshFrom = 0.80                   // of the TTL: the first refresh (5.2)
	refreshStep = 0.05                   // and from one to the next
	refreshes   = 4
	refreshVary = 0.02 // and up to that later
)

// Limits of what a link keeps, since anyone on the wire can make it keep things.
const (
	maxInstances = 512 // of all types
	maxPerName   = 32  // records of one name and type
	maxTold      = 64  // different complaints

	// Packets in a burst, and from then on one a second: what 512 instances take
	// to be resolved, and far more than the refreshes of 200 take.
	burst       = 60
	perPacket   = time.Second
	unansweredN = 4 // attempts after which it is told that nothing answers
)

// link is what is known of the announcements on one interface by one protocol,
// and the schedule of the questions. It does no I/O: receive takes the packets,
// step gives them and the events, next says when step is due.
type link struct {
	iface  string
	index  int
	family Family
	tell   func(text string) // complaints, each once
	random *rand.Rand

	entries  map[question]*entry
	reported map[string]reported // by the name of the instance, in lower case
	told     map[string]bool

	browse   time.Time     // when all types are asked for
	interval time.Duration // from then to the time after
	vary     float64       // of the refreshes of what comes now, see refreshVary
	paid     time.Time     // until when the packets that were sent are paid for
	due      time.Time     // when step is due
}

type reported struct {
	Service
	seen bool // in this step
}

// entry is all that is known of one name and type.
type entry struct {
	asked   string // the name as it was written
	records []*record
	wanted  bool // something leads here

	// While it is not known: when it is asked for, 0 if it was not yet seen to be
	// missing; from then to the time after; how often it was asked for.
	ask      time.Time
	interval time.Duration
	attempts int
}

type record struct {
	rr
	since   time.Time // when it was first heard
	heard   time.Time // and last
	until   time.Time
	dying   bool      // after a goodbye or a flush
	refresh time.Time // when it is asked for again; 0: no more
	asked   int       // how often it was
}

func newLink(now time.Time, iface string, index int, family Family, random *rand.Rand, tell func(string)) *link {
	l := &link{
		iface: iface, index: index, family: family, tell: tell, random: random,
		entries: make(map[question]*entry), reported: make(map[string]reported), told: make(map[string]bool),
		interval: firstQuery,
	}
	for _, t := range Types {
		l.entries[pointers(t)] = &entry{wanted: true}
	}
	l.browse = now.Add(l.delay())
	l.due = l.browse
	l.vary = l.random.Float64() * refreshVary
	return l
}

// pointers asks for the instances of a service type.
func pointers(serviceType string) question {
	return question{serviceType + ".local.", dns.TypePTR}
}

func (l *link) delay() time.Duration {
	return delayMin + time.Duration(l.random.Int64N(int64(delayMax-delayMin)))
}

// complain tells of a mistake of somebody on the wire, once.
func (l *link) complain(format string, args ...any) {
	text := fmt.Sprintf("%s, %s: ", l.iface, l.family) + fmt.Sprintf(format, args...)
	if l.told[text] || len(l.told) > maxTold {
		return
	}
	l.told[text] = true
	if len(l.told) > maxTold {
		text = fmt.Sprintf("%s, %s: no more mistakes are reported", l.iface, l.family)
	}
	l.tell(text)
}

// receive takes a packet that was sent from the port of mDNS to its group, which
// proves it to be from this link (section 11). step is due then.
func (l *link) receive(now time.Time, from netip.Addr, packet []byte) {
	list, problems := decode(packet)
	// What leads to other records first, in whatever order they came.
	for _, stage := range [][]uint16{{dns.TypePTR}, {dns.TypeSRV}, {dns.TypeTXT, dns.TypeA, dns.TypeAAAA}} {
		for _, r := range list {
			if slices.Contains(stage, r.qtype) {
				l.put(now, from, r)
			}
		}
	}
	for _, p := range problems {
		if l.entries[p.question] != nil {
			l.complain("%s says of %q what makes no sense (%s): %v", from, unescape(p.name), dns.Type(p.qtype), p.err)
		}
	}
}

// put takes a record, if something leads to it.
func (l *link) put(now time.Time, from netip.Addr, r rr) {
	e := l.entries[r.question]
	if e == nil {
		return
	}
	l.due = now
	at := slices.IndexFunc(e.records, func(old *record) bool { return old.data == r.data })
	if r.ttl == 0 {
		if at >= 0 {
			e.records[at].end(now)
		}
		return
	}
	// Others may share a name that is a service's, and nobody any other one.
	if r.flush && r.qtype != dns.TypePTR {
		for _, old := range e.records {
			if now.Sub(old.heard) > grace && old.data != r.data {
				old.end(now)
			}
		}
	}
	if at < 0 {
		if !l.admit(from, e, r) {
			return
		}
		e.records = append(e.records, &record{since: now})
		at = len(e.records) - 1
	}
	known := e.records[at]
	*known = record{rr: r, since: known.since, heard: now, until: now.Add(r.ttl)}
	known.schedule(now, l.vary)
	l.follow(r)
}

// admit reports whether there is room for a new record, and it makes sense.
func (l *link) admit(from netip.Addr, e *entry, r rr) bool {
	if r.qtype != dns.TypePTR {
		return len(e.records) < maxPerName
	}
	if _, err := instance(r.target, r.name); err != nil {
		l.complain("%s announces %q as one of %s: %v", from, unescape(r.target), r.name, err)
		return false
	}
	n := 0
	for _, t := range Types {
		n += len(l.entries[pointers(t)].records)
	}
	if n >= maxInstances {
		l.complain("more than %d services are announced: the others are ignored", maxInstances)
		return false
	}
	return true
}

// follow makes room for what a record leads to.
func (l *link) follow(r rr) {
	var next []uint16
	switch r.qtype {
	case dns.TypePTR:
		next = []uint16{dns.TypeSRV, dns.TypeTXT}
	case dns.TypeSRV:
		next = []uint16{dns.TypeA, dns.TypeAAAA}
	}
	for _, t := range next {
		q := question{dns.CanonicalName(r.target), t}
		if l.entries[q] == nil {
			l.entries[q] = &entry{asked: r.target}
		}
		l.entries[q].wanted = true
	}
}

func (r *record) end(now time.Time) {
	if end := now.Add(grace); end.Before(r.until) {
		r.until = end
	}
	r.dying, r.refresh = true, time.Time{}
}

// schedule sets the time of the next refresh.
func (r *record) schedule(now time.Time, vary float64) {
	r.refresh = time.Time{}
	if r.asked == refreshes {
		return
	}
	part := refreshFrom + refreshStep*float64(r.asked) + vary
	r.refresh = r.heard.Add(time.Duration(part * float64(r.ttl)))
	// Not at once again when the host was asleep, or the TTL is that of a joker.
	if r.asked > 0 && r.refresh.Before(now.Add(time.Second)) {
		r.refresh = now.Add(time.Second)
	}
}

// best is the record of an entry that is true now: rather one that does not end,
// then the one that was heard of last for the first time, so that a new one
// replaces an old one at once and two that are both repeated do not alternate.
func (e *entry) best() *record {
	if e == nil || len(e.records) == 0 {
		return nil
	}
	return slices.MinFunc(e.records, func(a, b *record) int {
		switch {
		case a.dying != b.dying && b.dying:
			return -1
		case a.dying != b.dying:
			return 1
		}
		return cmp.Or(b.since.Compare(a.since), cmp.Compare(a.data, b.data))
	})
}

// next says when step has to be called. It is never zero.
func (l *link) next() time.Time { return l.due }

// step gives the packets that are to be sent now, and what has changed.
func (l *link) step(now time.Time) (packets [][]byte, events []Event) {
	l.expire(now)
	l.sweep()
	events = l.compare()
	l.missing(now)
	packets = l.query(now)
	l.due = l.earliest()
	return packets, events
}

func (l *link) expire(now time.Time) {
	for _, e := range l.entries {
		e.records = slices.DeleteFunc(e.records, func(r *record) bool { return !r.until.After(now) })
	}
}

// sweep forgets what nothing leads to any more.
func (l *link) sweep() {
	for q, e := range l.entries {
		e.wanted = q.qtype == dns.TypePTR
	}
	for _, t := range Types {
		for _, p := range l.entries[pointers(t)].records {
			l.follow(p.rr)
			if srv := l.entries[question{p.data, dns.TypeSRV}].best(); srv != nil {
				l.follow(srv.rr)
			}
		}
	}
	maps.DeleteFunc(l.entries, func(_ question, e *entry) bool { return !e.wanted })
}

// compare returns what has changed since it was reported.
func (l *link) compare() (events []Event) {
	for key, r := range l.reported {
		r.seen = false
		l.reported[key] = r
	}
	for _, t := range Types {
		for _, p := range l.entries[pointers(t)].records {
			old, known := l.reported[p.data]
			s, ok := l.resolve(t, p)
			switch {
			case !ok && !known:
				continue
			case !ok: // what leads to it is there, and its address was not heard for long
				s = old.Service
			case !known:
				events = append(events, Event{Added, s})
			case !reflect.DeepEqual(s, old.Service):
				events = append(events, Event{Updated, s})
			}
			l.reported[p.data] = reported{s, true}
		}
	}
	maps.DeleteFunc(l.reported, func(_ string, r reported) bool {
		if !r.seen {
			events = append(events, Event{Removed, r.Service})
		}
		return !r.seen
	})
	slices.SortFunc(events, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.Type, b.Type))
	})
	return events
}

// resolve puts a service together, if all of it is known.
func (l *link) resolve(serviceType string, p *record) (Service, bool) {
	srv := l.entries[question{p.data, dns.TypeSRV}].best()
	txt := l.entries[question{p.data, dns.TypeTXT}].best()
	if srv == nil || txt == nil {
		return Service{}, false
	}
	s := Service{
		Iface: l.iface, Index: l.index, Family: l.family,
		Type: serviceType, Port: srv.port, TXT: txt.txt,
		Host: unescape(srv.target[:len(srv.target)-1]),
	}
	if known, ok := l.reported[p.data]; ok { // and not in other letters, which would be another Key
		s.Instance = known.Instance
	} else {
		s.Instance, _ = instance(p.target, p.name) // checked when it came
	}
	for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
		e := l.entries[question{dns.CanonicalName(srv.target), t}]
		if e == nil {
			continue
		}
		lives := slices.ContainsFunc(e.records, func(r *record) bool { return !r.dying })
		for _, r := range e.records {
			switch {
			case r.dying && lives: // it was replaced
			case r.addr.Is6() && r.addr.IsLinkLocalUnicast():
				s.Addrs = append(s.Addrs, r.addr.WithZone(l.iface))
			default:
				s.Addrs = append(s.Addrs, r.addr)
			}
		}
	}
	slices.SortFunc(s.Addrs, func(a, b netip.Addr) int {
		if a.Is4() != b.Is4() && a.Is4() == (l.family == IPv4) {
			return -1
		} else if a.Is4() != b.Is4() {
			return 1
		}
		return a.Compare(b)
	})
	s.Addrs = slices.Compact(s.Addrs)
	return s, len(s.Addrs) > 0
}

// addressTypes returns the type of the addresses of the link's protocol, and that
// of the others.
func (l *link) addressTypes() (own, other uint16) {
	if l.family == IPv6 {
		return dns.TypeAAAA, dns.TypeA
	}
	return dns.TypeA, dns.TypeAAAA
}

// missing schedules questions for what is not known, and unschedules them for
// what is.
func (l *link) missing(now time.Time) {
	own, other := l.addressTypes()
	for q, e := range l.entries {
		if q.qtype == dns.TypePTR {
			continue
		}
		missing := len(e.records) == 0
		begin := now.Add(l.delay())
		switch q.qtype {
		case own: // any address will do
			missing = missing && l.entries[question{q.name, other}].best() == nil
		case other:
			// There is no answer to say that there is none: it is asked for when a question
			// for the own kind was of no avail.
			first := l.entries[question{q.name, own}]
			missing = missing && first != nil && len(first.records) == 0 && first.attempts > 0
			if missing {
				begin = first.ask
			}
		}
		switch {
		case !missing:
			e.ask, e.attempts = time.Time{}, 0
		case e.ask.IsZero():
			e.ask, e.interval = begin, firstQuery
		}
	}
}

// query returns the packets of the questions that are due.
func (l *link) query(now time.Time) [][]byte {
	if !l.anyDue(now) || l.paid.After(now.Add(burst*perPacket)) {
		return nil
	}
	// All answers to one question are refreshed at one time, by one packet.
	l.vary = l.random.Float64() * refreshVary
	var browse, others []question
	var known []dns.RR
	if !l.browse.After(now) {
		for _, t := range Types {
			browse = append(browse, pointers(t))
		}
		l.browse = now.Add(l.interval)
		l.interval = min(2*l.interval, lastQuery)
	}
	for q, e := range l.entries {
		refresh := false
		for _, r := range e.records {
			// What is due soon is asked for in the same packet.
			soon := min(time.Second, r.ttl/100)
			if !r.refresh.IsZero() && !r.refresh.After(now.Add(soon)) {
				refresh = true
				r.asked++
				r.schedule(now, l.vary)
			}
		}
		ask := false
		if !e.ask.IsZero() && (!e.ask.After(now) || e.attempts == 0) {
			ask = true
			e.attempts++
			e.ask = now.Add(e.interval)
			e.interval = min(2*e.interval, lastQuery)
			if _, other := l.addressTypes(); e.attempts == unansweredN && q.qtype != other {
				l.complain("%q is announced, but nobody answers the question for its %s", unescape(e.asked), dns.Type(q.qtype))
			}
		}
		switch {
		case !refresh && !ask:
		case q.qtype != dns.TypePTR:
			others = append(others, q)
		case !slices.Contains(browse, q):
			browse = append(browse, q)
		}
	}
	for _, q := range browse {
		for _, r := range l.entries[q].records {
			// Half of the TTL has to be left (section 7.1).
			if left := r.until.Sub(now); left > r.ttl/2 {
				known = append(known, &dns.PTR{
					Hdr: dns.RR_Header{Name: q.name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: uint32(left / time.Second)},
					Ptr: r.target,
				})
			}
		}
	}
	slices.SortFunc(others, func(a, b question) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.qtype, b.qtype))
	})
	packets := encode(browse, known, others)
	if l.paid.Before(now) {
		l.paid = now
	}
	l.paid = l.paid.Add(time.Duration(len(packets)) * perPacket)
	return packets
}

func (l *link) anyDue(now time.Time) bool { return !l.questionDue().After(now) }

// questionDue is when the next question is to be asked.
func (l *link) questionDue() time.Time {
	first := l.browse
	for _, e := range l.entries {
		if !e.ask.IsZero() && e.ask.Before(first) {
			first = e.ask
		}
		for _, r := range e.records {
			if !r.refresh.IsZero() && r.refresh.Before(first) {
				first = r.refresh
			}
		}
	}
	return first
}

// earliest is when the next thing happens.
func (l *link) earliest() time.Time {
	first := l.questionDue()
	// More than the burst has to be waited for.
	if may := l.paid.Add(-burst * perPacket); may.After(first) {
		first = may
	}
	for _, e := range l.entries {
		for _, r := range e.records {
			if r.until.Before(first) {
				first = r.until
			}
		}
	}
	return first
}
