package dhchap

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"io"
	"slices"
)

// HostConfig is what a host needs to be authenticated.
type HostConfig struct {
	HostNQN string // of the Connect command
	SubNQN  string // likewise
	Key     Key    // by what the host proves its identity

	// ControllerKey, if there is one, is what the controller has to know.
	ControllerKey Key

	TID uint16 // ID of the transaction; another one for each of a controller

	// Hashes and Groups are those offered; nil means all of the package.
	Hashes []Hash
	Groups []Group

	Rand io.Reader // nil: crypto/rand
}

// Host is the host's side of one transaction on one queue. It is not safe for
// concurrent use.
type Host struct {
	cfg HostConfig
	transaction
	next     step
	response []byte // the R2 that the controller has to send; nil: it was not challenged
}

// The host makes the first message and takes the others.
var hostSteps = map[step]func(*Host, []byte) (send []byte, err error){
	stepNegotiate: (*Host).negotiate,
	stepChallenge: (*Host).challenge,
	stepSuccess1:  (*Host).success1,
}

// NewHost starts the host's side.
func NewHost(cfg HostConfig) *Host {
	cfg.Rand = cmp.Or(cfg.Rand, rand.Reader)
	if cfg.Hashes == nil {
		cfg.Hashes = Hashes()
	}
	if cfg.Groups == nil {
		cfg.Groups = Groups()
	}
	return &Host{cfg: cfg, transaction: transaction{hostNQN: cfg.HostNQN, subNQN: cfg.SubNQN, tid: cfg.TID}}
}

// Next takes what the controller has sent, nothing in the first call, and
// returns what to send. Unless done is set, an Authentication Receive follows,
// and Next is called with its data.
//
// After done without an error both sides are authenticated as far as there are
// keys. After an error, mostly an [*Error], the transaction is over too: what
// there is to send is an AUTH_Failure2, after which the connection is to be
// closed.
func (h *Host) Next(received []byte) (send []byte, done bool, err error) {
	send, err = h.take(received)
	if err != nil {
		begun := h.next != stepNegotiate && h.next != stepOver
		h.next = stepOver
		if fromPeer(err) || !begun {
			return nil, false, err
		}
		return appendFailure(nil, idFailure2, h.tid, explain(err)), false, err
	}
	return send, h.next == stepOver, nil
}

func (h *Host) take(received []byte) ([]byte, error) {
	handle, ok := hostSteps[h.next]
	if !ok {
		return nil, fail(ErrIncorrectMessage, "the transaction is over")
	}
	if id, _, err := peek(received); err == nil && id == idFailure1 {
		return nil, peerFailure(decodeFailure(received, idFailure1))
	}
	return handle(h, received)
}

// Negotiated returns what the controller has chosen, once the host has its
// Challenge.
func (h *Host) Negotiated() (Hash, Group) { return h.hash, h.group }

func (h *Host) negotiate([]byte) ([]byte, error) {
	if h.cfg.Key.IsZero() {
		return nil, fail(ErrAuthenticationFailed, "there is no key for the host")
	}
	send, err := Negotiate{TID: h.tid, Hashes: h.cfg.Hashes, Groups: h.cfg.Groups}.AppendBinary(nil)
	if err != nil {
		return nil, err
	}
	h.next = stepChallenge
	return send, nil
}

func (h *Host) challenge(received []byte) ([]byte, error) {
	m, err := DecodeChallenge(received)
	if err != nil {
		return nil, err
	}
	if err := h.checkTID(m.TID); err != nil {
		return nil, err
	}
	if m.Hash.Size() == 0 || !slices.Contains(h.cfg.Hashes, m.Hash) {
		return nil, fail(ErrHashUnusable, "the controller chose %v, offered were %v", m.Hash, h.cfg.Hashes)
	}
	if !m.Group.known() || !slices.Contains(h.cfg.Groups, m.Group) {
		return nil, fail(ErrGroupUnusable, "the controller chose %v, offered were %v", m.Group, h.cfg.Groups)
	}
	h.hash, h.group = m.Hash, m.Group
	if err := cmp.Or(h.checkHL(len(m.Value)), h.checkDHValue(len(m.DHValue))); err != nil {
		return nil, err
	}
	reply := Reply{TID: h.tid}
	if h.group != GroupNull {
		x, err := newExchange(h.group, h.cfg.Rand)
		if err != nil {
			return nil, err
		}
		if err := h.agree(x, m.DHValue); err != nil {
			return nil, err
		}
		reply.DHValue = x.public
	}
	reply.Response = h.r1(h.cfg.Key, m.Value, m.SeqNum)
	if !h.cfg.ControllerKey.IsZero() {
		if reply.Value, reply.SeqNum, err = newChallenge(h.hash, h.cfg.Rand); err != nil {
			return nil, err
		}
		h.response = h.r2(h.cfg.ControllerKey, reply.Value, reply.SeqNum)
	}
	send, err := reply.AppendBinary(nil)
	if err != nil {
		return nil, err
	}
	h.next = stepSuccess1
	return send, nil
}

func (h *Host) success1(received []byte) ([]byte, error) {
	m, err := DecodeSuccess1(received)
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(h.checkTID(m.TID), h.checkHL(int(m.HL))); err != nil {
		return nil, err
	}
	switch {
	case h.response == nil && m.Response != nil:
		return nil, fail(ErrIncorrectPayload, "the controller responds to no challenge")
	case h.response == nil:
		h.next = stepOver
		return nil, nil
	case m.Response == nil: // as one would who does not have the key
		return nil, fail(ErrAuthenticationFailed, "the controller does not respond to the challenge")
	case !hmac.Equal(m.Response, h.response):
		return nil, fail(ErrAuthenticationFailed, "the controller does not have the key")
	}
	h.next = stepOver
	return Success2{h.tid}.AppendBinary(nil)
}
