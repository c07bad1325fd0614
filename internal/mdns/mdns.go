// Package mdns finds the discovery services that are announced on the links of
// this host by mDNS and DNS-SD (RFC 6762, RFC 6763; NVM Express TP 8009).
package mdns

import (
	"context"
	"net/netip"
)

// Types are the service types of discovery controllers (TP 8009): the first
// one of NVMe/TCP and iWARP, the second one of RoCE.
var Types = []string{"_nvme-disc._tcp", "_nvme-disc._udp"}

// Family is the protocol that an announcement came by. The addresses in it may
// be of the other one.
type Family int

// Families of a Service.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

func (f Family) String() string {
	if f == IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// Service is an instance of a service as it was seen on one interface by one
// protocol. An appliance that is seen on two interfaces, or by both protocols,
// is several services, of which each may have other addresses.
type Service struct {
	Iface    string // name of the interface
	Index    int    // and its number
	Family   Family
	Type     string       // of Types
	Instance string       // as it is meant: nothing escaped, dots and UTF-8 as they are
	Host     string       // as Instance, with ".local"
	Addrs    []netip.Addr // those of the own Family first; zone when link-local
	Port     uint16
	TXT      []string // bytes as they came, most often "key=value"
}

// Key identifies a service, in all events of it.
type Key struct {
	Index          int
	Family         Family
	Type, Instance string
}

// Key returns what identifies the service.
func (s Service) Key() Key { return Key{s.Index, s.Family, s.Type, s.Instance} }

// Kind is what an event tells.
type Kind int

// Kinds of an Event.
const (
	// Added: the service is there and resolved: it has addresses, a port and TXT.
	// It may come again for a service that is known, after SourceLost, say.
	Added Kind = iota
	// Updated: something other than the Key changed. Service is what it is now.
	Updated
	// Removed: it said goodbye, it was not heard of any more although it was
	// asked, or its interface no longer exists. Service is what it was.
	Removed
	// SourceLost: nothing is known any more, which does not mean that what was
	// reported has gone. Service says of what: all of it when Index is 0, else what
	// was seen on that interface by that protocol (its cable was pulled, say). What
	// is there will be Added again when it is heard again. What is not has to be
	// forgotten by whoever keeps it, in a time of his own.
	SourceLost
	// SourceFound: somebody listens, from now on. What is there will be Added,
	// and what is not within a while has gone.
	SourceFound
)

func (k Kind) String() string { return [...]string{"added", "updated", "removed", "lost", "found"}[k] }

// Event is a change of what is announced.
type Event struct {
	Kind Kind
	Service
}

// Browser tells what is announced.
type Browser interface {
	// Browse reports what is there and each change, one at a time, until ctx ends or
	// the source is lost for good, which is the error. What was reported before is
	// unknown then: SourceLost is not reported for it, nor when ctx ends.
	// It does not wait for anything while it reports, so report should not either.
	Browse(ctx context.Context, report func(Event)) error
}
