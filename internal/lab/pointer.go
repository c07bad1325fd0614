package lab

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// mDNS (RFC 6762).
const (
	mdnsPort     = 5353
	pointerTTL   = 4500 // s, section 10
	hopLimit     = 255  // section 11
	announceWait = time.Second
	maxMessage   = 9000 // bytes, section 17
)

// pointer is one PTR record on the network: that of a service's sub-type, which
// zeroconf announces in no version that answers questions for it.
type pointer struct {
	owner, to string
	sockets   []pointerSocket
	again     *time.Timer
	running   sync.WaitGroup
}

// pointerSocket is bound to one interface and one family.
type pointerSocket struct {
	*net.UDPConn
	group *net.UDPAddr
}

// publishPointer answers questions for owner by to, until it is withdrawn.
func publishPointer(interfaces []net.Interface, owner, to string) (*pointer, error) {
	p := &pointer{owner: owner, to: to}
	var wrong []error
	for _, i := range interfaces {
		for network, group := range map[string]net.IP{"udp4": net.IPv4(224, 0, 0, 251), "udp6": net.ParseIP("ff02::fb")} {
			socket, err := joinGroup(network, i, group)
			if err != nil { // the interface lacks the family, most likely
				wrong = append(wrong, err)
				continue
			}
			p.sockets = append(p.sockets, socket)
		}
	}
	if len(p.sockets) == 0 {
		return nil, fmt.Errorf("%s: %w", owner, errors.Join(wrong...))
	}
	for _, s := range p.sockets {
		p.running.Go(func() { p.answer(s) })
	}
	// Twice, since the first may be lost (section 8.3).
	p.send(pointerTTL, p.sockets...)
	p.again = time.AfterFunc(announceWait, func() { p.send(pointerTTL, p.sockets...) })
	return p, nil
}

func joinGroup(network string, i net.Interface, group net.IP) (pointerSocket, error) {
	address := &net.UDPAddr{IP: group, Port: mdnsPort}
	conn, err := net.ListenMulticastUDP(network, &i, address)
	if err != nil {
		return pointerSocket{}, err
	}
	// Others on this machine listen, too.
	if network == "udp4" {
		p := ipv4.NewPacketConn(conn)
		err = errors.Join(p.SetMulticastLoopback(true), p.SetMulticastTTL(hopLimit))
	} else {
		p := ipv6.NewPacketConn(conn)
		err = errors.Join(p.SetMulticastLoopback(true), p.SetMulticastHopLimit(hopLimit))
		address.Zone = i.Name
	}
	if err != nil {
		conn.Close()
		return pointerSocket{}, err
	}
	return pointerSocket{conn, address}, nil
}

// answer answers questions until the socket is closed.
func (p *pointer) answer(s pointerSocket) {
	buf := make([]byte, maxMessage)
	for {
		n, err := s.Read(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		var query dns.Msg
		if err != nil || query.Unpack(buf[:n]) != nil || query.Response {
			continue
		}
		for _, q := range query.Question {
			if strings.EqualFold(q.Name, p.owner) && (q.Qtype == dns.TypePTR || q.Qtype == dns.TypeANY) {
				p.send(pointerTTL, s)
			}
		}
	}
}

// send tells of the record, for ttl seconds.
func (p *pointer) send(ttl uint32, sockets ...pointerSocket) {
	response := &dns.Msg{MsgHdr: dns.MsgHdr{Response: true, Authoritative: true}, Answer: []dns.RR{&dns.PTR{
		Hdr: dns.RR_Header{Name: p.owner, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttl},
		Ptr: p.to,
	}}}
	packet, err := response.Pack()
	if err != nil {
		return // a name is too long; the service itself was refused for it
	}
	for _, s := range sockets {
		_, _ = s.WriteTo(packet, s.group) // a packet may get lost anyway
	}
}

// withdraw says goodbye.
func (p *pointer) withdraw() {
	p.again.Stop()
	p.send(0, p.sockets...)
	for _, s := range p.sockets {
		s.Close()
	}
	p.running.Wait()
}
