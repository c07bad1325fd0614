//go:build !linux

package target

import (
	"errors"
	"net/netip"
)

// blackHole needs what only Linux does with a full queue.
type blackHole struct{}

func digBlackHole(netip.AddrPort) (*blackHole, error) {
	return nil, errors.New("black holes need Linux")
}

func (*blackHole) fill() {}
