package nvme

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var testHostID = HostID([]byte("0123456789abcdef"))

// decodeExtended leaves out the length, which has to be that of b.
func decodeExtended(t testing.TB) func([]byte) (ExtendedEntry, error) {
	return func(b []byte) (ExtendedEntry, error) {
		e, n, err := DecodeExtendedEntry(b)
		if err == nil && (n < ExtendedEntrySize || n > len(b)) {
			t.Errorf("TEL %d of %d bytes", n, len(b))
		}
		return e, err
	}
}

func TestExtendedEntryLayout(t *testing.T) {
	e := ExtendedEntry{
		Entry:      testEntry(),
		Attributes: []Attribute{HostIDAttribute(testHostID), SymbolicName("rack 7"), {AttributeLabelUTF8, []byte("größ")[:4]}},
	}
	want := image(1032+20+12+8,
		at{0, string(encodeEntry(t, testEntry()))},
		at{1024, "\x30\x04\x00\x00"}, at{1028, "\x03\x00"},
		at{1032, "\x01\x00\x10\x000123456789abcdef"},
		at{1052, "\x02\x00\x08\x00rack 7  "},
		at{1064, "\x03\x00\x04\x00gr\xc3\xb6"})
	checkImage(t, e, want)
	checkDecode(t, decodeExtended(t), want, e)
	if _, n, _ := DecodeExtendedEntry(append(bytes.Clone(want), 1, 2, 3)); n != len(want) {
		t.Errorf("TEL %d, want %d", n, len(want))
	}
	if id, ok := e.HostID(); !ok || id != testHostID {
		t.Errorf("host ID %v, %t", id, ok)
	}
	if name := e.SymbolicName(); name != "rack 7" {
		t.Errorf("symbolic name %q", name)
	}
	if id, ok := (ExtendedEntry{Attributes: []Attribute{{AttributeHostID, []byte("short")}}}).HostID(); ok || !id.IsZero() {
		t.Errorf("a short host ID: %v", id)
	}
	if name := (ExtendedEntry{}).SymbolicName(); name != "" {
		t.Errorf("no symbolic name: %q", name)
	}
	if text := (Attribute{AttributeSymbolicName, []byte("\x1b[2J")}).Text(); text != "" {
		t.Errorf("%q", text)
	}
}

func TestSymbolicName(t *testing.T) {
	for _, tc := range []struct{ name, want string }{
		{"", "    "},
		{"a", "a   "},
		{"abcd", "abcd"},
		{"abcde", "abcde   "},
		{strings.Repeat("x", 300), strings.Repeat("x", 256)},
		{strings.Repeat("x", 255) + "ö", strings.Repeat("x", 255) + " "},
	} {
		if got := string(SymbolicName(tc.name).Value); got != tc.want {
			t.Errorf("%q: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestExtendedEntryBounds(t *testing.T) {
	good, err := ExtendedEntry{Entry: testEntry(), Attributes: []Attribute{SymbolicName("abcd")}}.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	for name, spoil := range map[string]func([]byte){
		"TEL of a basic entry":    func(b []byte) { le.PutUint32(b[1024:], 1024) },
		"TEL beyond the data":     func(b []byte) { le.PutUint32(b[1024:], uint32(len(b)+1)) },
		"TEL of billions":         func(b []byte) { le.PutUint32(b[1024:], 0xffffffff) },
		"TEL within an attribute": func(b []byte) { le.PutUint32(b[1024:], uint32(len(b)-1)) },
		"TEL before an attribute": func(b []byte) { le.PutUint32(b[1024:], 1032) },
		"NUMEXAT too large":       func(b []byte) { le.PutUint16(b[1028:], 0xffff) },
		"EXATLEN 0":               func(b []byte) { le.PutUint16(b[1034:], 0) },
		"EXATLEN 3":               func(b []byte) { le.PutUint16(b[1034:], 3) },
		"EXATLEN beyond TEL":      func(b []byte) { le.PutUint16(b[1034:], 8) },
		"host ID of 4 bytes":      func(b []byte) { le.PutUint16(b[1032:], 1) },
		"no text":                 func(b []byte) { b[offTRADDR] = 1 },
	} {
		b := bytes.Clone(good)
		spoil(b)
		if e, n, err := DecodeExtendedEntry(b); err == nil {
			t.Errorf("%s: %+v, %d bytes", name, e, n)
		}
	}
	// Room behind the attributes is skipped by TEL.
	roomy := append(bytes.Clone(good), 1, 2, 3, 4)
	le.PutUint32(roomy[1024:], uint32(len(roomy)))
	if e, n, err := DecodeExtendedEntry(roomy); err != nil || n != len(roomy) || len(e.Attributes) != 1 {
		t.Errorf("%+v, %d, %v", e, n, err)
	}
}

func TestExtendedEntryRefusesToEncode(t *testing.T) {
	for _, a := range []Attribute{
		{9, nil}, {9, []byte("abc")}, {9, make([]byte, 65536)}, {AttributeHostID, []byte("abcd")},
	} {
		e := ExtendedEntry{Entry: testEntry(), Attributes: []Attribute{a}}
		if b, err := e.AppendBinary([]byte("x")); err == nil || len(b) != 1 {
			t.Errorf("%d bytes of type %d: %d bytes", len(a.Value), a.Type, len(b))
		}
	}
	e := ExtendedEntry{Attributes: slices.Repeat([]Attribute{SymbolicName("")}, 65536)}
	if _, err := e.AppendBinary(nil); err == nil {
		t.Error("65536 attributes were encoded")
	}
	e = ExtendedEntry{Entry: DiscoveryLogEntry{TrAddr: "\n"}}
	if b, err := e.AppendBinary([]byte("x")); err == nil || len(b) != 1 {
		t.Errorf("no text: %d bytes", len(b))
	}
}

func TestExtendedEntriesInARow(t *testing.T) {
	entries := []ExtendedEntry{
		{Entry: testEntry(), Attributes: []Attribute{HostIDAttribute(testHostID)}},
		{Entry: testEntry()},
		{Entry: testEntry(), Attributes: []Attribute{SymbolicName("c")}},
	}
	var page []byte
	for _, e := range entries {
		var err error
		if page, err = e.AppendBinary(page); err != nil {
			t.Fatal(err)
		}
	}
	var got []ExtendedEntry
	for len(page) > 0 {
		e, n, err := DecodeExtendedEntry(page)
		if err != nil {
			t.Fatal(err)
		}
		got, page = append(got, e), page[n:]
	}
	if !reflect.DeepEqual(got, entries) {
		t.Errorf("%+v", got)
	}
}

func FuzzDecodeExtendedEntry(f *testing.F) {
	b, err := ExtendedEntry{
		Entry: testEntry(), Attributes: []Attribute{HostIDAttribute(testHostID), SymbolicName("a name")},
	}.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:ExtendedEntrySize])
	f.Add(bytes.Repeat([]byte{0xff}, 2000))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkFixedPoint(t, decodeExtended(t), b)
		if e, _, err := DecodeExtendedEntry(b); err == nil {
			e.HostID()
			e.SymbolicName()
		}
	})
}
