// Package tid says what identifies a controller (its TID), and finds the
// controllers of the kernel that answer to one. It is pure: it knows no
// configuration, no host and no kernel beyond what it is given.
package tid

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// The transports a TID can name.
const (
	TCP  = "tcp"
	RDMA = "rdma"
	FC   = "fc"
	Loop = "loop"
)

// TID identifies a controller by where it is, what it is called, and from
// where and as whom the host talks to it. It is a plain value: two TIDs that
// [New] made mean the same controller exactly when they are ==.
type TID struct {
	Transport  string `json:"transport"`
	TrAddr     string `json:"traddr"`
	TrSvcID    string `json:"trsvcid"` // port; empty unless tcp or rdma
	SubsysNQN  string `json:"subsysnqn"`
	HostTrAddr string `json:"host-traddr"` // source address; empty: the host chooses
	HostIface  string `json:"host-iface"`  // source interface; empty: the host chooses
	HostNQN    string `json:"host-nqn"`
}

// New brings the fields into their one spelling: addresses as netip prints
// them, IPv4 never dressed up as IPv6, zones only where they mean something,
// Fibre Channel names as the kernel announces them, ports without leading zeros
// and filled in where the transport has a default. It changes nothing that it does not
// understand; [TID.Validate] says what that is. NQNs stay as they are, since
// kernel and targets compare them byte by byte.
func New(fields TID) TID {
	t := fields
	t.Transport = strings.ToLower(t.Transport)
	t.TrAddr = canonicalAddr(t.Transport, t.TrAddr)
	t.HostTrAddr = canonicalAddr(t.Transport, t.HostTrAddr)
	t.TrSvcID = canonicalPort(t.Transport, t.TrSvcID)
	return t
}

func canonicalAddr(transport, addr string) string {
	switch transport {
	case TCP, RDMA:
		if ip, ok := parseIP(addr); ok {
			return ip.String()
		}
	case FC:
		return canonicalFC(addr)
	case Loop:
		// A free text that the kernel compares with its ports as it stands.
		return addr
	}
	return strings.ToLower(addr)
}

// canonicalFC brings the two forms that the kernel reads, with and without
// "0x" (drivers/nvme/host/fc.c, nvme_fc_parse_traddr), into the one that it
// announces ports with: "nn-0x" 16 digits ":pn-0x" 16 digits.
func canonicalFC(addr string) string {
	addr = strings.ToLower(addr)
	const digits = 16 // of a world wide name
	if m := len("nn-") + digits; len(addr) == 2*m+1 && addr[m] == ':' {
		node, isNode := strings.CutPrefix(addr[:m], "nn-")
		port, isPort := strings.CutPrefix(addr[m+1:], "pn-")
		if isNode && isPort && isHex(node) && isHex(port) {
			return "nn-0x" + node + ":pn-0x" + port
		}
	}
	return addr
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

func canonicalPort(transport, port string) string {
	switch {
	case transport != TCP && transport != RDMA:
		return ""
	case port == "" && transport == TCP:
		return "8009"
	case port == "" && transport == RDMA:
		return "4420"
	}
	return CanonicalPort(port)
}

// CanonicalAddr is the spelling of an address whose transport is not known.
func CanonicalAddr(addr string) string {
	if ip, ok := parseIP(addr); ok {
		return ip.String()
	}
	return strings.ToLower(addr)
}

// CanonicalPort drops leading zeros.
func CanonicalPort(port string) string {
	if p := strings.TrimLeft(port, "0"); p != "" || port == "" {
		return p
	}
	return "0"
}

// parseIP drops what makes no difference to the kernel: it looks at the zone of
// a link-local address only (net/core/utils.c, inet6_pton).
func parseIP(s string) (netip.Addr, bool) {
	ip, err := netip.ParseAddr(s)
	if ip = ip.Unmap(); !ip.IsLinkLocalUnicast() {
		ip = ip.WithZone("")
	}
	return ip, err == nil
}

// String is the form for people: "(tcp, 10.0.0.1, 8009, nqn…, eth0, 10.0.0.9)".
// The last three are there only if they have a value; the host NQN never is.
func (t TID) String() string {
	parts := []string{t.Transport, t.TrAddr, t.TrSvcID}
	for _, s := range []string{t.SubsysNQN, t.HostIface, t.HostTrAddr} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return "(" + strings.Join(parts, ", ") + ")"
}

// All yields the fields in order, under the names that configuration, D-Bus
// and JSON give them.
func (t TID) All() iter.Seq2[string, string] {
	return func(yield func(name, value string) bool) {
		_ = yield("transport", t.Transport) &&
			yield("traddr", t.TrAddr) &&
			yield("trsvcid", t.TrSvcID) &&
			yield("subsysnqn", t.SubsysNQN) &&
			yield("host-traddr", t.HostTrAddr) &&
			yield("host-iface", t.HostIface) &&
			yield("host-nqn", t.HostNQN)
	}
}

// Map is the dictionary that D-Bus callers get.
func (t TID) Map() map[string]string { return maps.Collect(t.All()) }

// UnmarshalJSON reads the object that marshalling a TID writes. What comes out
// is in the spelling of [New], whoever wrote it.
func (t *TID) UnmarshalJSON(data []byte) error {
	type plain TID // without this method
	var p plain
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	*t = New(TID(p))
	return nil
}

// Validate says in words why no connection can be made to t, if so. A TID that
// passes is safe to be spelled out in a comma-separated option string.
func (t TID) Validate() error {
	switch t.Transport {
	case TCP, RDMA, FC, Loop:
	case "":
		return errors.New("no transport: it has to be one of tcp, rdma, fc, loop")
	default:
		return fmt.Errorf("transport %q is not one of tcp, rdma, fc, loop", t.Transport)
	}
	if t.TrAddr == "" {
		return errors.New("no traddr, the address of the controller")
	}
	for name, value := range t.All() {
		if !utf8.ValidString(value) || strings.ContainsFunc(value, breaksOptions) {
			return fmt.Errorf("%s %q contains a comma, a blank or a control character", name, value)
		}
	}
	if t.Transport == TCP || t.Transport == RDMA {
		if err := t.validateIP(); err != nil {
			return err
		}
	}
	if t.SubsysNQN == "" {
		return errors.New("no NQN, the name of the subsystem or discovery controller")
	}
	if err := nvme.CheckNQN(t.SubsysNQN); err != nil {
		return err
	}
	if t.HostNQN == "" {
		return errors.New("no host NQN")
	}
	if err := nvme.CheckNQN(t.HostNQN); err != nil {
		return fmt.Errorf("host NQN: %w", err)
	}
	return nil
}

// HostName is the name that t has in place of the address of a controller, or
// nothing. Such a controller is connected [TID.At] one of the name's addresses.
func (t TID) HostName() string {
	if (t.Transport == TCP || t.Transport == RDMA) && isHostName(t.TrAddr) {
		return t.TrAddr
	}
	return ""
}

// At is t with an address in place of its host name.
func (t TID) At(addr netip.Addr) TID {
	t.TrAddr = addr.String()
	return New(t)
}

// ValidateNamed says in words why no connection can be made to t, if so,
// whatever the address is that its host name stands for. It is [TID.Validate]
// for one that has none.
func (t TID) ValidateNamed() error {
	if t.HostName() == "" {
		return t.Validate()
	}
	addr := netip.IPv4Unspecified()
	if host, ok := parseIP(t.HostTrAddr); ok {
		addr = host // of the same family
	}
	return t.At(addr).Validate()
}

// isHostName tells the names that can be looked up (RFC 1123, section 2.1), and
// underscores, which some have. One that ends in a number is an address that
// somebody got wrong.
func isHostName(s string) bool {
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(l, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
	}
	return len(s) <= 253 && strings.Trim(labels[len(labels)-1], "0123456789") != ""
}

func (t TID) validateIP() error {
	addr, err := literal("traddr", t.TrAddr)
	if err != nil {
		return err
	}
	if t.HostTrAddr != "" {
		host, err := literal("host-traddr", t.HostTrAddr)
		if err != nil {
			return err
		}
		if host.Is4() != addr.Is4() {
			return fmt.Errorf("host-traddr %s and traddr %s are not of the same family", host, addr)
		}
	}
	if p, err := strconv.ParseUint(t.TrSvcID, 10, 16); err != nil || p == 0 {
		return fmt.Errorf("trsvcid %q is not a port: it has to be a number from 1 to 65535", t.TrSvcID)
	}
	return nil
}

func literal(name, s string) (netip.Addr, error) {
	ip, ok := parseIP(s)
	switch {
	case ok:
		return ip, nil
	case strings.Contains(s, ":") || strings.Trim(s, "0123456789.") == "":
		return ip, fmt.Errorf("%s %q is not a valid IP address", name, s)
	}
	return ip, fmt.Errorf("%s %q is not an IP address", name, s)
}

// breaksOptions tells the characters that would end a field of the option
// string for the kernel, or garble a log line.
func breaksOptions(r rune) bool {
	return r == ',' || unicode.IsSpace(r) || !unicode.IsPrint(r)
}
