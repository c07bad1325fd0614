package mdns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/miekg/dns"
)

// Limits of what is taken from the network.
const (
	maxMessage = 9000           // bytes (RFC 6762, section 17)
	maxTXT     = 1300           // bytes (RFC 6763, section 6.2)
	maxTTL     = 24 * time.Hour // nobody says more than 75 minutes
	// maxQuery in bytes of a message fits into a packet of Ethernet with either
	// family's headers.
	maxQuery = 1500 - 40 - 8
)

// Bits of the words of a message (RFC 1035, section 4.1.1; RFC 6762, 18).
const (
	flagResponse   = 1 << 15
	maskOpcode     = 0xf << 11
	maskRcode      = 0xf
	flagCacheFlush = 1 << 15 // of a record's class
	headerSize     = 12
	recordSize     = 10 // type, class, TTL, length: between name and data
)

// rr is a record of a response. Names are as miekg/dns writes them: with a dot
// at the end, what is not printable and dots in labels escaped.
type rr struct {
	question
	flush bool
	ttl   time.Duration

	// data is what makes it another record than those of the same name and type.
	data   string
	target string // PTR, SRV; as it was written, while that in data is in lower case
	port   uint16
	txt    []string
	addr   netip.Addr
}

// question is what can be asked for, and what records answer it.
type question struct {
	name  string // in lower case
	qtype uint16
}

// problem is a record that makes no sense.
type problem struct {
	question
	err error
}

var errShort = errors.New("it is cut short")

// decode returns what a response says that may concern us. What makes no sense is
// left out, and told in problems. A query, or another kind of message, gives
// nothing, and what is cut short only what comes before.
func decode(packet []byte) (list []rr, problems []problem) {
	if len(packet) < headerSize {
		return nil, nil
	}
	flags := binary.BigEndian.Uint16(packet[2:])
	if flags&flagResponse == 0 || flags&(maskOpcode|maskRcode) != 0 { // sections 18.3 and 18.11
		return nil, nil
	}
	count := func(section int) int { return int(binary.BigEndian.Uint16(packet[4+2*section:])) }
	off := headerSize
	for range count(0) {
		_, next, err := dns.UnpackDomainName(packet, off)
		if err != nil || next+4 > len(packet) {
			return nil, nil
		}
		off = next + 4
	}
	// The sections mean the same to us: additional records save asking for them.
	for range count(1) + count(2) + count(3) {
		name, next, err := dns.UnpackDomainName(packet, off)
		if err != nil || next+recordSize > len(packet) {
			return list, problems
		}
		head := packet[next:]
		begin := next + recordSize
		off = begin + int(binary.BigEndian.Uint16(head[8:]))
		if off > len(packet) {
			return list, problems
		}
		class := binary.BigEndian.Uint16(head[2:])
		if class&^flagCacheFlush != dns.ClassINET {
			continue
		}
		r := rr{
			question: question{dns.CanonicalName(name), binary.BigEndian.Uint16(head)},
			flush:    class&flagCacheFlush != 0,
			ttl:      min(time.Duration(binary.BigEndian.Uint32(head[4:]))*time.Second, maxTTL),
		}
		ours, err := r.decode(packet[:off], begin)
		switch {
		case err != nil:
			problems = append(problems, problem{r.question, err})
		case ours:
			list = append(list, r)
		}
	}
	return list, problems
}

// decode fills in the data, which begins there and is the end of the packet. It
// reports whether the record is of a type that is used.
func (r *rr) decode(packet []byte, begin int) (ours bool, err error) {
	data := packet[begin:]
	r.data = string(data)
	switch r.qtype {
	case dns.TypePTR:
		err = r.decodeTarget(packet, begin)
		r.data = dns.CanonicalName(r.target)
	case dns.TypeSRV: // priority, weight, port, target
		if len(data) < 6 {
			return false, errShort
		}
		r.port = binary.BigEndian.Uint16(data[4:])
		err = r.decodeTarget(packet, begin+6)
		r.data = string(data[:6]) + dns.CanonicalName(r.target)
		if err == nil && r.ttl != 0 && (r.port == 0 || r.target == ".") {
			err = errors.New("it names no port or no host")
		}
	case dns.TypeTXT:
		if len(data) > maxTXT {
			return false, fmt.Errorf("it has %d bytes, more than the %d that are read", len(data), maxTXT)
		}
		for len(data) > 0 {
			end := 1 + int(data[0])
			if end > len(data) {
				return false, errShort
			}
			if end > 1 { // an empty one stands for none (RFC 6763, section 6.1)
				r.txt = append(r.txt, string(data[1:end]))
			}
			data = data[end:]
		}
	case dns.TypeA, dns.TypeAAAA:
		var ok bool
		if r.addr, ok = netip.AddrFromSlice(data); !ok || r.addr.Is4() != (r.qtype == dns.TypeA) {
			return false, fmt.Errorf("an address of %d bytes", len(data))
		}
		if r.addr = r.addr.Unmap(); !r.addr.IsGlobalUnicast() && !r.addr.IsLinkLocalUnicast() {
			err = fmt.Errorf("%s is no address that one can connect to over a link", r.addr)
		}
	default:
		return false, nil
	}
	return true, err
}

func (r *rr) decodeTarget(packet []byte, off int) error {
	name, end, err := dns.UnpackDomainName(packet, off)
	if err != nil || end != len(packet) {
		return errors.New("the name in it makes no sense")
	}
	r.target = name
	return nil
}

// instance returns the first label of the name of an instance, as it is meant,
// if the rest is the name of a service type.
func instance(full, typeName string) (string, error) {
	next, end := dns.NextLabel(full, 0)
	if end || !strings.EqualFold(full[next:], typeName) {
		return "", errors.New("it names no instance of the service")
	}
	label := unescape(full[:next-1])
	if !utf8.ValidString(label) || strings.ContainsFunc(label, unicode.IsControl) { // RFC 6763, section 4.1.1
		return "", fmt.Errorf("the name %q is no text", label)
	}
	return label, nil
}

// unescape returns the bytes of a name as miekg/dns writes it: \DDD is a byte,
// \X is X.
func unescape(name string) string {
	if !strings.Contains(name, `\`) {
		return name
	}
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		c := name[i]
		switch {
		case c != '\\' || i+1 == len(name):
		case i+3 < len(name) && isDigit(name[i+1]) && isDigit(name[i+2]) && isDigit(name[i+3]):
			c = (name[i+1]-'0')*100 + (name[i+2]-'0')*10 + name[i+3] - '0'
			i += 3
		default:
			i++
			c = name[i]
		}
		b.WriteByte(c)
	}
	return b.String()
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// encode makes queries that ask for browse, telling what is known of the answers
// (RFC 6762, section 7.1), and for others, in as few packets as they fit in.
func encode(browse []question, known []dns.RR, others []question) (packets [][]byte) {
	var m *dns.Msg
	size := 0 // of m, at most: names are compressed, which takes time to count
	begin := func() { m, size = &dns.Msg{Compress: true}, headerSize }
	flush := func() {
		if packet, err := m.Pack(); err == nil { // names came from packets
			packets = append(packets, packet)
		}
		begin()
	}
	full := func(added int) bool {
		if size += added; size <= maxQuery {
			return false
		}
		size = m.Len()
		return size > maxQuery && len(m.Question)+len(m.Answer) > 1
	}
	ask := func(q question) (added int) {
		m.Question = append(m.Question, dns.Question{Name: q.name, Qtype: q.qtype, Qclass: dns.ClassINET})
		return len(q.name) + 1 + 4
	}
	begin()
	for _, q := range browse {
		size += ask(q)
	}
	for _, a := range known {
		if m.Answer = append(m.Answer, a); full(dns.Len(a)) {
			m.Answer = m.Answer[:len(m.Answer)-1]
			m.Truncated = true // more follow (section 7.2)
			flush()
			m.Answer = append(m.Answer, a)
			size += dns.Len(a)
		}
	}
	if len(packets) > 0 { // answers belong to the questions before them
		flush()
	}
	for _, q := range others {
		if full(ask(q)) {
			m.Question = m.Question[:len(m.Question)-1]
			flush()
			size += ask(q)
		}
	}
	if len(m.Question)+len(m.Answer) > 0 {
		flush()
	}
	return packets
}
