package dhchap

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"io"
	"slices"
)

// ControllerConfig is what a controller needs to authenticate a host.
type ControllerConfig struct {
	HostNQN string // of the Connect command
	SubNQN  string // likewise
	HostKey Key    // what the host has to know; without it nobody is authenticated

	// ControllerKey is by what the controller proves its own identity if the
	// host asks for that. Without it such a host is refused.
	ControllerKey Key

	// Hashes and Groups are those allowed, the preferred ones first; nil means
	// all of the package, the cheapest first.
	Hashes []Hash
	Groups []Group

	Rand io.Reader // nil: crypto/rand
}

// Controller is the controller's side of one transaction on one queue. A host
// that authenticates again gets a new Controller. It is not safe for concurrent
// use.
//
// The protocol goes on independently of the status of the commands: also when
// Send returns an error, the Authentication Send command succeeds, and the host
// learns of it by what it receives next.
type Controller struct {
	cfg ControllerConfig
	transaction
	next   step
	out    []byte // what the host has not yet received
	failed bool

	exchange *exchange
	seqNum   uint32 // S1
	value    []byte // C1
}

var controllerSteps = map[step]func(*Controller, []byte) error{
	stepNegotiate: (*Controller).negotiate,
	stepReply:     (*Controller).reply,
	stepSuccess2:  (*Controller).success2,
}

// NewController starts the controller's side.
func NewController(cfg ControllerConfig) *Controller {
	cfg.Rand = cmp.Or(cfg.Rand, rand.Reader)
	if cfg.Hashes == nil {
		cfg.Hashes = Hashes()
	}
	if cfg.Groups == nil {
		cfg.Groups = Groups()
	}
	return &Controller{cfg: cfg, transaction: transaction{hostNQN: cfg.HostNQN, subNQN: cfg.SubNQN}}
}

// Send takes the data of an Authentication Send command. An error, mostly an
// [*Error], ends the transaction; the host has yet to receive the
// AUTH_Failure1, unless the failure was its own message.
func (c *Controller) Send(msg []byte) error {
	err := c.take(msg)
	if err == nil || c.failed {
		return err
	}
	c.failed = true
	c.next = stepOver
	c.out = nil
	if !fromPeer(err) {
		c.out = appendFailure(nil, idFailure1, c.tid, explain(err))
	}
	return err
}

func (c *Controller) take(msg []byte) error {
	id, tid, err := peek(msg)
	if err != nil {
		return err
	}
	if id == idFailure2 {
		return peerFailure(decodeFailure(msg, idFailure2))
	}
	if c.next == stepNegotiate {
		c.tid = tid // for a Failure1 if nothing else
	}
	handle, ok := controllerSteps[c.next]
	if !ok || c.out != nil {
		return fail(ErrIncorrectMessage, "%v where none is expected", id)
	}
	return handle(c, msg)
}

// Receive returns the data for an Authentication Receive command, or
// ErrNoMessage. After an AUTH_Failure1, which makes the transaction over and
// not authenticated, the connection is to be closed.
func (c *Controller) Receive() ([]byte, error) {
	if c.out == nil {
		return nil, ErrNoMessage
	}
	msg := c.out
	c.out = nil
	return msg, nil
}

// Done reports whether the transaction is over, which it is not before the host
// has received the last message, and whether the host is authenticated by it.
func (c *Controller) Done() (authenticated, over bool) {
	over = c.next == stepOver && c.out == nil
	return over && !c.failed, over
}

// Negotiated returns what the controller has chosen, once the host has sent its
// AUTH_Negotiate.
func (c *Controller) Negotiated() (Hash, Group) { return c.hash, c.group }

func (c *Controller) negotiate(msg []byte) error {
	m, err := DecodeNegotiate(msg)
	if err != nil {
		return err
	}
	if c.cfg.HostKey.IsZero() {
		return fail(ErrAuthenticationFailed, "there is no key for the host")
	}
	if m.SecureChannel != NoSecureChannel {
		return fail(ErrConcatenationMismatch, "the host wants secure channel %d", m.SecureChannel)
	}
	h := slices.IndexFunc(c.cfg.Hashes, func(h Hash) bool { return h.Size() > 0 && slices.Contains(m.Hashes, h) })
	if h < 0 {
		return fail(ErrHashUnusable, "the host has %v, allowed are %v", m.Hashes, c.cfg.Hashes)
	}
	g := slices.IndexFunc(c.cfg.Groups, func(g Group) bool { return g.known() && slices.Contains(m.Groups, g) })
	if g < 0 {
		return fail(ErrGroupUnusable, "the host has %v, allowed are %v", m.Groups, c.cfg.Groups)
	}
	c.hash, c.group = c.cfg.Hashes[h], c.cfg.Groups[g]

	if c.value, c.seqNum, err = newChallenge(c.hash, c.cfg.Rand); err != nil {
		return err
	}
	out := Challenge{TID: c.tid, Hash: c.hash, Group: c.group, SeqNum: c.seqNum, Value: c.value}
	if c.group != GroupNull {
		if c.exchange, err = newExchange(c.group, c.cfg.Rand); err != nil {
			return err
		}
		out.DHValue = c.exchange.public
	}
	c.next = stepReply
	c.out, err = out.AppendBinary(nil)
	return err
}

func (c *Controller) reply(msg []byte) error {
	m, err := DecodeReply(msg)
	if err != nil {
		return err
	}
	if err := cmp.Or(c.checkTID(m.TID), c.checkHL(len(m.Response)), c.checkDHValue(len(m.DHValue))); err != nil {
		return err
	}
	if m.Value != nil && bytes.Equal(m.Value, c.value) {
		return fail(ErrAuthenticationFailed, "the host sends back the challenge")
	}
	if err := c.agree(c.exchange, m.DHValue); err != nil {
		return err
	}
	if !hmac.Equal(m.Response, c.r1(c.cfg.HostKey, c.value, c.seqNum)) {
		return fail(ErrAuthenticationFailed, "the host does not have the key")
	}
	out := Success1{TID: c.tid, HL: uint8(c.hash.Size())}
	c.next = stepOver
	// A challenge with S2 = 0 is for secure channel concatenation only.
	if m.Value != nil && m.SeqNum != 0 {
		if c.cfg.ControllerKey.IsZero() {
			return fail(ErrAuthenticationFailed, "the host wants the controller authenticated, which has no key")
		}
		out.Response = c.r2(c.cfg.ControllerKey, m.Value, m.SeqNum)
		c.next = stepSuccess2
	}
	c.out, err = out.AppendBinary(nil)
	return err
}

func (c *Controller) success2(msg []byte) error {
	m, err := DecodeSuccess2(msg)
	if err != nil {
		return err
	}
	c.next = stepOver
	return c.checkTID(m.TID)
}
