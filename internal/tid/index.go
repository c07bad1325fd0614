package tid

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// Kind tells what a controller serves.
type Kind uint8

// The kinds of controller. An Unknown one is still being connected, or is of
// no kind that anybody looks for; it matches no candidate.
const (
	Unknown Kind = iota
	IO
	Discovery
)

func (k Kind) String() string {
	return [...]string{"unknown", "io", "discovery"}[k]
}

// Existing is a controller that the kernel has, as sysfs shows it. Addresses
// are in the spelling of whoever made the connection.
type Existing struct {
	Transport  string
	TrAddr     string
	TrSvcID    string
	HostTrAddr string
	HostIface  string
	// SrcAddr is the address that the connection really comes from. Kernels
	// before 6.1 do not tell, and none does while it is reconnecting.
	SrcAddr   string
	SubsysNQN string
	HostNQN   string
	Kind      Kind
	// Leaving means that the kernel is taking the controller away.
	Leaving bool
}

// Index holds the controllers of the kernel so that the ones a candidate can
// use are found without looking at all of them. The zero value is empty and
// ready for use. It is not safe for concurrent use.
type Index struct {
	byName  map[string]*entry
	buckets map[bucketKey][]*entry // each in the order of controller numbers
}

// bucketKey has all that must be equal. What is left to be compared inside a
// bucket is the host's side, where "any" and "unknown" have to be understood.
type bucketKey struct {
	kind      Kind
	transport string
	traddr    string
	trsvcid   string
	hostNQN   string
	subsysNQN string
	anyNQN    bool
}

type entry struct {
	name   string
	number int
	tid    TID
	src    netip.Addr // invalid if not known
	former bool       // src is from before the connection broke
	host   netip.Addr // HostTrAddr, invalid if not given
	keys   []bucketKey
}

// Put adds a controller, or replaces what was known of it. Only the source
// address of a connection is remembered while it reconnects.
func (x *Index) Put(name string, c Existing) {
	before := x.byName[name]
	x.Delete(name)
	if c.Leaving || c.Kind == Unknown {
		return // nobody may use it
	}
	e := &entry{name: name, number: number(name), tid: New(TID{
		Transport:  c.Transport,
		TrAddr:     c.TrAddr,
		TrSvcID:    c.TrSvcID,
		SubsysNQN:  c.SubsysNQN,
		HostTrAddr: c.HostTrAddr,
		HostIface:  c.HostIface,
		HostNQN:    c.HostNQN,
	})}
	e.src = sourceOf(c)
	if !e.src.IsValid() && before != nil && before.tid == e.tid {
		e.src, e.former = before.src, true
	}
	e.host, _ = parseIP(c.HostTrAddr)
	key, ok := keyOf(e.tid, c.Kind)
	if !ok {
		return
	}
	e.keys = []bucketKey{key}
	if c.Kind == Discovery {
		// Connected by the well-known NQN, a discovery controller may turn out
		// to have a name of its own.
		key.subsysNQN, key.anyNQN = "", true
		e.keys = append(e.keys, key)
	}
	if x.byName == nil {
		x.byName = make(map[string]*entry)
		x.buckets = make(map[bucketKey][]*entry)
	}
	x.byName[name] = e
	for _, k := range e.keys {
		i, _ := slices.BinarySearchFunc(x.buckets[k], e, byNumber)
		x.buckets[k] = slices.Insert(x.buckets[k], i, e)
	}
}

// Delete forgets a controller; one that is not known is no error.
func (x *Index) Delete(name string) {
	e, ok := x.byName[name]
	if !ok {
		return
	}
	delete(x.byName, name)
	for _, k := range e.keys {
		rest := slices.DeleteFunc(x.buckets[k], func(o *entry) bool { return o == e })
		if len(rest) == 0 {
			delete(x.buckets, k)
		} else {
			x.buckets[k] = rest
		}
	}
}

// Find returns the controller that serves the candidate: of several, one that
// was connected from the host's side just as the candidate is, since others may
// be another candidate's; and always the one with the lowest number.
func (x *Index) Find(candidate TID, kind Kind, ifaces Ifaces) (name string, ok bool) {
	for n := range x.Matches(candidate, kind, ifaces) {
		if t := x.byName[n].tid; t.HostTrAddr == candidate.HostTrAddr && t.HostIface == candidate.HostIface {
			return n, true
		}
		if !ok {
			name, ok = n, true
		}
	}
	return name, ok
}

// Serves reports whether this controller is one that serves the candidate.
func (x *Index) Serves(name string, candidate TID, kind Kind, ifaces Ifaces) bool {
	for n := range x.Matches(candidate, kind, ifaces) {
		if n == name {
			return true
		}
	}
	return false
}

// Matches yields all controllers of the kind that serve the candidate, lowest
// number first. The candidate has to be in the spelling of [New].
func (x *Index) Matches(candidate TID, kind Kind, ifaces Ifaces) iter.Seq[string] {
	return func(yield func(string) bool) {
		key, ok := keyOf(candidate, kind)
		if !ok {
			return
		}
		if kind == Discovery && candidate.SubsysNQN == nvme.WellKnownDiscoveryNQN {
			key.subsysNQN, key.anyNQN = "", true
		}
		for _, e := range x.buckets[key] {
			if e.fromHostSide(candidate, ifaces) && !yield(e.name) {
				return
			}
		}
	}
}

// keyOf reports ok=false for what can match nothing: a text in place of an IP
// address is not equal to any address, not even to the same text.
func keyOf(t TID, kind Kind) (k bucketKey, ok bool) {
	k = bucketKey{
		kind:      kind,
		transport: t.Transport,
		traddr:    t.TrAddr,
		trsvcid:   t.TrSvcID,
		hostNQN:   t.HostNQN,
		subsysNQN: t.SubsysNQN,
	}
	switch t.Transport {
	case TCP, RDMA:
		_, ok = parseIP(t.TrAddr)
	default:
		k.traddr = strings.ToLower(t.TrAddr)
		ok = true
	}
	return k, ok
}

// fromHostSide reports whether the connection comes from where the candidate
// wants to come from.
func (e *entry) fromHostSide(c TID, ifaces Ifaces) bool {
	switch c.Transport {
	case TCP:
		// The kernel makes no second connection that is asked for in the same
		// words (EALREADY), wherever the packets of the first one leave from.
		same := c.HostTrAddr == e.tid.HostTrAddr && c.HostIface == e.tid.HostIface
		return same || e.fromAddr(c, ifaces) && e.fromIface(c, ifaces)
	case RDMA:
		if c.HostTrAddr == "" {
			return true
		}
		want, ok := parseIP(c.HostTrAddr)
		return ok && e.host.IsValid() && sameAddr(want, e.host)
	case FC:
		return c.HostTrAddr == e.tid.HostTrAddr
	}
	return true
}

// fromAddr decides on the candidate's host-traddr (tcp). The address that the
// connection really has is the best witness, then the one it asked for, then
// the one its interface gives to those who ask for none. Without any of them
// the connection is taken for a match: a needless second connection to the
// same storage would be worse.
func (e *entry) fromAddr(c TID, ifaces Ifaces) bool {
	if c.HostTrAddr == "" {
		return true
	}
	want, ok := parseIP(c.HostTrAddr)
	if !ok {
		return false
	}
	src := e.source(ifaces)
	switch {
	case src.IsValid():
		return sameAddr(want, src)
	case e.host.IsValid():
		return sameAddr(want, e.host)
	case e.tid.HostIface != "":
		primary, known := ifaces.primaryOf(e.tid.HostIface, want)
		return !known || sameAddr(want, primary)
	}
	return true
}

// fromIface decides on the candidate's host-iface (tcp), with the same
// witnesses as fromAddr.
func (e *entry) fromIface(c TID, ifaces Ifaces) bool {
	src := e.source(ifaces)
	switch {
	case c.HostIface == "":
		return true
	case src.IsValid():
		return ifaces.Owner(src) == c.HostIface
	case e.tid.HostIface != "":
		return e.tid.HostIface == c.HostIface
	case e.host.IsValid():
		return ifaces.Owner(e.host) == c.HostIface
	}
	return true
}

// source is the address that the connection comes from. While it reconnects,
// that is the one it came from before, if the host still has it: a candidate
// for another path must not take a connection over just because it is broken.
func (e *entry) source(ifaces Ifaces) netip.Addr {
	if e.former && ifaces.Owner(e.src) == "" {
		return netip.Addr{}
	}
	return e.src
}

// sourceOf is the address that the connection really comes from. The kernel
// prints it without its zone; a link-local one needs it, since several
// interfaces may have the same, and the far end or the interface asked for
// tell which it is.
func sourceOf(c Existing) netip.Addr {
	src, _ := parseIP(c.SrcAddr)
	if src.Is6() && src.IsLinkLocalUnicast() && src.Zone() == "" {
		far, _ := parseIP(c.TrAddr)
		src = src.WithZone(cmp.Or(far.Zone(), c.HostIface))
	}
	return src
}

// sameAddr compares addresses of the host. One that has a zone and one that
// has none may be the same: not everybody cares to name it.
func sameAddr(a, b netip.Addr) bool {
	return a.WithZone("") == b.WithZone("") &&
		(a.Zone() == "" || b.Zone() == "" || a.Zone() == b.Zone())
}

// number is N of "nvmeN". A name without one comes last.
func number(name string) int {
	n, err := strconv.Atoi(strings.TrimPrefix(name, "nvme"))
	if err != nil {
		return int(^uint(0) >> 1)
	}
	return n
}

func byNumber(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.name, b.name))
}
