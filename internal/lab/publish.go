package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/nvme-stas/stas/internal/mdns"
)

// mDNS (RFC 6762).
const (
	hostTTL      = 120  // s, of records with the host or its address in them; section 10
	otherTTL     = 4500 // s
	cacheFlush   = 1 << 15
	announceWait = time.Second
	maxMessage   = 9000 // bytes, section 17
)

// voice tells of a service on one interface by one protocol.
type voice struct {
	*mdns.Socket
	records []dns.RR
}

// publish tells of a service until withdraw is called: of records, which are those
// of an interface.
func publish(interfaces []net.Interface, records func(net.Interface) ([]dns.RR, error)) (withdraw func(), err error) {
	var voices []voice
	var wrong []error
	for _, i := range interfaces {
		list, err := records(i)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		for _, family := range []mdns.Family{mdns.IPv4, mdns.IPv6} {
			socket, err := mdns.Open(i.Name, i.Index, family)
			if err != nil { // the interface lacks the family, most likely
				wrong = append(wrong, fmt.Errorf("%s, %s: %w", i.Name, family, err))
				continue
			}
			voices = append(voices, voice{socket, list})
		}
	}
	if len(voices) == 0 {
		return nil, errors.Join(wrong...)
	}
	var running sync.WaitGroup
	announce := func() {
		for _, v := range voices {
			v.say(v.records, nil)
		}
	}
	for _, v := range voices {
		running.Go(v.answer)
	}
	// Twice, since the first may be lost (section 8.3).
	announce()
	again := time.AfterFunc(announceWait, announce)
	return func() {
		again.Stop()
		for _, v := range voices {
			v.goodbye()
			v.Close()
		}
		running.Wait()
	}, nil
}

// answer answers questions until the socket is closed.
func (v voice) answer() {
	buf := make([]byte, maxMessage)
	for {
		n, err := v.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		var query dns.Msg
		if err != nil || query.Unpack(buf[:n]) != nil || query.Response {
			continue
		}
		var answer, rest []dns.RR
		for _, rr := range v.records {
			switch h := rr.Header(); {
			case !slices.ContainsFunc(query.Question, func(q dns.Question) bool {
				return strings.EqualFold(q.Name, h.Name) && (q.Qtype == h.Rrtype || q.Qtype == dns.TypeANY)
			}):
				rest = append(rest, rr)
			case !slices.ContainsFunc(query.Answer, func(known dns.RR) bool { // section 7.1
				return dns.IsDuplicate(known, rr) && known.Header().Ttl >= h.Ttl/2
			}):
				answer = append(answer, rr)
			}
		}
		if len(answer) > 0 {
			v.say(answer, rest)
		}
	}
}

// goodbye takes all back.
func (v voice) goodbye() {
	var list []dns.RR
	for _, rr := range v.records {
		rr = dns.Copy(rr)
		rr.Header().Ttl = 0
		list = append(list, rr)
	}
	v.say(list, nil)
}

func (v voice) say(answer, additional []dns.RR) {
	response := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Authoritative: true}, Compress: true, Answer: answer, Extra: additional}
	packet, err := response.Pack()
	if err != nil {
		return // a name is too long, which was checked
	}
	_ = v.Send(packet) // it may get lost anyway
}

// records are those of an announcement on an interface: its own addresses, if
// the listener has none of its own.
func (p announcement) records(i net.Interface) ([]dns.RR, error) {
	host, other := uint32(hostTTL), uint32(otherTTL)
	if p.TTL != 0 {
		host = uint32(time.Duration(p.TTL) / time.Second)
		other = host
	}
	header := func(name string, rrtype, class uint16, ttl uint32) dns.RR_Header {
		return dns.RR_Header{Name: name, Rrtype: rrtype, Class: class, Ttl: ttl}
	}
	const unique = dns.ClassINET | cacheFlush // nobody else has records of the name
	instance := label(p.Name) + "." + serviceType + "." + domain
	server := hostName(p.address) + "." + domain
	list := []dns.RR{
		&dns.PTR{Hdr: header(serviceType+"."+domain, dns.TypePTR, dns.ClassINET, other), Ptr: instance},
		&dns.SRV{Hdr: header(instance, dns.TypeSRV, unique, host), Port: p.address.Port(), Target: server},
		&dns.TXT{Hdr: header(instance, dns.TypeTXT, unique, other), Txt: []string{"p=tcp", "nqn=" + strings.ReplaceAll(p.nqn, `\`, `\\`)}},
	}
	if p.cdc {
		list = append(list, &dns.PTR{Hdr: header(cdcSubtype+"."+domain, dns.TypePTR, dns.ClassINET, other), Ptr: instance})
	}
	addresses := []netip.Addr{p.address.Addr()}
	if addresses[0].IsUnspecified() {
		var err error
		if addresses, err = addressesOf(i); err != nil {
			return nil, fmt.Errorf("%s: %w", i.Name, err)
		}
	}
	for _, a := range addresses {
		if a = a.Unmap(); a.Is4() {
			list = append(list, &dns.A{Hdr: header(server, dns.TypeA, unique, host), A: a.AsSlice()})
		} else {
			list = append(list, &dns.AAAA{Hdr: header(server, dns.TypeAAAA, unique, host), AAAA: a.AsSlice()})
		}
	}
	return list, nil
}

// addressesOf returns the addresses of an interface, without zones.
func addressesOf(i net.Interface) (list []netip.Addr, err error) {
	addresses, err := i.Addrs()
	for _, a := range addresses {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			list = append(list, prefix.Addr().Unmap())
		}
	}
	return list, err
}
