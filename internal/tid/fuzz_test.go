package tid

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzNew takes any text for a field: there is one spelling, JSON keeps it, and
// a connection made with any other spelling is found by it.
func FuzzNew(f *testing.F) {
	f.Add("tcp", "10.0.0.1", "4420", subsys, "10.0.0.9", "eth0", host)
	f.Add("TCP", "::ffff:10.0.0.1", "", "nqn.X", "::FFFF:a00:2", "", "")
	f.Add("rdma", "FE80:0::1%Eth0", "08009", "", "fe80::2%", "", host)
	f.Add("rdma", "2001:DB8::1%eth0", "0", "", "::ffff:1.2.3.4%x", "", host)
	f.Add("fc", "NN-2000ABCD00000001:PN-1000ABCD00000002", "none", subsys, "nn-0xA:pn-0xB", "", host)
	f.Add("loop", "Port1", "1", subsys, "", "", host)
	f.Add("\xff", "\x00,", "+1", "nqn.", "::", "%", "\n")
	f.Fuzz(func(t *testing.T, transport, traddr, trsvcid, nqn, hostTrAddr, iface, hostNQN string) {
		given := TID{transport, traddr, trsvcid, nqn, hostTrAddr, iface, hostNQN}
		id := New(given)
		if again := New(id); again != id {
			t.Fatalf("%+v is %+v, and that is %+v", given, id, again)
		}
		if id.SubsysNQN != nqn || id.HostNQN != hostNQN || id.HostIface != iface {
			t.Errorf("%+v: a name has changed: %+v", given, id)
		}
		for _, spelling := range spellings(given) {
			if other := New(spelling); other != id {
				t.Errorf("%+v and %+v mean the same, but give %+v and %+v", given, spelling, id, other)
			}
		}
		if text, err := json.Marshal(id); err != nil {
			t.Error(err)
		} else if back := (TID{}); isText(id) && (json.Unmarshal(text, &back) != nil || back != id) {
			t.Errorf("%+v as JSON: %s, read back %+v", id, text, back)
		}
		if err := id.Validate(); err != nil {
			return
		}
		for name, value := range id.All() {
			if strings.ContainsAny(value, ",\n\x00 ") {
				t.Errorf("%s %q would be two options to the kernel", name, value)
			}
		}
		var x Index
		x.Put("nvme0", Existing{
			Transport: transport, TrAddr: traddr, TrSvcID: trsvcid, HostTrAddr: hostTrAddr, HostIface: iface,
			SubsysNQN: nqn, HostNQN: hostNQN, Kind: IO,
		})
		if _, ok := x.Find(id, IO, Ifaces{}); !ok {
			t.Errorf("the connection made with %+v is not found by %+v", given, id)
		}
	})
}

// isText reports whether JSON can hold the fields.
func isText(id TID) bool {
	for _, value := range id.All() {
		if !utf8.ValidString(value) {
			return false
		}
	}
	return true
}

// spellings are other ways to write the same TID.
func spellings(id TID) []TID {
	var all []TID
	add := func(edit func(*TID)) {
		other := id
		edit(&other)
		all = append(all, other)
	}
	tr := strings.ToLower(id.Transport)
	if tr != TCP && tr != RDMA {
		add(func(o *TID) { o.TrSvcID = "1" })
		return all
	}
	if id.TrSvcID != "" {
		add(func(o *TID) { o.TrSvcID = "0" + o.TrSvcID })
	}
	if ip, err := netip.ParseAddr(id.TrAddr); err == nil {
		add(func(o *TID) { o.TrAddr = ip.StringExpanded() })
		if ip.Is4() {
			add(func(o *TID) { o.TrAddr = "::ffff:" + id.TrAddr })
		} else if ip.Zone() == "" {
			add(func(o *TID) { o.TrAddr = strings.ToUpper(id.TrAddr) })
		}
	}
	return all
}
