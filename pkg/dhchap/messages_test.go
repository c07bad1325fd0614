package dhchap

import (
	"bytes"
	"encoding"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// message is any message: they all encode alike.
type message interface {
	AppendBinary(b []byte) ([]byte, error)
}

var _ encoding.BinaryAppender = message(nil)

func encode(t testing.TB, m message) []byte {
	t.Helper()
	b, err := m.AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// decode reads a message of the given kind.
func decode(id messageID, b []byte) (message, error) {
	switch id {
	case idNegotiate:
		return DecodeNegotiate(b)
	case idChallenge:
		return DecodeChallenge(b)
	case idReply:
		return DecodeReply(b)
	case idSuccess1:
		return DecodeSuccess1(b)
	case idSuccess2:
		return DecodeSuccess2(b)
	case idFailure1:
		return DecodeFailure1(b)
	default:
		return DecodeFailure2(b)
	}
}

type layout struct {
	name string
	id   messageID
	m    message
	wire []byte
}

func layouts() []layout {
	return []layout{
		{
			"negotiate", idNegotiate,
			Negotiate{TID: 0x0201, SecureChannel: 2, Hashes: []Hash{1, 2, 0xe0}, Groups: []Group{0, 5}},
			slices.Concat([]byte{0, 0, 0, 0, 1, 2, 2, 1}, []byte{1, 0, 3, 2, 1, 2, 0xe0}, make([]byte, 27), []byte{0, 5}, make([]byte, 28)),
		},
		{
			"challenge", idChallenge,
			Challenge{TID: 0x0201, Hash: SHA256, Group: FFDHE2048, SeqNum: 0x06050403, Value: count(32), DHValue: bytes.Repeat([]byte{9}, 256)},
			slices.Concat([]byte{1, 1, 0, 0, 1, 2, 32, 0, 1, 1, 0, 1, 3, 4, 5, 6}, count(32), bytes.Repeat([]byte{9}, 256)),
		},
		{
			"challenge without DH", idChallenge,
			Challenge{TID: 7, Hash: SHA512, SeqNum: 1, Value: count(64), DHValue: []byte{}},
			slices.Concat([]byte{1, 1, 0, 0, 7, 0, 64, 0, 3, 0, 0, 0, 1, 0, 0, 0}, count(64)),
		},
		{
			"reply", idReply,
			Reply{TID: 0x0201, SeqNum: 0x06050403, Response: count(32), Value: bytes.Repeat([]byte{8}, 32), DHValue: bytes.Repeat([]byte{9}, 256)},
			slices.Concat([]byte{1, 2, 0, 0, 1, 2, 32, 0, 1, 0, 0, 1, 3, 4, 5, 6}, count(32), bytes.Repeat([]byte{8}, 32), bytes.Repeat([]byte{9}, 256)),
		},
		{
			"reply without a challenge", idReply,
			Reply{TID: 7, Response: count(48), DHValue: []byte{}},
			slices.Concat([]byte{1, 2, 0, 0, 7, 0, 48, 0, 0, 0, 0, 0, 0, 0, 0, 0}, count(48), make([]byte, 48)),
		},
		{
			"success1", idSuccess1,
			Success1{TID: 0x0201, HL: 32, Response: count(32)},
			slices.Concat([]byte{1, 3, 0, 0, 1, 2, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0}, count(32)),
		},
		{
			"success1 without a response", idSuccess1,
			Success1{TID: 7, HL: 48},
			slices.Concat([]byte{1, 3, 0, 0, 7, 0, 48, 0, 0, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 48)),
		},
		{"success2", idSuccess2, Success2{TID: 0x0201}, append([]byte{1, 4, 0, 0, 1, 2}, make([]byte, 10)...)},
		{"failure1", idFailure1, Failure1{0x0201, ErrIncorrectPayload}, []byte{0, 0xf1, 0, 0, 1, 2, 1, 6}},
		{"failure2", idFailure2, Failure2{0x0201, ErrAuthenticationFailed}, []byte{0, 0xf0, 0, 0, 1, 2, 1, 1}},
	}
}

func TestMessageLayout(t *testing.T) {
	for _, tc := range layouts() {
		t.Run(tc.name, func(t *testing.T) {
			got, err := tc.m.AppendBinary([]byte("before"))
			if want := slices.Concat([]byte("before"), tc.wire); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("on the wire\n% x, want\n% x, %v", got, want, err)
			}
			for _, tail := range [][]byte{nil, make([]byte, BufferSize), []byte("garbage")} {
				m, err := decode(tc.id, slices.Concat(tc.wire, tail))
				if err != nil || !cmp.Equal(m, tc.m) {
					t.Errorf("with %d bytes behind it: %v, %s", len(tail), err, cmp.Diff(tc.m, m))
				}
			}
			for _, other := range layouts() {
				if _, err := decode(tc.id, other.wire); other.id != tc.id && !errors.Is(err, ErrIncorrectMessage) {
					t.Errorf("a %v read as %v: %v", other.name, tc.id, err)
				}
			}
		})
	}
}

// The room for a response is all that may lack, where there is none.
func TestMessageCutShort(t *testing.T) {
	for _, tc := range layouts() {
		t.Run(tc.name, func(t *testing.T) {
			enough := len(tc.wire)
			if s, ok := tc.m.(Success1); ok && s.Response == nil {
				enough = headerSize
			}
			for n := range tc.wire {
				_, err := decode(tc.id, tc.wire[:n])
				if n >= enough {
					if err != nil {
						t.Errorf("%d bytes: %v", n, err)
					}
				} else if !errors.Is(err, ErrIncorrectPayload) {
					t.Errorf("%d bytes of %d: %v", n, len(tc.wire), err)
				}
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	negotiate, reply, success := layouts()[0].wire, layouts()[3].wire, layouts()[5].wire
	for _, tc := range []struct {
		name string
		id   messageID
		wire []byte
		at   int
		v    byte
		want Explanation
	}{
		{"no protocol", idNegotiate, negotiate, 7, 0, ErrProtocolUnusable},
		{"two protocols in the room of one", idNegotiate, negotiate, 7, 2, ErrIncorrectPayload},
		{"another protocol", idNegotiate, negotiate, 8, 2, ErrProtocolUnusable},
		{"no hash function", idNegotiate, negotiate, 10, 0, ErrIncorrectPayload},
		{"31 hash functions", idNegotiate, negotiate, 10, 31, ErrIncorrectPayload},
		{"no group", idNegotiate, negotiate, 11, 0, ErrIncorrectPayload},
		{"255 groups", idNegotiate, negotiate, 11, 255, ErrIncorrectPayload},
		{"CVALID 2", idReply, reply, 8, 2, ErrIncorrectPayload},
		{"HL too large", idReply, reply, 6, 33, ErrIncorrectPayload},
		{"DHVLEN too large", idReply, reply, 10, 1, ErrIncorrectPayload},
		{"RVALID 255", idSuccess1, success, 8, 255, ErrIncorrectPayload},
		{"HL of Success1 too large", idSuccess1, success, 6, 33, ErrIncorrectPayload},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := bytes.Clone(tc.wire)
			b[tc.at] = tc.v
			_, err := decode(tc.id, b)
			var e *Error
			if !errors.Is(err, tc.want) || !errors.As(err, &e) || e.Peer {
				t.Errorf("%v, want %v", err, tc.want)
			}
		})
	}
}

// A host may know more protocols than the one.
func TestNegotiateSecondProtocol(t *testing.T) {
	want := Negotiate{TID: 3, Hashes: []Hash{SHA384}, Groups: []Group{FFDHE3072}}
	b := encode(t, want)
	other := make([]byte, descriptorSize)
	other[0] = 2
	b = slices.Concat(b[:negotiateSize], other, b[negotiateSize:])
	b[7] = 2
	got, err := DecodeNegotiate(b)
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, m := range []message{
		Negotiate{Groups: []Group{0}},
		Negotiate{Hashes: []Hash{1}},
		Negotiate{Hashes: make([]Hash, 31), Groups: []Group{0}},
		Negotiate{Hashes: []Hash{1}, Groups: make([]Group, 31)},
		Challenge{Value: make([]byte, 256)},
		Challenge{DHValue: make([]byte, 1<<16)},
		Reply{Response: make([]byte, 256), Value: make([]byte, 256)},
		Reply{Response: make([]byte, 32), Value: make([]byte, 33)},
		Reply{DHValue: make([]byte, 1<<16)},
		Success1{HL: 32, Response: make([]byte, 31)},
	} {
		if b, err := m.AppendBinary([]byte("before")); err == nil || string(b) != "before" {
			t.Errorf("%T: %d bytes, %v", m, len(b), err)
		}
	}
}

func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want string
	}{
		{&Error{Explanation: ErrHashUnusable, Detail: "why"}, "DH-HMAC-CHAP: hash function not usable: why"},
		{&Error{Explanation: ErrAuthenticationFailed, Peer: true}, "DH-HMAC-CHAP: the peer says: authentication failed"},
		{&Error{Explanation: 0, Peer: true}, "DH-HMAC-CHAP: the peer says: failure explanation 0x00"},
		{&Error{Explanation: 0xff, Peer: true}, "DH-HMAC-CHAP: the peer says: failure explanation 0xff"},
	} {
		if tc.err.Error() != tc.want {
			t.Errorf("%q, want %q", tc.err, tc.want)
		}
	}
	if messageID(0x0105).String() != "message 01/05" || !strings.Contains(idReply.String(), "Reply") {
		t.Error("names of messages")
	}
}

// FuzzDecode reads every kind of message: what can be read can be written, and
// comes out the same.
func FuzzDecode(f *testing.F) {
	for _, l := range layouts() {
		f.Add(l.wire)
		f.Add(l.wire[:len(l.wire)/2])
	}
	f.Add(bytes.Repeat([]byte{0xff}, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		for id := range messageNames {
			first, err := decode(id, b)
			if err != nil {
				if _, ok := errors.AsType[*Error](err); !ok {
					t.Errorf("%v: an error of type %T", id, err)
				}
				continue
			}
			second, err := decode(id, encode(t, first))
			if err != nil || !cmp.Equal(first, second) {
				t.Errorf("%v: %v, %s", id, err, cmp.Diff(first, second))
			}
		}
	})
}
