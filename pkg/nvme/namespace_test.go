package nvme

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestIdentifyNamespaceLayout(t *testing.T) {
	id := IdentifyNamespace{
		NSZE: 0x0102030405060708, NCAP: 0x1112131415161718, NUSE: 0x2122232425262728,
		NSFEAT: 0x31, FLBAS: 1, NMIC: NMICShared, ANAGrpID: 0x32333435,
		NGUID: [16]byte([]byte("0123456789abcdef")), EUI64: [8]byte([]byte("ABCDEFGH")),
		LBAFormats: []LBAFormat{{DataShift: 9}, {MetadataSize: 0x4142, DataShift: 12, Performance: 3}},
	}
	want := image(4096,
		at{0, "\x08\x07\x06\x05\x04\x03\x02\x01"}, at{8, "\x18\x17\x16\x15\x14\x13\x12\x11"},
		at{16, "\x28\x27\x26\x25\x24\x23\x22\x21"}, at{24, "\x31"}, at{25, "\x01"}, at{26, "\x01"}, at{30, "\x01"},
		at{92, "\x35\x34\x33\x32"}, at{104, "0123456789abcdef"}, at{120, "ABCDEFGH"},
		at{128, "\x00\x00\x09\x00"}, at{132, "\x42\x41\x0c\x03"})
	checkImage(t, id, want)
	checkDecode(t, DecodeIdentifyNamespace, want, id)
	if n := id.BlockSize(); n != 4096 {
		t.Errorf("blocks of %d bytes", n)
	}

	checkImage(t, IdentifyNamespace{}, make([]byte, 4096)) // that of no namespace
	want[25] = 64
	if id, err := DecodeIdentifyNamespace(want); err == nil {
		t.Errorf("65 formats: %+v", id)
	}
	id.LBAFormats = make([]LBAFormat, 64)
	if b, err := id.AppendBinary(nil); err != nil || b[25] != 63 {
		t.Errorf("64 formats: %v", err)
	}
	for _, n := range []int{65, 257} {
		id.LBAFormats = make([]LBAFormat, n)
		if b, err := id.AppendBinary(nil); err == nil {
			t.Errorf("%d formats: NLBAF %d", n, b[25])
		}
	}
}

func TestBlockSize(t *testing.T) {
	formats := make([]LBAFormat, 64)
	formats[0].DataShift, formats[5].DataShift, formats[0x25].DataShift = 9, 12, 16
	formats[1].DataShift, formats[2].DataShift = 8, 32
	for flbas, want := range map[uint8]uint32{0: 512, 5: 4096, 0x45: 65536, 0x15: 4096, 1: 0, 2: 0, 3: 0} {
		if got := (IdentifyNamespace{FLBAS: flbas, LBAFormats: formats}).BlockSize(); got != want {
			t.Errorf("FLBAS %#x: %d bytes, want %d", flbas, got, want)
		}
	}
	if got := (IdentifyNamespace{FLBAS: 1, LBAFormats: formats[:1]}).BlockSize(); got != 0 {
		t.Errorf("a format that is not there has blocks of %d bytes", got)
	}
}

func TestNamespaceDescriptorsLayout(t *testing.T) {
	list := []NamespaceDescriptor{
		{NIDEUI64, []byte("ABCDEFGH")}, {NIDNGUID, []byte("0123456789abcdef")},
		{NIDUUID, []byte("fedcba9876543210")}, {NIDCSI, []byte{0}},
	}
	want := image(4096,
		at{0, "\x01\x08\x00\x00ABCDEFGH"}, at{12, "\x02\x10\x00\x000123456789abcdef"},
		at{32, "\x03\x10\x00\x00fedcba9876543210"}, at{52, "\x04\x01\x00\x00\x00"})
	b, err := AppendNamespaceDescriptors(nil, list)
	if err != nil {
		t.Fatal(err)
	}
	sameBytes(t, b, want)
	got, err := DecodeNamespaceDescriptors(want)
	if err != nil || !reflect.DeepEqual(got, list) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := DecodeNamespaceDescriptors(want[:31]); err == nil {
		t.Errorf("one is cut off: %+v", got)
	}
	if got, err := DecodeNamespaceDescriptors(nil); err != nil || got != nil {
		t.Errorf("nothing: %+v, %v", got, err)
	}
	for _, bad := range [][]NamespaceDescriptor{
		{{NIDUUID, nil}}, {{NIDUUID, make([]byte, 256)}}, slices.Repeat([]NamespaceDescriptor{{NIDUUID, make([]byte, 255)}}, 16),
	} {
		if b, err := AppendNamespaceDescriptors([]byte("x"), bad); err == nil || len(b) != 1 {
			t.Errorf("%d descriptors: %d bytes", len(bad), len(b))
		}
	}
}

func TestNamespaceListLayout(t *testing.T) {
	b, err := AppendNamespaceList(nil, []uint32{1, 0x01020304})
	if err != nil {
		t.Fatal(err)
	}
	sameBytes(t, b, image(4096, at{0, "\x01\x00\x00\x00"}, at{4, "\x04\x03\x02\x01"}))
	if got := DecodeNamespaceList(b); !slices.Equal(got, []uint32{1, 0x01020304}) {
		t.Errorf("%#x", got)
	}
	if got := DecodeNamespaceList(b[:7]); !slices.Equal(got, []uint32{1}) {
		t.Errorf("%#x", got)
	}
	full := slices.Repeat([]uint32{7}, 1024)
	b, err = AppendNamespaceList(nil, full)
	if err != nil || !slices.Equal(DecodeNamespaceList(append(b, 1, 2, 3, 4)), full) {
		t.Errorf("a full list: %d bytes, %v", len(b), err)
	}
	for _, bad := range [][]uint32{append(full, 1), {1, 0, 2}} {
		if b, err := AppendNamespaceList([]byte("x"), bad); err == nil || len(b) != 1 {
			t.Errorf("%d namespaces: %d bytes", len(bad), len(b))
		}
	}
}

func FuzzDecodeIdentifyNamespace(f *testing.F) {
	b, err := IdentifyNamespace{LBAFormats: []LBAFormat{{DataShift: 9}, {DataShift: 12}}}.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		checkFixedPoint(t, DecodeIdentifyNamespace, b)
		if id, err := DecodeIdentifyNamespace(b); err == nil {
			id.BlockSize()
		}
	})
}

func FuzzDecodeNamespaceLists(f *testing.F) {
	f.Add([]byte("\x03\x10\x00\x000123456789abcdef\x04\x01\x00\x00\x00"))
	f.Add(bytes.Repeat([]byte{1}, 5000))
	f.Add([]byte(strings.Repeat("\x01\xff\x00\x00"+strings.Repeat("x", 255), 16)))
	f.Fuzz(func(t *testing.T, b []byte) {
		ids := DecodeNamespaceList(b)
		if again, err := AppendNamespaceList(nil, ids); err != nil || !slices.Equal(DecodeNamespaceList(again), ids) {
			t.Errorf("%#x after a round trip % x, %v", ids, again, err)
		}
		list, err := DecodeNamespaceDescriptors(b)
		if err != nil {
			return
		}
		again, err := AppendNamespaceDescriptors(nil, list)
		if err != nil {
			t.Fatalf("%+v was decoded and cannot be encoded: %v", list, err)
		}
		if got, err := DecodeNamespaceDescriptors(again); err != nil || !reflect.DeepEqual(got, list) {
			t.Errorf("%+v after a round trip %+v, %v", list, got, err)
		}
	})
}
