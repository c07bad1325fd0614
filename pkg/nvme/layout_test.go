package nvme

import (
	"bytes"
	"encoding"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// at is what has to be at an offset. Numbers are little-endian, whatever the
// machine: they are written as bytes.
type at struct {
	offset int
	bytes  string
}

// image is a structure as the specification draws it; what is not mentioned is
// zero.
func image(size int, fields ...at) []byte {
	b := make([]byte, size)
	for _, f := range fields {
		copy(b[f.offset:], f.bytes)
	}
	return b
}

// padded is a text with blanks behind it.
func padded(s string, size int) string { return s + strings.Repeat(" ", size-len(s)) }

// checkImage compares what was encoded with what the specification draws.
func checkImage(t *testing.T, v encoding.BinaryAppender, want []byte) {
	t.Helper()
	prefix := []byte("before")
	got, err := v.AppendBinary(prefix)
	if err != nil || !bytes.HasPrefix(got, prefix) {
		t.Fatalf("%T: appended %d bytes, %v", v, len(got), err)
	}
	sameBytes(t, got[len(prefix):], want)
}

func sameBytes(t *testing.T, got, want []byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			end := min(i+16, len(got), len(want))
			t.Fatalf("from offset %d (%#x) on: % x, want % x", i, i, got[i:end], want[i:end])
		}
	}
}

// checkDecode compares what was decoded, and that one byte less is not.
func checkDecode[T any](t *testing.T, decode func([]byte) (T, error), b []byte, want T) {
	t.Helper()
	got, err := decode(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("decoded %+v, %v\nwant %+v", got, err, want)
	}
	if got, err := decode(b[:len(b)-1]); err == nil {
		t.Errorf("a byte is missing: %+v", got)
	}
}

// checkFixedPoint: what was decoded and is encoded decodes to the same.
func checkFixedPoint[T encoding.BinaryAppender](t *testing.T, decode func([]byte) (T, error), b []byte) {
	t.Helper()
	first, err := decode(b)
	if err != nil {
		return
	}
	encoded, err := first.AppendBinary(nil)
	if err != nil {
		t.Fatalf("%+v was decoded and cannot be encoded: %v", first, err)
	}
	second, err := decode(encoded)
	if err != nil || !reflect.DeepEqual(first, second) {
		t.Errorf("decoded %+v, after a round trip %+v, %v", first, second, err)
	}
}

func TestFieldError(t *testing.T) {
	good := ConnectData{SubNQN: "nqn.a", HostNQN: "nqn.b"}
	b, err := good.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		offset int
		name   string
	}{
		{ConnectDataOffSubNQN, "SUBNQN"},
		{ConnectDataOffHostNQN, "HOSTNQN"},
	} {
		bad := bytes.Clone(b)
		bad[tc.offset+2] = '\n'
		_, err := DecodeConnectData(bad)
		field, ok := errors.AsType[*FieldError](err)
		if !ok || field.Offset != tc.offset || !strings.Contains(err.Error(), tc.name) {
			t.Errorf("%v, want one of %s at %d", err, tc.name, tc.offset)
		}
	}
	both := ConnectData{SubNQN: "\x00", HostNQN: strings.Repeat("x", 257)}
	if b, err := both.AppendBinary([]byte("x")); len(b) != 1 || err == nil || !strings.Contains(err.Error(), "SUBNQN") {
		t.Errorf("%d bytes, %v; want the first of the errors and nothing appended", len(b), err)
	}
}
