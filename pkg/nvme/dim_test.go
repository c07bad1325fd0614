package nvme

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// hostRegistration is what libnvme registers a host with.
func hostRegistration() DiscoveryInformation {
	return DiscoveryInformation{
		Format: EntryExtended, EntityType: EntityHost, KeyType: KeyAddress,
		EID: "nqn.2014-08.org.example:host", Name: "host7", Version: "Linux 6.12 Debian 13",
		Entries: []ExtendedEntry{{
			Entry:      DiscoveryLogEntry{TrType: TCP, AdrFam: FamilyIPv6, SubNQN: "nqn.2014-08.org.example:host"},
			Attributes: []Attribute{HostIDAttribute(testHostID)},
		}},
	}
}

func encodeDIM(t testing.TB, d DiscoveryInformation) []byte {
	t.Helper()
	b, err := d.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDIMCommandLayout(t *testing.T) {
	d := hostRegistration()
	d.Task = TaskUpdate
	checkCommand(t, d.Command(), at{0, "\x21"}, at{32, "\x1c\x08\x00\x00"}, at{39, "\x5a"}, at{40, "\x02"})
}

func TestDIMLayout(t *testing.T) {
	d := hostRegistration()
	d.Entries[0].Attributes = append(d.Entries[0].Attributes, SymbolicName("rack 7"))
	want := image(2076+12,
		at{0, "\x28\x08\x00\x00"}, at{8, "\x01\x00\x00\x00\x00\x00\x00\x00"}, at{16, "\x02\x00"}, at{18, "\x01\x00"},
		at{22, "\x5f\x00"}, at{24, "nqn.2014-08.org.example:host"}, at{280, "host7"}, at{536, "Linux 6.12 Debian 13"},
		at{1024, "\x03"}, at{1025, "\x02"}, at{1024 + 256, "nqn.2014-08.org.example:host"},
		at{2048, "\x28\x04\x00\x00"}, at{2052, "\x02\x00"}, at{2056, "\x01\x00\x10\x000123456789abcdef"},
		at{2076, "\x02\x00\x08\x00rack 7  "})
	checkImage(t, d, want)
	checkDecode(t, decodeDIM(TaskRegister), want, d)
	if n := len(encodeDIM(t, hostRegistration())); n != 2076 {
		t.Errorf("without symbolic name %d bytes, want 2076", n)
	}

	d = DiscoveryInformation{
		Task: TaskDeregister, Format: EntryBasic, EntityType: EntityDDC, PortLocal: true, KeyType: KeyPortID,
		EID: "nqn.2014-08.org.example:ddc", Entries: []ExtendedEntry{{Entry: testEntry()}, {Entry: testEntry()}},
	}
	want = image(3072,
		at{0, "\x00\x0c\x00\x00"}, at{8, "\x02"}, at{16, "\x01\x00"}, at{18, "\x02\x00"}, at{20, "\x01"}, at{22, "\x3f\x00"},
		at{24, "nqn.2014-08.org.example:ddc"},
		at{1024, string(encodeEntry(t, testEntry()))}, at{2048, string(encodeEntry(t, testEntry()))})
	checkImage(t, d, want)
	checkDecode(t, decodeDIM(TaskDeregister), want, d)
}

func decodeDIM(task DIMTask) func([]byte) (DiscoveryInformation, error) {
	return func(b []byte) (DiscoveryInformation, error) {
		return DecodeDiscoveryInformation(Command{Opcode: OpDiscoveryInfoMgmt, CDW10: uint32(task)}, b)
	}
}

func TestDIMRefused(t *testing.T) {
	two := func(d *DiscoveryInformation) { d.Entries = append(d.Entries, hostRegistration().Entries...) }
	for _, tc := range []struct {
		name   string
		change func(*DiscoveryInformation)
		want   Status
	}{
		{"good", func(*DiscoveryInformation) {}, 0},
		{"update by another", func(d *DiscoveryInformation) { d.Task = TaskUpdate; two(d); d.Entries[0].Entry.TrAddr = "192.0.2.1" }, 0},
		{"a DDC's port", func(d *DiscoveryInformation) { d.EntityType, d.PortLocal, d.KeyType = EntityDDC, true, KeyPortID }, 0},
		{"a DDC's basic entries", func(d *DiscoveryInformation) { d.EntityType, d.Format = EntityDDC, EntryBasic }, 0},
		{"two addresses", func(d *DiscoveryInformation) { two(d); d.Entries[0].Entry.TrAddr = "192.0.2.1" }, 0},

		{"unknown task", func(d *DiscoveryInformation) { d.Task = 3 }, StatusInvalidField},
		{"unknown format", func(d *DiscoveryInformation) { d.Format = 3 }, StatusInvalidField},
		{"no format", func(d *DiscoveryInformation) { d.Format = 0 }, StatusInvalidField},
		{"unknown entity", func(d *DiscoveryInformation) { d.EntityType = 4 }, StatusInvalidField},
		{"no entity", func(d *DiscoveryInformation) { d.EntityType = 0 }, StatusInvalidField},
		{"a host's port", func(d *DiscoveryInformation) { d.PortLocal = true }, StatusInvalidField},
		{"a CDC's port", func(d *DiscoveryInformation) { d.EntityType, d.PortLocal = EntityCDC, true }, StatusInvalidField},
		{"no entry", func(d *DiscoveryInformation) { d.Entries = nil }, StatusInvalidField},
		{"update of one", func(d *DiscoveryInformation) { d.Task = TaskUpdate }, StatusInvalidField},
		{"update of three", func(d *DiscoveryInformation) { d.Task = TaskUpdate; two(d); two(d) }, StatusInvalidField},
		{"two without address", func(d *DiscoveryInformation) { two(d) }, StatusInvalidField},

		{"host by port", func(d *DiscoveryInformation) { d.KeyType = KeyPortID }, StatusInvalidDiscoveryInformation},
		{"host without attribute", func(d *DiscoveryInformation) { d.Entries[0].Attributes = nil }, StatusInvalidDiscoveryInformation},
		{"host, basic", func(d *DiscoveryInformation) { d.Format = EntryBasic }, StatusInvalidDiscoveryInformation},
		{"host with SUBTYPE", func(d *DiscoveryInformation) { d.Entries[0].Entry.SubType = 2 }, StatusInvalidDiscoveryInformation},
		{"host with TREQ", func(d *DiscoveryInformation) { d.Entries[0].Entry.TReq = 1 }, StatusInvalidDiscoveryInformation},
		{"host with PORTID", func(d *DiscoveryInformation) { d.Entries[0].Entry.PortID = 1 }, StatusInvalidDiscoveryInformation},
		{"host with CNTLID", func(d *DiscoveryInformation) { d.Entries[0].Entry.CntlID = 1 }, StatusInvalidDiscoveryInformation},
		{"host with ASQSZ", func(d *DiscoveryInformation) { d.Entries[0].Entry.ASQSz = 32 }, StatusInvalidDiscoveryInformation},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := hostRegistration()
			tc.change(&d)
			_, err := DecodeDiscoveryInformation(d.Command(), encodeDIM(t, d))
			if status, _ := errors.AsType[Status](err); status != tc.want || (err == nil) != (tc.want == 0) {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

// A sender that asks before it sends is told the same.
func TestDIMCheck(t *testing.T) {
	d := hostRegistration()
	if err := d.Check(); err != nil {
		t.Error(err)
	}
	d.Format = 0
	if err := d.Check(); !errors.Is(err, StatusInvalidField) {
		t.Errorf("no format: %v", err)
	}
}

func TestDIMBounds(t *testing.T) {
	good := encodeDIM(t, hostRegistration())
	le := binary.LittleEndian
	for name, spoil := range map[string]func([]byte) []byte{
		"nothing":                  func([]byte) []byte { return nil },
		"short header":             func(b []byte) []byte { return b[:1023] },
		"TDL within the header":    func(b []byte) []byte { le.PutUint32(b, 1023); return b },
		"TDL beyond the data":      func(b []byte) []byte { le.PutUint32(b, uint32(len(b)+1)); return b },
		"TDL of billions":          func(b []byte) []byte { le.PutUint32(b, 0xffffffff); return b },
		"TDL within an entry":      func(b []byte) []byte { le.PutUint32(b, uint32(len(b)-1)); return b },
		"NUMENT of all":            func(b []byte) []byte { le.PutUint64(b[8:], 0xffffffffffffffff); return b },
		"NUMENT 2":                 func(b []byte) []byte { le.PutUint64(b[8:], 2); return b },
		"basic, cut off":           func(b []byte) []byte { le.PutUint16(b[16:], 1); le.PutUint32(b, 2047); return b },
		"EXATLEN 2":                func(b []byte) []byte { le.PutUint16(b[2058:], 2); return b },
		"a name that is no text":   func(b []byte) []byte { b[281] = '\r'; return b },
		"an entry that is no text": func(b []byte) []byte { b[1024+256] = 0xff; return b },
	} {
		d, err := decodeDIM(TaskRegister)(spoil(bytes.Clone(good)))
		if status, ok := errors.AsType[Status](err); !ok || status != StatusInvalidField {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
	}
	// What follows the data is none of it.
	if _, err := decodeDIM(TaskRegister)(append(bytes.Clone(good), 1, 2, 3)); err != nil {
		t.Error(err)
	}
	for name, d := range map[string]DiscoveryInformation{
		"EID":     {EID: strings.Repeat("x", 257)},
		"ENAME":   {Name: strings.Repeat("x", 257)},
		"EVER":    {Version: strings.Repeat("x", 65)},
		"TRADDR":  {Entries: []ExtendedEntry{{Entry: DiscoveryLogEntry{TrAddr: "\n"}}}},
		"EXATLEN": {Entries: []ExtendedEntry{{Attributes: []Attribute{{1, nil}}}}},
	} {
		if b, err := d.AppendBinary([]byte("x")); err == nil || len(b) != 1 || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}

func FuzzDecodeDiscoveryInformation(f *testing.F) {
	d := hostRegistration()
	f.Add(encodeDIM(f, d), uint8(d.Task))
	d.EntityType, d.Format = EntityDDC, EntryBasic
	f.Add(encodeDIM(f, d), uint8(TaskUpdate))
	f.Add(bytes.Repeat([]byte{0xff}, 3000), uint8(15))
	f.Fuzz(func(t *testing.T, b []byte, task uint8) {
		checkFixedPoint(t, decodeDIM(DIMTask(task)), b)
		_, err := decodeDIM(DIMTask(task))(b)
		if _, ok := errors.AsType[Status](err); err != nil && !ok {
			t.Errorf("no status in %v", err)
		}
	})
}
