package dhchap

import (
	"bytes"
	"encoding/binary"
	"io"
)

// step is the message that comes next in a transaction.
type step uint8

const (
	stepNegotiate step = iota
	stepChallenge
	stepReply
	stepSuccess1
	stepSuccess2
	stepOver // none
)

// transaction is what both sides know of an authentication, and what the
// responses are computed from (Base "DH-HMAC-CHAP_Reply Message" and
// "DH-HMAC-CHAP_Success1 Message").
type transaction struct {
	hostNQN, subNQN string
	tid             uint16
	secureChannel   SecureChannel
	hash            Hash
	group           Group
	sessionKey      []byte // KS, the hash of the shared secret; nil with GroupNull
}

// agree computes the session key. The shared secret is hashed in the full size
// of the modulus: the book does not say so, but Linux and SPDK do.
func (t *transaction) agree(x *exchange, peer []byte) error {
	if t.group == GroupNull {
		return nil
	}
	secret, err := x.shared(peer)
	if err != nil {
		return err
	}
	t.sessionKey = t.hash.sum(secret)
	return nil
}

// r1 is the response by which the host proves that it has key.
func (t *transaction) r1(key Key, c1 []byte, s1 uint32) []byte {
	return t.response(key, c1, s1, "HostHost", t.hostNQN, t.subNQN)
}

// r2 is the response by which the controller proves that it has key.
func (t *transaction) r2(key Key, c2 []byte, s2 uint32) []byte {
	return t.response(key, c2, s2, "Controller", t.subNQN, t.hostNQN)
}

// response is HMAC(K, Ca || S || T_ID || SC_C || who || own NQN || 00h || other NQN).
func (t *transaction) response(key Key, challenge []byte, seq uint32, who, own, other string) []byte {
	if t.group != GroupNull { // Ca, the augmented challenge
		challenge = t.hash.mac(t.sessionKey, challenge)
	}
	b := binary.LittleEndian.AppendUint32(bytes.Clone(challenge), seq)
	b = binary.LittleEndian.AppendUint16(b, t.tid)
	b = append(b, byte(t.secureChannel))
	b = append(b, who+own+"\x00"+other...)
	return t.hash.mac(key.forNQN(own), b)
}

// checkTID refuses a message of another transaction. Linux calls that a wrong
// payload as a target, a wrong message as a host; here it is a wrong payload.
func (t *transaction) checkTID(tid uint16) error {
	if tid != t.tid {
		return fail(ErrIncorrectPayload, "the transaction ID is %d, want %d", tid, t.tid)
	}
	return nil
}

// checkHL refuses a length of a hash that is not that of the chosen function.
func (t *transaction) checkHL(hl int) error {
	if hl != t.hash.Size() {
		return fail(ErrIncorrectPayload, "the hash length is %d, %v has %d", hl, t.hash, t.hash.Size())
	}
	return nil
}

// checkDHValue refuses a length that the group cannot have, or that is no
// multiple of 4. A value is a number, and one without its leading zeros is one
// too; if it is wholly missing it is 0, which agree refuses.
func (t *transaction) checkDHValue(n int) error {
	size := t.group.Size()
	if n > size || n%4 != 0 {
		return fail(ErrIncorrectPayload, "the DH value has %d bytes, %v has %d", n, t.group, size)
	}
	return nil
}

// newChallenge draws a challenge and its sequence number, which is never 0:
// that would mean that no response is wanted. The book has the numbers
// count from a random one. To take a random one each time does as well.
func newChallenge(h Hash, rand io.Reader) (value []byte, seq uint32, err error) {
	raw := make([]byte, h.Size()+4)
	if err := readRandom(rand, raw); err != nil {
		return nil, 0, err
	}
	value = raw[:h.Size()]
	return value, max(1, binary.LittleEndian.Uint32(raw[h.Size():])), nil
}
