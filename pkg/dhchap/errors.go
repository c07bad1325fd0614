package dhchap

import (
	"errors"
	"fmt"
	"io"
)

// Explanation says why an authentication failed: the reason code explanation of
// AUTH_Failure1 and AUTH_Failure2 (Base "AUTH_Failure reason code
// explanations"). It is an error; every [*Error] has one.
type Explanation uint8

// Explanations, for errors.Is.
const (
	ErrAuthenticationFailed  Explanation = 1
	ErrProtocolUnusable      Explanation = 2
	ErrConcatenationMismatch Explanation = 3
	ErrHashUnusable          Explanation = 4
	ErrGroupUnusable         Explanation = 5
	ErrIncorrectPayload      Explanation = 6
	ErrIncorrectMessage      Explanation = 7
)

var explanations = [...]string{
	ErrAuthenticationFailed:  "authentication failed",
	ErrProtocolUnusable:      "authentication protocol not usable",
	ErrConcatenationMismatch: "secure channel concatenation mismatch",
	ErrHashUnusable:          "hash function not usable",
	ErrGroupUnusable:         "DH group not usable",
	ErrIncorrectPayload:      "incorrect payload",
	ErrIncorrectMessage:      "incorrect protocol message",
}

func (e Explanation) Error() string {
	if int(e) < len(explanations) && explanations[e] != "" {
		return explanations[e]
	}
	return fmt.Sprintf("failure explanation %#02x", uint8(e))
}

// ErrNoMessage means that the controller has nothing to say: the host asks
// before it has sent anything, or once more.
var ErrNoMessage = errors.New("DH-HMAC-CHAP: there is no message to receive")

// Error is why a transaction failed.
type Error struct {
	Explanation Explanation
	Peer        bool   // the peer said so in its AUTH_Failure; otherwise this side found it
	Detail      string // for people, may be empty
}

func (e *Error) Error() string {
	text := "DH-HMAC-CHAP: "
	if e.Peer {
		text += "the peer says: "
	}
	text += e.Explanation.Error()
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	return text
}

func (e *Error) Unwrap() error { return e.Explanation }

func fail(x Explanation, format string, args ...any) error {
	return &Error{Explanation: x, Detail: fmt.Sprintf(format, args...)}
}

// peerFailure turns the AUTH_Failure of the peer into an error.
func peerFailure(_ uint16, x Explanation, err error) error {
	if err != nil {
		return err
	}
	return &Error{Explanation: x, Peer: true}
}

// fromPeer reports that the peer knows of err.
func fromPeer(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Peer
}

// explain returns what the peer is told about err.
func explain(err error) Explanation {
	if x, ok := errors.AsType[Explanation](err); ok {
		return x
	}
	return ErrAuthenticationFailed
}

func readRandom(rand io.Reader, b []byte) error {
	if _, err := io.ReadFull(rand, b); err != nil {
		return fmt.Errorf("DH-HMAC-CHAP: no random numbers: %w", err)
	}
	return nil
}
