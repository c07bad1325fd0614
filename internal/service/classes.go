package service

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

// class is a kind of failure: what it is called, how soon it is tried again,
// and what it says of the target.
type class struct {
	name string
	// first is the longest pause after the first failure. It doubles with each
	// further one, up to connect-retry-max, or less: see most.
	first time.Duration
	most  time.Duration // 0: connect-retry-max
	// cheap is an attempt that holds nobody up: it is made in user space, or ends
	// at once. For quickFor, such a target is asked every quickMost or so, however
	// many of its controllers wait.
	cheap bool
	// costly is one that holds up everybody for long: its pauses are long from
	// the beginning, and never short by chance.
	costly bool
	target reconcile.Verdict
}

// Timing of the attempts at what failed.
const (
	retryFirst = time.Second
	retryCap   = time.Minute            // connect-retry-max, unless configured
	retryLeast = 100 * time.Millisecond // no pause is shorter
	quickMost  = 900 * time.Millisecond
	quickFor   = 2 * time.Minute
	// patientAfter is how long a target is silent that is not just slow.
	patientAfter = 25 * time.Second
)

// The classes. Their names are in the reports, and described in stafctl(1) and
// stacctl(1).
var (
	// Something can be reached, where nothing listens: a target that is about to
	// start, or a discovery controller that does not yet.
	refused = &class{name: "refused", first: retryFirst, cheap: true, target: reconcile.Silent}
	// Nobody answers. An attempt takes seconds, but in user space (see Kernel.Probe).
	mute        = &class{name: "mute", first: retryFirst, cheap: true, target: reconcile.Silent}
	unreachable = &class{name: "unreachable", first: retryFirst, cheap: true, target: reconcile.Silent}
	// stalled is a target that falls silent after it has begun to speak: such an
	// attempt holds up all connects of the host for a minute (nvmf_dev_mutex).
	stalled = &class{name: "stalled", costly: true, target: reconcile.Silent}
	closed  = &class{name: "closed", first: retryFirst, target: reconcile.Answers}
	// The host lacks the interface or the address; when it gets it, it is tried at
	// once (Kernel.WatchNetwork).
	noSource = &class{name: "no source", first: retryFirst, target: reconcile.Silent}
	rejected = &class{name: "rejected", first: retryFirst, target: reconcile.Answers}
	// What only people can mend is not hurried: they will say when they have
	// (reload), and a target may lock out who fails too often.
	authentication = &class{name: "authentication", first: 10 * time.Second, target: reconcile.Answers}
	hostIdentity   = &class{name: "host identity", first: 10 * time.Second}
	unacceptable   = &class{name: "unacceptable", first: 5 * time.Second}
	unsupported    = &class{name: "unsupported", first: 10 * time.Second, target: reconcile.Answers}
	permission     = &class{name: "permission", first: 10 * time.Second}
	excluded       = &class{name: "excluded", first: 10 * time.Second}
	// duplicate is a connection that exists; it is looked for at once.
	duplicate = &class{name: "duplicate", first: retryFirst}
	heldBack  = &class{name: "held back", first: 5 * time.Second, most: 10 * time.Second}
	unstable  = &class{name: "unstable", first: retryFirst, target: reconcile.Answers}
	transient = &class{name: "transient", first: retryFirst}
	kernel    = &class{name: "kernel", first: retryFirst}
	other     = &class{name: "other", first: retryFirst}
)

// numbers has the class of each error number that a connect gives (nvme-fabrics,
// see fabrics.ConnectError), and what can be done about it. What it means
// stands in the error.
var numbers = map[unix.Errno]struct {
	class  *class
	remedy string
}{
	unix.ECONNREFUSED: {refused, "Start the target there, or correct the address and port."},

	unix.ETIMEDOUT: {mute, "Look whether the target is up and reached (ping), and whether a firewall lets its port through."},
	unix.EAGAIN:    {mute, "Look whether an NVMe/TCP target listens on that port, and not something else; or whether it is overloaded."},

	unix.ENETUNREACH:  {unreachable, "Look for the route with: ip route get ADDRESS."},
	unix.ENETDOWN:     {unreachable, "Look for the interface with: ip link."},
	unix.EHOSTUNREACH: {unreachable, "Look for the route with: ip route get ADDRESS; and whether the target is switched on."},
	unix.EHOSTDOWN:    {unreachable, "Look whether the target is switched on."},

	unix.ECONNRESET: {closed, "Look into the log of the target; it may demand TLS, or have too many connections."},
	unix.EPIPE:      {closed, "Look into the log of the target; it may demand TLS, or have too many connections."},

	unix.ENODEV:        {noSource, "Look for the interface with: ip link; or correct host-iface."},
	unix.EADDRNOTAVAIL: {noSource, "Look for the address with: ip address; or correct host-traddr."},
	unix.EADDRINUSE:    {noSource, "Look for what else uses the source address and port with: ss -tn."},

	unix.EIO: {rejected, "Look whether the target knows the subsystem, and allows this host's NQN. The kernel log has the NVMe status (journalctl -k -g nvme)."},

	unix.EKEYREJECTED: {authentication, "Compare dhchap-secret and dhchap-ctrl-secret with the keys that the target has for this host."},
	unix.ENOKEY:       {authentication, "Give the host a key: dhchap-secret in the configuration or key in sys.conf; for TLS, a PSK in the keyring .nvme."},
	unix.EKEYREVOKED:  {authentication, "Put a valid TLS key into the keyring .nvme."},
	unix.EKEYEXPIRED:  {authentication, "Put a valid TLS key into the keyring .nvme."},

	unix.EINVAL:     {unacceptable, "Compare the host NQN and ID with those of other connections (nvme list-subsys -v), and the options of the configuration with what the kernel log says (journalctl -k -g nvme)."},
	unix.EOPNOTSUPP: {unsupported, "Update the kernel, or switch off on the target what the kernel log names."},
	unix.EACCES:     {permission, "The unit of the daemon gives it all it needs; look for what forbids it with: journalctl -g avc."},
	unix.EPERM:      {permission, "The unit of the daemon gives it all it needs; look for what forbids it with: journalctl -g avc."},
	unix.EALREADY:   {duplicate, "Nothing has to be done: the connection that exists will be taken over."},
	unix.EINTR:      {transient, "Nothing is wrong with the target; the next attempt will do."},
	unix.ENOMEM:     {kernel, "Look for memory with: free; and for too long options in the configuration."},
	unix.EBUSY:      {kernel, "Load the module again with: modprobe nvme-tcp, or that of the other transport."},
	unix.ENOENT:     {kernel, "Load the module: modprobe nvme-tcp, or that of the other transport."},
	unix.ENXIO:      {kernel, "Load the module: modprobe nvme-tcp, or that of the other transport."},
}

// classOf says of what kind a failure is, and what can be done about it, if
// anything.
func classOf(err error) (c *class, remedy string) {
	if errors.Is(err, reconcile.ErrLost) {
		return unstable, "Look into the log of the kernel (journalctl -k -g nvme) and of the target for who ended the connection."
	}
	if _, ok := errors.AsType[excludedError](err); ok {
		return excluded, ""
	}
	if _, ok := errors.AsType[*guardError](err); ok {
		return heldBack, ""
	}
	if e, ok := errors.AsType[*identityError](err); ok {
		return hostIdentity, e.remedy()
	}
	if _, ok := errors.AsType[*stalledError](err); ok {
		return stalled, "Look into the log of the target, and whether all of its packets get through (MTU)."
	}
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		if n, ok := numbers[errno]; ok {
			return n.class, n.remedy
		}
	}
	return other, ""
}

// backoff is the pause after a failure: any length up to a bound that doubles,
// so that hosts that lost a target together do not come back together.
func (s *Service) backoff(t reconcile.Try) time.Duration {
	c, _ := classOf(t.Err)
	most := s.retryMost
	if c.most != 0 {
		most = min(most, c.most)
	}
	bound := most
	if n := t.N - 1; n < 16 {
		bound = min(c.first<<n, most)
	}
	if c.cheap && t.Since < quickFor {
		// The target is asked so often, by whichever of its controllers.
		bound = min(bound, max(quickMost, quickMost/2*time.Duration(t.Missing)))
	}
	least := retryLeast
	if c.costly {
		least, bound = most/2, most
	}
	bound = max(bound, least)
	return least + rand.N(bound-least+1)
}

// Rejected reports whether a connect failed for what the controller said, and
// not for its silence.
func Rejected(err error) bool {
	c, _ := classOf(err)
	return c == rejected
}

// saysOfTarget is what a failed connect says of its target.
func saysOfTarget(err error) reconcile.Verdict {
	c, _ := classOf(err)
	return c.target
}

// excludedError is why the host's exclusion list forbids a connection.
type excludedError string

func (e excludedError) Error() string { return string(e) }

// guardError is why a device must not be deleted now.
type guardError struct{ error }

func (e *guardError) Unwrap() error { return e.error }

// stalledError is a target that fell silent in the middle of a connect.
type stalledError struct{ error }

func (e *stalledError) Unwrap() error { return e.error }

// identityError is a connection that has one half of the host's identity, NQN
// or ID, with another half: the kernel makes no second one (nvmf_host_add).
type identityError struct {
	error
	device, nqn, id string
}

func (e *identityError) Unwrap() error { return e.error }

func (e *identityError) Error() string {
	return "connect: " + e.device + " is connected with the host NQN " + e.nqn + " and the host ID " + e.id +
		", and the kernel takes neither of them with another"
}

func (e *identityError) remedy() string {
	return "Give the host the same NQN and ID in both places (stasadm, /etc/stas/sys.conf, /etc/nvme), or disconnect " + e.device + "."
}

// judge finds out more about a connect that failed than its number says.
func (s *Service) judge(o fabrics.Options, err error, took time.Duration) error {
	switch {
	case errors.Is(err, unix.EIO) && took >= patientAfter:
		return &stalledError{err}
	case !errors.Is(err, unix.EINVAL):
		return err
	}
	for id, device := range s.inUse.all(s.env.Kernel) {
		if (id.nqn == o.HostNQN) != (id.id == o.HostID) {
			return &identityError{err, device, id.nqn, id.id}
		}
	}
	return err
}

// identities are the host identities of the connections that exist, each with
// a device. Who is told that his own makes no sense is not alone, so one look at
// all controllers does for many.
type identities struct {
	mu   sync.Mutex // guards the following
	read time.Time
	seen map[hostPair]string
}

type hostPair struct{ nqn, id string }

// identitiesGood is how long a look at all controllers is good for.
const identitiesGood = 5 * time.Second

func (i *identities) all(k Kernel) map[hostPair]string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.seen != nil && time.Since(i.read).Abs() < identitiesGood {
		return i.seen
	}
	i.seen, i.read = make(map[hostPair]string), time.Now()
	names, _ := k.Names()
	for _, name := range names {
		if c, err := k.Read(name); err == nil && c.HostNQN != "" && c.HostID != "" {
			i.seen[hostPair{c.HostNQN, c.HostID}] = name
		}
	}
	return i.seen
}
