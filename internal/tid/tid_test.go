package tid

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

const (
	subsys = "nqn.2026-01.org.example:sub1"
	host   = "nqn.2014-08.org.nvmexpress:uuid:0f3e8a52-9a0f-4f0c-8c5e-5b5a5f1d7e01"
)

func TestNew(t *testing.T) {
	tests := []struct {
		name     string
		in, want TID
	}{
		{"default port tcp", TID{Transport: "tcp"}, TID{Transport: "tcp", TrSvcID: "8009"}},
		{"default port rdma", TID{Transport: "rdma"}, TID{Transport: "rdma", TrSvcID: "4420"}},
		{"transport in capitals", TID{Transport: "TCP"}, TID{Transport: "tcp", TrSvcID: "8009"}},
		{
			"leading zeros of the port",
			TID{Transport: "tcp", TrSvcID: "004420"},
			TID{Transport: "tcp", TrSvcID: "4420"},
		},
		{
			"port zero stays visible",
			TID{Transport: "tcp", TrSvcID: "000"},
			TID{Transport: "tcp", TrSvcID: "0"},
		},
		{
			"IPv4 in IPv6",
			TID{Transport: "tcp", TrAddr: "::ffff:10.0.0.1", TrSvcID: "1", HostTrAddr: "::FFFF:a00:2"},
			TID{Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: "1", HostTrAddr: "10.0.0.2"},
		},
		{
			"IPv6 spelling",
			TID{Transport: "rdma", TrAddr: "2001:DB8:0::0:1", TrSvcID: "1"},
			TID{Transport: "rdma", TrAddr: "2001:db8::1", TrSvcID: "1"},
		},
		{
			"zone kept",
			TID{Transport: "tcp", TrAddr: "FE80:0::1%Eth0", TrSvcID: "1"},
			TID{Transport: "tcp", TrAddr: "fe80::1%Eth0", TrSvcID: "1"},
		},
		{
			"zone without meaning",
			TID{Transport: "tcp", TrAddr: "2001:db8::1%eth0", TrSvcID: "1", HostTrAddr: "2001:db8::2%3"},
			TID{Transport: "tcp", TrAddr: "2001:db8::1", TrSvcID: "1", HostTrAddr: "2001:db8::2"},
		},
		{
			"host name",
			TID{Transport: "tcp", TrAddr: "Array.Example.ORG", TrSvcID: "1"},
			TID{Transport: "tcp", TrAddr: "array.example.org", TrSvcID: "1"},
		},
		{
			"fc has no port",
			TID{Transport: "fc", TrAddr: "nn-0x2000ABCD:pn-0x10", TrSvcID: "none", HostTrAddr: "NN-0x1:pn-0xA"},
			TID{Transport: "fc", TrAddr: "nn-0x2000abcd:pn-0x10", HostTrAddr: "nn-0x1:pn-0xa"},
		},
		{
			"fc names, short form",
			TID{Transport: "FC", TrAddr: "NN-2000ABCD00000001:PN-1000abcd00000002", HostTrAddr: "nn-0x2000ABCD00000003:pn-0x1000ABCD00000004"},
			TID{Transport: "fc", TrAddr: "nn-0x2000abcd00000001:pn-0x1000abcd00000002", HostTrAddr: "nn-0x2000abcd00000003:pn-0x1000abcd00000004"},
		},
		{
			"fc names that are none",
			TID{Transport: "fc", TrAddr: "nn-2000abcd0000000g:pn-1000abcd00000002", HostTrAddr: "pn-2000abcd00000003:nn-1000abcd00000004"},
			TID{Transport: "fc", TrAddr: "nn-2000abcd0000000g:pn-1000abcd00000002", HostTrAddr: "pn-2000abcd00000003:nn-1000abcd00000004"},
		},
		{
			"loop is text to the kernel",
			TID{Transport: "loop", TrAddr: "Port1", TrSvcID: "1"},
			TID{Transport: "loop", TrAddr: "Port1"},
		},
		{
			"names stay as they are",
			TID{Transport: "fc", SubsysNQN: "nqn.X:A", HostIface: "Eth0", HostNQN: "nqn.Y:B"},
			TID{Transport: "fc", SubsysNQN: "nqn.X:A", HostIface: "Eth0", HostNQN: "nqn.Y:B"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := New(tt.in)
			if got != tt.want {
				t.Errorf("New(%+v)\n got %+v\nwant %+v", tt.in, got, tt.want)
			}
			if again := New(got); again != got {
				t.Errorf("New is not idempotent: %+v, then %+v", got, again)
			}
		})
	}
}

func TestString(t *testing.T) {
	tests := []struct {
		in   TID
		want string
	}{
		{
			TID{Transport: "tcp", TrAddr: "10.0.0.1", SubsysNQN: subsys, HostIface: "eth0", HostTrAddr: "10.0.0.9", HostNQN: host},
			"(tcp, 10.0.0.1, 8009, " + subsys + ", eth0, 10.0.0.9)",
		},
		{
			TID{Transport: "tcp", TrAddr: "10.0.0.1", HostTrAddr: "10.0.0.9"},
			"(tcp, 10.0.0.1, 8009, 10.0.0.9)",
		},
		{
			TID{Transport: "fc", TrAddr: "nn-0x1:pn-0x2", SubsysNQN: subsys},
			"(fc, nn-0x1:pn-0x2, , " + subsys + ")",
		},
	}
	for _, tt := range tests {
		if got := New(tt.in).String(); got != tt.want {
			t.Errorf("got %s, want %s", got, tt.want)
		}
	}
}

func TestFields(t *testing.T) {
	id := TID{"tcp", "10.0.0.1", "8009", subsys, "10.0.0.9", "eth0", host}
	var names []string
	for name := range id.All() {
		names = append(names, name)
	}
	want := []string{"transport", "traddr", "trsvcid", "subsysnqn", "host-traddr", "host-iface", "host-nqn"}
	if !slices.Equal(names, want) {
		t.Errorf("names in order %v, want %v", names, want)
	}

	text, err := json.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	var dict map[string]string
	if err := json.Unmarshal(text, &dict); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(dict, id.Map()) {
		t.Errorf("JSON %v and Map %v differ", dict, id.Map())
	}

	var back TID
	if err := json.Unmarshal(text, &back); err != nil || back != id {
		t.Errorf("read back %+v, %v", back, err)
	}
	if err := json.Unmarshal([]byte(`{"transport":"tcp","traddr":"::ffff:1.2.3.4"}`), &back); err != nil {
		t.Fatal(err)
	}
	if want := (TID{Transport: "tcp", TrAddr: "1.2.3.4", TrSvcID: "8009"}); back != want {
		t.Errorf("read %+v, want %+v", back, want)
	}
	if err := json.Unmarshal([]byte(`{"transport":1}`), &back); err == nil {
		t.Error("a number as transport was accepted")
	}
}

func TestValidate(t *testing.T) {
	good := TID{Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: "4420", SubsysNQN: subsys, HostNQN: host}
	tests := []struct {
		name string
		edit func(*TID)
		want string // part of the error; "" for none
	}{
		{"good", func(*TID) {}, ""},
		{"good with source", func(t *TID) { t.HostTrAddr, t.HostIface = "10.0.0.9", "eth0.100" }, ""},
		{"good zone", func(t *TID) { t.TrAddr = "fe80::1%eth0" }, ""},
		{"good fc", func(t *TID) { t.Transport, t.TrAddr = "fc", "nn-0x1:pn-0x2" }, ""},
		{"good loop", func(t *TID) { t.Transport, t.TrAddr = "loop", "1" }, ""},
		{"no transport", func(t *TID) { t.Transport = "" }, "no transport"},
		{"pcie", func(t *TID) { t.Transport = "pcie" }, `"pcie" is not one of tcp, rdma, fc, loop`},
		{"no traddr", func(t *TID) { t.TrAddr = "" }, "no traddr"},
		{"no traddr, fc", func(t *TID) { t.Transport, t.TrAddr = "fc", "" }, "no traddr"},
		{"name", func(t *TID) { t.TrAddr = "array.example.org" }, "is not an IP address"},
		{"bad IPv4", func(t *TID) { t.TrAddr = "10.0.0.256" }, "not a valid IP address"},
		{"bad IPv6", func(t *TID) { t.TrAddr = "::1::2" }, "not a valid IP address"},
		{"option in a zone", func(t *TID) { t.TrAddr = "fe80::1%a,duplicate_connect" }, "comma"},
		{"option in an fc address", func(t *TID) { t.Transport, t.TrAddr = "fc", "a,b=c" }, "comma"},
		{"newline in an interface", func(t *TID) { t.HostIface = "eth0\n" }, "control character"},
		{"port 0", func(t *TID) { t.TrSvcID = "0" }, "from 1 to 65535"},
		{"port 65536", func(t *TID) { t.TrSvcID = "65536" }, "from 1 to 65535"},
		{"port +1", func(t *TID) { t.TrSvcID = "+1" }, "from 1 to 65535"},
		{"port none", func(t *TID) { t.TrSvcID = "none" }, "from 1 to 65535"},
		{"source name", func(t *TID) { t.HostTrAddr = "me" }, `host-traddr "me" is not an IP address`},
		{"source family", func(t *TID) { t.HostTrAddr = "::1" }, "not of the same family"},
		{"no NQN", func(t *TID) { t.SubsysNQN = "" }, "no NQN"},
		{"NQN form", func(t *TID) { t.SubsysNQN = "sub1" }, `does not begin with "nqn."`},
		{"NQN of 223", func(t *TID) { t.SubsysNQN = "nqn." + strings.Repeat("x", 219) }, ""},
		{"NQN of 224", func(t *TID) { t.SubsysNQN = "nqn." + strings.Repeat("x", 220) }, "224 bytes"},
		{"NQN with comma", func(t *TID) { t.SubsysNQN = "nqn.a,b" }, "comma"},
		{"no host NQN", func(t *TID) { t.HostNQN = "" }, "no host NQN"},
		{"bad host NQN", func(t *TID) { t.HostNQN = "me" }, "host NQN: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			id := good
			tt.edit(&id)
			err := id.Validate()
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestHostName(t *testing.T) {
	for addr, want := range map[string]string{
		"dc1.example.org": "dc1.example.org", "DC1": "dc1", "dc_1.example.org.": "dc_1.example.org.", "1und1": "1und1", "10.0.0.1a": "10.0.0.1a",
		"": "", "10.0.0.1": "", "10.0.0.256": "", "10.0": "", "dc.1": "", "::1": "", "fe80::1%eth0": "",
		".": "", "a..b": "", "-a": "", "a-": "", "a,b": "", "a b": "", "b\u00fccher.example": "", "a/b": "", "a;b": "",
		strings.Repeat("x", 64): "", strings.Repeat("x.", 126) + "y": strings.Repeat("x.", 126) + "y", strings.Repeat("x.", 126) + "yz": "",
	} {
		for _, transport := range []string{"tcp", "rdma"} {
			if got := New(TID{Transport: transport, TrAddr: addr}).HostName(); got != want {
				t.Errorf("%s %q: host name %q, want %q", transport, addr, got, want)
			}
		}
		if got := New(TID{Transport: "loop", TrAddr: addr}).HostName(); got != "" {
			t.Errorf("loop %q: host name %q", addr, got)
		}
	}
}

func TestValidateNamed(t *testing.T) {
	good := New(TID{Transport: "tcp", TrAddr: "dc1.example.org", SubsysNQN: subsys, HostNQN: host})
	for name, test := range map[string]struct {
		edit func(*TID)
		want string // part of the error; "" for none
	}{
		"name":            {func(*TID) {}, ""},
		"address":         {func(t *TID) { t.TrAddr = "10.0.0.1" }, ""},
		"no name":         {func(t *TID) { t.TrAddr = "10.0.0.256" }, "not a valid IP address"},
		"name of nothing": {func(t *TID) { t.TrAddr = "a..b" }, "is not an IP address"},
		"IPv4 source":     {func(t *TID) { t.HostTrAddr = "10.0.0.9" }, ""},
		"IPv6 source":     {func(t *TID) { t.HostTrAddr = "fd00::9" }, ""},
		"source name":     {func(t *TID) { t.HostTrAddr = "me" }, `host-traddr "me" is not an IP address`},
		"port":            {func(t *TID) { t.TrSvcID = "0" }, "from 1 to 65535"},
		"NQN":             {func(t *TID) { t.SubsysNQN = "" }, "no NQN"},
		"fc":              {func(t *TID) { t.Transport, t.TrSvcID = "fc", "" }, ""}, // the kernel knows better
	} {
		id := good
		test.edit(&id)
		err := id.ValidateNamed()
		if (test.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got error %v, want one with %q", name, err, test.want)
		}
	}
	if at := good.At(netip.MustParseAddr("fe80::1%eth0")); at.TrAddr != "fe80::1%eth0" || at.TrSvcID != "8009" || at.Validate() != nil {
		t.Errorf("at an address: %+v, %v", at, at.Validate())
	}
}
