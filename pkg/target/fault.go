package target

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmetcp"
)

// Fault is something that the target does wrong: what, where, how often.
//
// The filters (Listener, Subsystem, Host, Command, Queue, LID) say where; one
// that is empty lets everything pass. Before a connection is associated with a
// host and a subsystem only Listener can be known: faults at these points that
// filter by more never match.
type Fault struct {
	// Do names the fault; see Kinds.
	Do string `json:"do"`

	Listener  string `json:"listener,omitempty"`
	Subsystem string `json:"subsystem,omitempty"` // NQN by which the host has connected
	Host      string `json:"host,omitempty"`      // NQN
	Command   string `json:"command,omitempty"`   // "identify", "get-log-page", "read", …
	Queue     string `json:"queue,omitempty"`     // "admin" or "io"
	LID       *uint8 `json:"lid,omitempty"`       // of Get Log Page
	From      uint64 `json:"from,omitempty"`      // of Get Log Page: only from this offset on

	Skip  int `json:"skip,omitempty"`  // let so many pass first
	Times int `json:"times,omitempty"` // then do it so often; 0 is for ever

	Delay  Duration    `json:"delay,omitempty"`  // of delay; of what happens by itself: when
	Every  Duration    `json:"every,omitempty"`  // of what happens by itself: again after so long
	Pause  Duration    `json:"pause,omitempty"`  // of restart: how long nobody listens
	Status nvme.Status `json:"status,omitempty"` // of status
	Offset int         `json:"offset,omitempty"` // of patch and flip: where in the data, in the PDU
	Bytes  Bytes       `json:"bytes,omitempty"`  // of patch
	Value  uint64      `json:"value,omitempty"`  // of those that take a number
}

// point is where in the life of a connection a fault strikes.
type point string

const (
	atListen     point = "listen"     // before there is a connection
	atAccept     point = "accept"     // it is there
	atInitialize point = "initialize" // ICReq has come
	atCommand    point = "command"    // a command is about to be executed
	atReply      point = "reply"      // it was executed, the reply is about to be sent
	atTime       point = "time"       // by itself
)

// exchange is what a fault may change of what is going on.
type exchange struct {
	q       *queue
	at      point
	icresp  *nvmetcp.ICResp // at initialize
	request *request        // at command and reply
	reply   *reply

	swallow bool    // do not go on
	freeze  bool    // fall silent, after sending what there is to send
	end     *ending // end the connection, after sending what there is to send
	delay   time.Duration
	mangle  func([]byte) []byte // change what goes over the wire
}

// Kind is a kind of fault.
type Kind struct {
	Name  string
	At    string
	About string // what the target does, and what a Linux host makes of it
	Takes string // which of the values of a Fault it looks at

	at      point
	command string // that it is for unless the fault says otherwise
	lid     uint8  // likewise, of get-log-page
	from    uint64
	do      func(*Fault, *exchange)
	fire    func(*Fault, *Target) // at time
}

// Kinds lists the kinds of faults in the order of a connection's life.
func Kinds() []Kind { return kinds }

func freezeAll(_ *Fault, e *exchange) {
	e.swallow = true
	if c := e.q.controller(); c != nil {
		c.freeze()
	} else {
		e.q.freeze()
	}
}

func closing(how ending) func(*Fault, *exchange) {
	return func(_ *Fault, e *exchange) { e.swallow, e.end = true, &how }
}

func swallow(_ *Fault, e *exchange) { e.swallow = true }

// patch overwrites bytes of the data of a reply.
func patch(offset int, with ...byte) func(*Fault, *exchange) {
	return func(_ *Fault, e *exchange) { overwrite(e, offset, with) }
}

func overwrite(e *exchange, offset int, with []byte) {
	if e.reply.status != 0 || offset < 0 || offset+len(with) > max(len(e.reply.data), int(e.request.cmd.SGL.Length)) {
		return
	}
	if missing := offset + len(with) - len(e.reply.data); missing > 0 {
		e.reply.data = append(e.reply.data, make([]byte, missing)...)
	}
	copy(e.reply.data[offset:], with)
}

// answer replies by a status in place of executing the command.
func answer(status nvme.Status) func(*Fault, *exchange) {
	return func(f *Fault, e *exchange) { e.reply = &reply{status: cmp.Or(f.Status, status)} }
}

// like replies as a target in order would, for whose reason there is none.
func like(r reply) func(*Fault, *exchange) {
	return func(_ *Fault, e *exchange) { e.reply = new(r) }
}

// inHeader changes a field of a discovery log header that is being read.
func inHeader(offset int, value func(f *Fault, old uint64) uint64) func(*Fault, *exchange) {
	return func(f *Fault, e *exchange) {
		if len(e.reply.data) < offset+8 {
			return
		}
		field := e.reply.data[offset:]
		binary.LittleEndian.PutUint64(field, value(f, binary.LittleEndian.Uint64(field)))
	}
}

// Offsets in Identify Controller (Base, "Identify Controller Data Structure").
const (
	offCMIC      = 76
	offIDCntlID  = 78
	offOAES      = 92
	offCNTRLTYPE = 111
	offKAS       = 320
	offIOCCSZ    = 1792
)

var kinds = []Kind{
	{Name: "refuse", at: atListen, About: "nobody listens: ECONNREFUSED at once"},
	{Name: "black-hole", at: atListen, About: "SYNs are dropped, and what is connected falls silent: ETIMEDOUT after 3 s"},

	{Name: "mute", at: atAccept, About: "accepts, and never says a word: EAGAIN after 10 s",
		do: func(_ *Fault, e *exchange) { e.q.freeze() }},
	{Name: "close", at: atAccept, About: "accepts and closes: ECONNRESET", do: closing(finish)},
	{Name: "reset", at: atAccept, About: "accepts and resets: ECONNRESET", do: closing(abort)},

	{Name: "close-at-icreq", at: atInitialize, About: "closes in place of ICResp: ECONNRESET", do: closing(finish)},
	{Name: "mute-after-icresp", at: atInitialize, About: "is mute after ICResp: EIO after 60 s, in which the host connects nothing else",
		do: func(_ *Fault, e *exchange) { freezeAfter(e) }},
	{Name: "close-after-icresp", at: atInitialize, About: "closes after ICResp: EIO after 60 s too",
		do: func(_ *Fault, e *exchange) { e.end = new(finish) }},
	{Name: "maxh2cdata", at: atInitialize, Takes: "value (2048)", About: "a MAXH2CDATA below 4096: EINVAL",
		do: func(f *Fault, e *exchange) { e.icresp.MaxH2CData = uint32(cmp.Or(f.Value, 2048)) }},
	{Name: "pfv", at: atInitialize, Takes: "value (1)", About: "ICResp of an unknown version: EINVAL",
		do: func(f *Fault, e *exchange) { e.icresp.PFV = uint16(cmp.Or(f.Value, 1)) }},
	{Name: "cpda", at: atInitialize, Takes: "value (1)", About: "wants data aligned, which Linux does not do: EINVAL",
		do: func(f *Fault, e *exchange) { e.icresp.CPDA = uint8(cmp.Or(f.Value, 1)) }},
	{Name: "digest-mismatch", at: atInitialize, About: "ICResp switches on digests that nobody wanted: EINVAL",
		do: func(_ *Fault, e *exchange) {
			e.icresp.HeaderDigest, e.icresp.DataDigest = !e.icresp.HeaderDigest, !e.icresp.DataDigest
		}},

	{Name: "status", at: atCommand, Takes: "status", About: "commands fail", do: answer(nvme.StatusInternalError)},
	{Name: "swallow", at: atCommand, About: "commands are never answered: a time-out of the host, 60 s for admin commands, 30 s for I/O", do: swallow},
	{Name: "drop", at: atCommand, About: "closes the connection when the command comes", do: closing(finish)},
	{Name: "drop-reset", at: atCommand, About: "resets the connection when the command comes", do: closing(abort)},
	{Name: "silent-death", at: atCommand, About: "all connections of the host fall silent, none is closed: the keep alive time-out tells the host", do: freezeAll},
	{Name: "busy", at: atCommand, command: "connect", About: "Controller Busy without DNR: EIO; a reconnect is tried again",
		do: answer(nvme.StatusConnectControllerBusy)},
	{Name: "unknown-subsystem", at: atCommand, command: "connect", About: "Connect Invalid Parameters with DNR: EIO; a host that reconnects removes the controller for good",
		do: like(invalidData(nvme.ConnectDataOffSubNQN))},
	{Name: "invalid-host", at: atCommand, command: "connect", About: "Connect Invalid Host with DNR: EIO; likewise",
		do: like(hostNotAllowed)},
	{Name: "shutdown-mute", at: atCommand, command: "property-set", About: "the write to CC that shuts down is not answered: deleting takes the host 60 s",
		do: func(_ *Fault, e *exchange) {
			p := nvme.ParseProperty(e.request.cmd)
			e.swallow = p.Offset == nvme.PropCC && p.Value&nvme.CCShutdownMask != 0
		}},
	{Name: "aer-error", at: atCommand, command: "async-event-request", About: "the request fails: Linux is deaf to events until it reconnects",
		do: answer(nvme.StatusInternalError.WithDNR())},
	{Name: "dim-refused", at: atCommand, command: "discovery-info-mgmt", Takes: "status (insufficient discovery resources)", About: "registrations are refused",
		do: answer(nvme.StatusInsufficientDiscovery.WithDNR())},
	{Name: "log-refused", at: atCommand, command: "get-log-page", lid: nvme.LogDiscovery, Takes: "status (invalid log page)", About: "the discovery log cannot be read",
		do: answer(nvme.StatusInvalidLogPage.WithDNR())},
	{Name: "log-mute", at: atCommand, command: "get-log-page", lid: nvme.LogDiscovery, from: nvme.LogHeaderSize, About: "mute in the middle of the discovery log", do: swallow},
	{Name: "log-restart", at: atCommand, command: "get-log-page", lid: nvme.LogDiscovery, from: nvme.LogHeaderSize, About: "Discover Restart in the middle of the discovery log: the host begins again",
		do: answer(nvme.StatusDiscoverRestart)},

	{Name: "delay", at: atReply, Takes: "delay", About: "answers come late",
		do: func(f *Fault, e *exchange) { e.delay = time.Duration(f.Delay) }},
	{Name: "patch", at: atReply, Takes: "offset, bytes", About: "bytes of the data are others",
		do: func(f *Fault, e *exchange) { overwrite(e, f.Offset, f.Bytes) }},
	{Name: "flip", at: atReply, Takes: "offset, value (mask, 1)", About: "bits flip on the wire; digests, which were right, tell",
		do: func(f *Fault, e *exchange) {
			e.mangle = func(b []byte) []byte {
				b[min(max(f.Offset, 0), len(b)-1)] ^= byte(cmp.Or(f.Value, 1))
				return b
			}
		}},
	{Name: "bad-length", at: atReply, Takes: "value (4 GiB - 1)", About: "PLEN of the answer is a lie",
		do: func(f *Fault, e *exchange) {
			e.mangle = func(b []byte) []byte {
				binary.LittleEndian.PutUint32(b[4:], uint32(cmp.Or(f.Value, 1<<32-1)))
				return b
			}
		}},
	{Name: "short-data", at: atReply, Takes: "value (half of it)", About: "less data than was asked for: Linux resets",
		do: func(f *Fault, e *exchange) { resize(e, int(cmp.Or(f.Value, uint64(e.request.cmd.SGL.Length/8*4)))) }},
	{Name: "long-data", at: atReply, Takes: "value (4096 more)", About: "more data than was asked for: Linux resets",
		do: func(f *Fault, e *exchange) { resize(e, int(cmp.Or(f.Value, uint64(e.request.cmd.SGL.Length)+4096))) }},
	{Name: "wrong-cid", at: atReply, Takes: "value (0xdead)", About: "answers a command that does not exist",
		do: func(f *Fault, e *exchange) {
			r := *e.request
			r.cmd.CID = uint16(cmp.Or(f.Value, 0xdead))
			e.request = &r
		}},
	{Name: "kas-zero", at: atReply, command: "identify", About: "KAS is 0: an I/O controller is refused, EINVAL", do: patch(offKAS, 0, 0)},
	{Name: "ioccsz-small", at: atReply, command: "identify", About: "IOCCSZ is 3: EINVAL", do: patch(offIOCCSZ, 3, 0, 0, 0)},
	{Name: "cntlid-mismatch", at: atReply, command: "identify", About: "CNTLID is not that of Connect: EINVAL", do: patch(offIDCntlID, 0xef, 0xbe)},
	{Name: "cntrltype-io", at: atReply, command: "identify", About: "CNTRLTYPE says I/O: a discovery controller by unique NQN is refused, EINVAL", do: patch(offCNTRLTYPE, 1)},
	{Name: "oaes-zero", at: atReply, command: "identify", About: "OAES is 0: no event is ever asked for", do: patch(offOAES, 0, 0, 0, 0)},
	{Name: "cmic-zero", at: atReply, command: "identify", About: "CMIC is 0: a second path is refused, EINVAL", do: patch(offCMIC, 0)},
	{Name: "cntlid-reused", at: atReply, command: "connect", Takes: "value (1)", About: "all controllers have one ID: the second one of a subsystem is refused, EINVAL",
		do: func(f *Fault, e *exchange) {
			if c := e.q.controller(); c != nil && c.admin == e.q {
				c.shown = uint16(cmp.Or(f.Value, 1))
				e.reply.result = e.reply.result&^0xffff | uint64(c.shown)
			}
		}},
	{Name: "genctr-moves", at: atReply, command: "get-log-page", lid: nvme.LogDiscovery, About: "GENCTR is another one at each look: the host reads again, and gives up",
		do: inHeader(0, func(_ *Fault, old uint64) uint64 { return old + genctr.Add(1) })},
	{Name: "numrec-lies", at: atReply, command: "get-log-page", lid: nvme.LogDiscovery, Takes: "value (2^40)", About: "NUMREC is a lie",
		do: inHeader(8, func(f *Fault, _ uint64) uint64 { return cmp.Or(f.Value, 1<<40) })},
	{Name: "garbage", at: atReply, command: "get-log-page", lid: nvme.LogDiscovery, from: nvme.LogHeaderSize, Takes: "value (seed)", About: "log page entries are noise",
		do: func(f *Fault, e *exchange) {
			noise := rand.NewChaCha8([32]byte(append(binary.LittleEndian.AppendUint64(nil, f.Value), bytes.Repeat([]byte{7}, 24)...)))
			e.reply.data = make([]byte, e.request.cmd.SGL.Length)
			_, _ = noise.Read(e.reply.data) // never fails
		}},

	{Name: "restart", at: atTime, Takes: "delay, every, pause (5 s)", About: "the target dies and comes back",
		fire: func(f *Fault, t *Target) {
			_ = t.Restart(f.Listener, time.Duration(cmp.Or(f.Pause, Duration(5*time.Second))))
		}},
	{Name: "aen", at: atTime, Takes: "delay, every, value (0x70f002)", About: "an event though nothing has changed; with every: a storm",
		fire: func(f *Fault, t *Target) {
			t.SendAEN(f.Listener, f.Host, nvme.AEN(cmp.Or(f.Value, uint64(nvme.DiscoveryLogChanged))))
		}},
}

func init() {
	for i := range kinds {
		kinds[i].At = string(kinds[i].at)
	}
}

// genctr is what moves in genctr-moves.
var genctr atomic.Uint64

// resize makes the data of a reply longer or shorter than it should be.
func resize(e *exchange, size int) {
	if e.reply.status != 0 || e.request.cmd.Direction() != nvme.ToHost {
		return
	}
	e.reply.exact = true
	e.reply.data = append(e.reply.data[:min(len(e.reply.data), size)], make([]byte, max(0, size-len(e.reply.data)))...)
}

// freezeAfter makes the connection silent after its next packet.
func freezeAfter(e *exchange) { e.freeze = true }

// check completes a fault by the defaults of its kind.
func (f *Fault) check() (*Kind, error) {
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == f.Do })
	if i < 0 {
		return nil, fmt.Errorf("there is no fault %q; there are %s", f.Do, strings.Join(kindNames(), ", "))
	}
	k := &kinds[i]
	if f.Command != "" && !nvme.KnownCommand(f.Command) {
		return nil, fmt.Errorf("fault %s: there is no command %q", f.Do, f.Command)
	}
	if f.Queue != "" && f.Queue != "admin" && f.Queue != "io" {
		return nil, fmt.Errorf("fault %s: the queue is %q, allowed are admin and io", f.Do, f.Queue)
	}
	if f.Command == "" {
		f.Command = k.command
		if f.LID == nil && k.lid != 0 {
			f.LID = &k.lid
		}
		f.From = max(f.From, k.from)
	}
	switch {
	case k.Name == "delay" && f.Delay <= 0:
		return nil, fmt.Errorf("fault %s: for how long? delay is missing", f.Do)
	case k.Name == "patch" && len(f.Bytes) == 0:
		return nil, fmt.Errorf("fault %s: by what? bytes is missing", f.Do)
	case k.at == atTime && f.Every > 0 && time.Duration(f.Every) < time.Millisecond:
		return nil, fmt.Errorf("fault %s: every %v is too often, 1ms is allowed", f.Do, time.Duration(f.Every))
	}
	return k, nil
}

func kindNames() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.Name)
	}
	return names
}

// fault is a fault that is on.
type fault struct {
	Fault
	kind *Kind
	id   int

	mu    sync.Mutex
	met   int // how often it would have applied
	did   int
	timer *time.Timer
}

// faults are the faults that are on, in the order in which they were added.
type faults struct {
	list atomic.Pointer[[]*fault]

	mu   sync.Mutex // of those who change the list
	last int
}

func (fs *faults) all() []*fault {
	if l := fs.list.Load(); l != nil {
		return *l
	}
	return nil
}

func (fs *faults) add(t *Target, f Fault) (*fault, error) {
	k, err := f.check()
	if err != nil {
		return nil, err
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.last++
	added := &fault{Fault: f, kind: k, id: fs.last}
	fs.list.Store(new(append(slices.Clone(fs.all()), added)))
	if k.at == atTime {
		added.mu.Lock()
		defer added.mu.Unlock()
		added.timer = time.AfterFunc(time.Duration(f.Delay), func() { added.strike(t) })
	}
	return added, nil
}

// strike makes what happens by itself happen.
func (f *fault) strike(t *Target) {
	if !f.count() {
		return
	}
	f.kind.fire(&f.Fault, t)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Every > 0 && f.timer != nil {
		f.timer.Reset(time.Duration(f.Every))
	}
}

func (f *fault) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
}

func (fs *faults) remove(id int) bool {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var left []*fault
	for _, f := range fs.all() {
		if f.id == id {
			f.stop()
		} else {
			left = append(left, f)
		}
	}
	found := len(left) < len(fs.all())
	fs.list.Store(&left)
	return found
}

func (fs *faults) clear() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.all() {
		f.stop()
	}
	fs.list.Store(nil)
}

// listening tells what a listener is to do with those who connect.
func (fs *faults) listening(name string) listenState {
	for _, f := range fs.all() {
		if f.Listener != "" && f.Listener != name {
			continue
		}
		switch f.kind.Name {
		case "refuse":
			return listenRefuse
		case "black-hole":
			return listenHole
		}
	}
	return listenOpen
}

// apply lets all faults that are for it change an exchange. With no fault on,
// which is the normal case, it costs a look at a pointer.
func (fs *faults) apply(e *exchange) {
	for _, f := range fs.all() {
		if f.kind.at == e.at && f.matches(e) && f.count() {
			f.kind.do(&f.Fault, e)
		}
	}
}

// matches compares an exchange to the filters.
func (f *fault) matches(e *exchange) bool {
	if f.Listener != "" && f.Listener != e.q.listener.Name {
		return false
	}
	if f.Subsystem != "" || f.Host != "" {
		subsystem, host := e.names()
		if f.Subsystem != "" && f.Subsystem != subsystem || f.Host != "" && f.Host != host {
			return false
		}
	}
	if f.Queue != "" && (f.Queue == "io") != e.io() {
		return false
	}
	if e.request == nil {
		return f.Command == ""
	}
	if f.Command != "" && f.Command != e.request.name() {
		return false
	}
	if f.LID == nil && f.From == 0 {
		return true
	}
	get, err := nvme.ParseGetLogPage(e.request.cmd)
	return err == nil && e.request.cmd.Opcode == nvme.OpGetLogPage &&
		(f.LID == nil || *f.LID == get.LID) && get.Offset >= f.From
}

// names tells who talks to whom; a Connect says so itself.
func (e *exchange) names() (subsystem, host string) {
	if c := e.q.controller(); c != nil {
		return c.nqn, c.hostNQN
	}
	if e.request == nil || e.request.cmd.FCType() != nvme.FCConnect {
		return "", ""
	}
	data, _ := nvme.DecodeConnectData(e.request.data)
	return data.SubNQN, data.HostNQN
}

// io reports whether an exchange is of an I/O queue; a Connect says so itself.
func (e *exchange) io() bool {
	if e.request != nil && e.request.name() == "connect" {
		connect, _ := nvme.ParseConnect(e.request.cmd)
		return connect.QID != 0
	}
	return e.q.id != 0
}

// count counts a match and tells whether it is one that counts.
func (f *fault) count() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.met++
	if f.met <= f.Skip || f.Times > 0 && f.did >= f.Times {
		return false
	}
	f.did++
	return true
}

// SendAEN completes an Asynchronous Event Request of the controllers of a
// listener, or of all, and of a host, or of all, by an event, whether there is
// a reason for it or not. It returns how many were told: one without a request
// outstanding cannot be.
func (t *Target) SendAEN(listener, host string, aen nvme.AEN) (told int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	discovery := aen.LogPage() == nvme.LogDiscovery
	for _, c := range t.controllers {
		if (listener == "" || c.listener.Name == listener) && (host == "" || c.hostNQN == host) &&
			(c.sub == nil) == discovery && c.force(aen) {
			told++
		}
	}
	return told
}
