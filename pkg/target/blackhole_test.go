//go:build linux

package target

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/nvme-stas/stas/pkg/initiator"
)

// TestBlackHole is on real sockets: nobody answers, neither those who come nor
// those who are there, and afterwards all is as before.
func TestBlackHole(t *testing.T) {
	target, err := Open(Config{Listeners: []Listener{{Name: "a", Address: "127.0.0.1:0"}}}, Options{})
	must(t, err)
	defer target.Close()
	at := target.Listeners()[0].Address
	timedOut := func(err error) bool {
		timeout, ok := errors.AsType[net.Error](err)
		return errors.Is(err, context.DeadlineExceeded) || ok && timeout.Timeout()
	}
	dial := func(patience time.Duration) (*initiator.Controller, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		return initiator.Dial(ctx, initiator.Options{Address: at, HostNQN: hostNQN(1), KATO: time.Minute})
	}
	const long, short = time.Minute, 300 * time.Millisecond
	before, err := dial(long)
	must(t, err)
	defer before.Close()
	id, err := target.AddFault(Fault{Do: "black-hole"})
	must(t, err)
	equal(t, "state", target.Listeners()[0].State, string(listenHole))
	for range 3 {
		if _, err := dial(short); !timedOut(err) {
			t.Errorf("connecting to the black hole: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), short)
	defer cancel()
	if _, err := before.Identify(ctx); !timedOut(err) {
		t.Errorf("over a connection that existed: %v", err)
	}
	must(t, target.RemoveFault(id))
	after, err := dial(long)
	must(t, err)
	after.Close()
	must(t, target.RemoveListener("a"))
	if _, err := dial(long); err == nil {
		t.Error("connected to a listener that was removed")
	}
}
