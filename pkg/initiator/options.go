package initiator

import (
	"cmp"
	"context"
	"net"
	"time"

	"github.com/nvme-stas/stas/pkg/dhchap"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// Dialer makes a connection, as [net.Dialer.DialContext] does.
type Dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Options say what to connect to, and as whom.
type Options struct {
	Address string // host and port: "192.0.2.1:8009", "[fe80::1%eth0]:8009"
	Dialer  Dialer // nil: that of the zero net.Dialer
	SubNQN  string // "": nvme.WellKnownDiscoveryNQN
	HostNQN string
	HostID  nvme.HostID

	// KATO (keep alive timeout) is how long the controller may be silent
	// before the connection counts as lost. With 0 there is no keep alive; only
	// discovery controllers take that.
	KATO time.Duration

	QueueSize    uint16 // entries of the admin queue, at least 2; 0: 32
	HeaderDigest bool
	DataDigest   bool

	// HostKey is by what the host proves its identity if the controller wants
	// that. With a ControllerKey the controller has to prove its own in turn.
	HostKey       dhchap.Key
	ControllerKey dhchap.Key
	Hashes        []dhchap.Hash // offered; nil: all
	Groups        []dhchap.Group
}

const (
	adminQueueSize = 32      // what Linux uses
	ioQueueSize    = 128     // likewise
	minQueueSize   = 2       // entries; one of them is always empty
	maxTransfer    = 1 << 20 // bytes that one command may move
)

func (o Options) withDefaults() Options {
	if o.Dialer == nil {
		o.Dialer = new(net.Dialer).DialContext
	}
	o.SubNQN = cmp.Or(o.SubNQN, nvme.WellKnownDiscoveryNQN)
	o.QueueSize = max(minQueueSize, cmp.Or(o.QueueSize, adminQueueSize))
	return o
}
