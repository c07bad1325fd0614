package dhchap

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// BufferSize is how much a host allocates for a message of the controller, the
// allocation length (AL) of its Authentication Receive; the longest message,
// a Challenge of FFDHE8192, has 1,104 bytes.
const BufferSize = 4096

// messageID is AUTH_TYPE and AUTH_ID, the first two bytes of every message, in
// this order.
type messageID uint16

const (
	idNegotiate messageID = 0x0000
	idFailure1  messageID = 0x00f1
	idFailure2  messageID = 0x00f0
	idChallenge messageID = 0x0101
	idReply     messageID = 0x0102
	idSuccess1  messageID = 0x0103
	idSuccess2  messageID = 0x0104
)

var messageNames = map[messageID]string{
	idNegotiate: "AUTH_Negotiate",
	idFailure1:  "AUTH_Failure1",
	idFailure2:  "AUTH_Failure2",
	idChallenge: "DH-HMAC-CHAP_Challenge",
	idReply:     "DH-HMAC-CHAP_Reply",
	idSuccess1:  "DH-HMAC-CHAP_Success1",
	idSuccess2:  "DH-HMAC-CHAP_Success2",
}

func (id messageID) String() string {
	if name, ok := messageNames[id]; ok {
		return name
	}
	return fmt.Sprintf("message %02x/%02x", uint16(id)>>8, uint16(id)&0xff)
}

// Offsets of what is at the same place in more than one message, and sizes
// without the fields at the end.
const (
	offTID     = 4
	offHL      = 6
	offDHVLEN  = 10
	offSEQNUM  = 12
	headerSize = 16 // of the four DH-HMAC-CHAP messages

	negotiateSize = 8
	failureSize   = 8
)

// Offsets in a protocol descriptor of AUTH_Negotiate.
const (
	descriptorSize = 64
	offHashIDs     = 4
	offGroupIDs    = 34
	listSize       = 30

	protocolDHCHAP = 1 // the AuthID of DH-HMAC-CHAP
)

// reasonFailed is the one reason code of AUTH_Failure: authentication failure.
const reasonFailed = 1

// SecureChannel is SC_C of AUTH_Negotiate: the secure channel that the host
// wants to follow on the authentication.
type SecureChannel uint8

// NoSecureChannel is the only one that this package speaks.
const NoSecureChannel SecureChannel = 0

// peek returns what kind of message b is, and its T_ID.
func peek(b []byte) (messageID, uint16, error) {
	if len(b) < offTID+2 {
		return 0, 0, fail(ErrIncorrectPayload, "%d bytes are no message", len(b))
	}
	return messageID(binary.BigEndian.Uint16(b)), binary.LittleEndian.Uint16(b[offTID:]), nil
}

// begin checks that b is the message id with at least size bytes.
func begin(b []byte, id messageID, size int) (tid uint16, err error) {
	got, tid, err := peek(b)
	switch {
	case err != nil:
		return 0, err
	case got != id:
		return 0, fail(ErrIncorrectMessage, "%v where %v is expected", got, id)
	case len(b) < size:
		return 0, short(id, len(b), size)
	}
	return tid, nil
}

func short(id messageID, got, want int) error {
	return fail(ErrIncorrectPayload, "%v: %d bytes, want %d", id, got, want)
}

// start appends the first size bytes of a message, and returns them too.
func start(b []byte, id messageID, tid uint16, size int) (all, head []byte) {
	b = append(b, make([]byte, size)...)
	head = b[len(b)-size:]
	binary.BigEndian.PutUint16(head, uint16(id))
	binary.LittleEndian.PutUint16(head[offTID:], tid)
	return b, head
}

// The decoders take a message at the beginning of b and leave alone what is
// behind it, since hosts and targets transfer whole buffers. What they return
// lies in b. Their errors are [*Error].

// Negotiate opens a transaction: the host says what it can do.
type Negotiate struct {
	TID           uint16
	SecureChannel SecureChannel
	Hashes        []Hash // the host's, known here or not
	Groups        []Group
}

// DecodeNegotiate reads an AUTH_Negotiate. Other protocols than DH-HMAC-CHAP in
// it are passed over; if there is no other, the error is ErrProtocolUnusable.
func DecodeNegotiate(b []byte) (Negotiate, error) {
	tid, err := begin(b, idNegotiate, negotiateSize)
	if err != nil {
		return Negotiate{}, err
	}
	m := Negotiate{TID: tid, SecureChannel: SecureChannel(b[6])}
	napd := int(b[7])
	if want := negotiateSize + napd*descriptorSize; len(b) < want {
		return Negotiate{}, short(idNegotiate, len(b), want)
	}
	for d := range slices.Chunk(b[negotiateSize:][:napd*descriptorSize], descriptorSize) {
		if d[0] != protocolDHCHAP {
			continue
		}
		halen, dhlen := int(d[2]), int(d[3])
		if halen == 0 || halen > listSize || dhlen == 0 || dhlen > listSize {
			return Negotiate{}, fail(ErrIncorrectPayload, "%v: %d hash functions and %d groups, 1 to %d are allowed",
				idNegotiate, halen, dhlen, listSize)
		}
		for _, id := range d[offHashIDs:][:halen] {
			m.Hashes = append(m.Hashes, Hash(id))
		}
		for _, id := range d[offGroupIDs:][:dhlen] {
			m.Groups = append(m.Groups, Group(id))
		}
		return m, nil
	}
	return Negotiate{}, fail(ErrProtocolUnusable, "none of %d protocols is DH-HMAC-CHAP", napd)
}

// AppendBinary appends the message.
func (m Negotiate) AppendBinary(b []byte) ([]byte, error) {
	if n, g := len(m.Hashes), len(m.Groups); n == 0 || n > listSize || g == 0 || g > listSize {
		return b, fmt.Errorf("%v: %d hash functions and %d groups, 1 to %d are allowed", idNegotiate, n, g, listSize)
	}
	b, raw := start(b, idNegotiate, m.TID, negotiateSize+descriptorSize)
	raw[6] = byte(m.SecureChannel)
	raw[7] = 1 // NAPD
	d := raw[negotiateSize:]
	d[0] = protocolDHCHAP
	d[2], d[3] = byte(len(m.Hashes)), byte(len(m.Groups))
	for i, h := range m.Hashes {
		d[offHashIDs+i] = byte(h)
	}
	for i, g := range m.Groups {
		d[offGroupIDs+i] = byte(g)
	}
	return b, nil
}

// Challenge is the controller's answer to a Negotiate: what it has chosen, and
// what the host has to respond to.
type Challenge struct {
	TID     uint16
	Hash    Hash
	Group   Group
	SeqNum  uint32 // S1
	Value   []byte // C1; its length is HL
	DHValue []byte // empty with GroupNull
}

// DecodeChallenge reads a DH-HMAC-CHAP_Challenge. Whether its parts go together
// is not checked.
func DecodeChallenge(b []byte) (Challenge, error) {
	tid, err := begin(b, idChallenge, headerSize)
	if err != nil {
		return Challenge{}, err
	}
	hl, dhvlen := int(b[offHL]), int(binary.LittleEndian.Uint16(b[offDHVLEN:]))
	if want := headerSize + hl + dhvlen; len(b) < want {
		return Challenge{}, short(idChallenge, len(b), want)
	}
	return Challenge{
		TID: tid, Hash: Hash(b[8]), Group: Group(b[9]),
		SeqNum:  binary.LittleEndian.Uint32(b[offSEQNUM:]),
		Value:   b[headerSize:][:hl],
		DHValue: b[headerSize+hl:][:dhvlen],
	}, nil
}

// AppendBinary appends the message.
func (m Challenge) AppendBinary(b []byte) ([]byte, error) {
	if err := checkLengths(idChallenge, m.Value, m.DHValue); err != nil {
		return b, err
	}
	b, raw := start(b, idChallenge, m.TID, headerSize)
	raw[offHL] = byte(len(m.Value))
	raw[8], raw[9] = byte(m.Hash), byte(m.Group)
	binary.LittleEndian.PutUint16(raw[offDHVLEN:], uint16(len(m.DHValue)))
	binary.LittleEndian.PutUint32(raw[offSEQNUM:], m.SeqNum)
	return append(append(b, m.Value...), m.DHValue...), nil
}

// Reply is the host's answer to a Challenge. With a Value the host challenges
// the controller in its turn.
type Reply struct {
	TID      uint16
	SeqNum   uint32 // S2
	Response []byte // R1; its length is HL
	Value    []byte // C2, as long as the response; nil if CVALID is 0
	DHValue  []byte // empty with GroupNull
}

// DecodeReply reads a DH-HMAC-CHAP_Reply.
func DecodeReply(b []byte) (Reply, error) {
	tid, err := begin(b, idReply, headerSize)
	if err != nil {
		return Reply{}, err
	}
	valid, err := flag(idReply, "CVALID", b[8])
	if err != nil {
		return Reply{}, err
	}
	hl, dhvlen := int(b[offHL]), int(binary.LittleEndian.Uint16(b[offDHVLEN:]))
	if want := headerSize + 2*hl + dhvlen; len(b) < want {
		return Reply{}, short(idReply, len(b), want)
	}
	m := Reply{
		TID:      tid,
		SeqNum:   binary.LittleEndian.Uint32(b[offSEQNUM:]),
		Response: b[headerSize:][:hl],
		DHValue:  b[headerSize+2*hl:][:dhvlen],
	}
	if valid {
		m.Value = b[headerSize+hl:][:hl]
	}
	return m, nil
}

// AppendBinary appends the message.
func (m Reply) AppendBinary(b []byte) ([]byte, error) {
	value := m.Value
	if value == nil {
		value = make([]byte, len(m.Response))
	}
	if err := checkLengths(idReply, m.Response, m.DHValue); err != nil {
		return b, err
	}
	if len(value) != len(m.Response) {
		return b, fmt.Errorf("%v: a challenge of %d bytes with a response of %d", idReply, len(value), len(m.Response))
	}
	b, raw := start(b, idReply, m.TID, headerSize)
	raw[offHL] = byte(len(m.Response))
	if m.Value != nil {
		raw[8] = 1
	}
	binary.LittleEndian.PutUint16(raw[offDHVLEN:], uint16(len(m.DHValue)))
	binary.LittleEndian.PutUint32(raw[offSEQNUM:], m.SeqNum)
	return slices.Concat(b, m.Response, value, m.DHValue), nil
}

// Success1 says that the controller believes the host, and answers the host's
// challenge if there was one.
type Success1 struct {
	TID      uint16
	HL       uint8  // size of the hash
	Response []byte // R2, HL bytes; nil if RVALID is 0
}

// DecodeSuccess1 reads a DH-HMAC-CHAP_Success1. The book has room for a response
// even if there is none; a message without that room is taken too.
func DecodeSuccess1(b []byte) (Success1, error) {
	tid, err := begin(b, idSuccess1, headerSize)
	if err != nil {
		return Success1{}, err
	}
	valid, err := flag(idSuccess1, "RVALID", b[8])
	if err != nil {
		return Success1{}, err
	}
	m := Success1{TID: tid, HL: b[offHL]}
	if !valid {
		return m, nil
	}
	if want := headerSize + int(m.HL); len(b) < want {
		return Success1{}, short(idSuccess1, len(b), want)
	}
	m.Response = b[headerSize:][:m.HL]
	return m, nil
}

// AppendBinary appends the message.
func (m Success1) AppendBinary(b []byte) ([]byte, error) {
	if m.Response != nil && len(m.Response) != int(m.HL) {
		return b, fmt.Errorf("%v: a response of %d bytes, want %d", idSuccess1, len(m.Response), m.HL)
	}
	b, raw := start(b, idSuccess1, m.TID, headerSize+int(m.HL))
	raw[offHL] = m.HL
	if m.Response != nil {
		raw[8] = 1
		copy(raw[headerSize:], m.Response)
	}
	return b, nil
}

// Success2 says that the host believes the controller.
type Success2 struct{ TID uint16 }

// DecodeSuccess2 reads a DH-HMAC-CHAP_Success2.
func DecodeSuccess2(b []byte) (Success2, error) {
	tid, err := begin(b, idSuccess2, headerSize)
	return Success2{tid}, err
}

// AppendBinary appends the message.
func (m Success2) AppendBinary(b []byte) ([]byte, error) {
	b, _ = start(b, idSuccess2, m.TID, headerSize)
	return b, nil
}

// Failure1 is the controller's last message: no.
type Failure1 struct {
	TID         uint16
	Explanation Explanation
}

// Failure2 is the host's last message: no.
type Failure2 struct {
	TID         uint16
	Explanation Explanation
}

// DecodeFailure1 reads an AUTH_Failure1.
func DecodeFailure1(b []byte) (Failure1, error) {
	tid, x, err := decodeFailure(b, idFailure1)
	return Failure1{tid, x}, err
}

// DecodeFailure2 reads an AUTH_Failure2.
func DecodeFailure2(b []byte) (Failure2, error) {
	tid, x, err := decodeFailure(b, idFailure2)
	return Failure2{tid, x}, err
}

// AppendBinary appends the message.
func (m Failure1) AppendBinary(b []byte) ([]byte, error) {
	return appendFailure(b, idFailure1, m.TID, m.Explanation), nil
}

// AppendBinary appends the message.
func (m Failure2) AppendBinary(b []byte) ([]byte, error) {
	return appendFailure(b, idFailure2, m.TID, m.Explanation), nil
}

func decodeFailure(b []byte, id messageID) (uint16, Explanation, error) {
	tid, err := begin(b, id, failureSize)
	if err != nil {
		return 0, 0, err
	}
	return tid, Explanation(b[7]), nil
}

func appendFailure(b []byte, id messageID, tid uint16, x Explanation) []byte {
	b, raw := start(b, id, tid, failureSize)
	raw[6], raw[7] = reasonFailed, byte(x)
	return b
}

// flag reads CVALID or RVALID, of which other values than 0 and 1 are reserved.
func flag(id messageID, field string, v byte) (bool, error) {
	if v > 1 {
		return false, fail(ErrIncorrectPayload, "%v: %s is %d", id, field, v)
	}
	return v == 1, nil
}

// checkLengths refuses what HL and DHVLEN cannot tell.
func checkLengths(id messageID, hash, dh []byte) error {
	if len(hash) > 0xff || len(dh) > 0xffff {
		return fmt.Errorf("%v: %d and %d bytes do not fit", id, len(hash), len(dh))
	}
	return nil
}
