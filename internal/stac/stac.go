// Package stac is the connector: it keeps the I/O controllers connected that
// stafd's log pages and its own configuration list.
package stac

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/pyprint"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/uevent"
)

// Page is a discovery controller and its log page, as stafd tells them.
type Page = stasbus.DCPage[logpage.Entry]

// Feed follows stafd, see [stasbus.Feed].
type Feed interface {
	Follow(ctx context.Context, deliver func([]Page))
}

// Daemon is stacd.
type Daemon struct {
	*service.Service
	feed   Feed
	log    *slog.Logger
	kernel service.Kernel
	guard  *guard

	// The rest belongs to the loop.

	cfg      *conf.Config
	identity hostid.Identity
	// configured are the controllers of controller= lines.
	configured service.Wanted
	// sources has the entries of each discovery controller, as last known. What
	// cannot be asked for now stays as it was.
	sources map[tid.TID][]logpage.Entry
	// known has those whose entries were all there are when stafd last told.
	known map[tid.TID]bool
	// wanted has every controller that is wanted, and who asks for it.
	wanted map[tid.TID]reason
	// told has what was complained of, so that it is said once.
	told map[string]bool
	// answered says that the last question to stafd was answered.
	answered bool
	// own has the times that controller= lines set.
	own map[tid.TID]conf.OwnTimes
	// unusable has the NQNs of entries that cannot be understood.
	unusable map[string]bool
	// kept are those that were stacd's and are no longer wanted, but stay because
	// of the scope.
	kept map[tid.TID]bool

	withheld map[tid.TID]withheld // disconnects that the guard put off

	holds   holds
	expiry  *time.Timer // of the first hold
	awaited map[tid.TID][]operation
	parked  map[tid.TID]parked

	strangers map[string]stranger // by device
	foreign   map[tid.TID]bool    // what others made, and the scope has removed
	nextAudit *time.Timer
}

// reason is who asks for a controller.
type reason struct {
	configured bool
	entry      *logpage.Entry // of a log page, if one does
}

// state is what survives a restart: whom stacd looks after, and who listed
// them. A connection that is not in it is not stacd's to remove.
type state struct {
	Wanted  []wantedState `json:"wanted"`
	Sources []sourceState `json:"sources"`
	Kept    []tid.TID     `json:"kept,omitempty"`
	Holds   []hold        `json:"holds,omitempty"`
}

type wantedState struct {
	TID        tid.TID `json:"tid"`
	Configured bool    `json:"configured"`
}

type sourceState struct {
	DC      tid.TID         `json:"dc"`
	Entries []logpage.Entry `json:"entries"`
}

// New returns stacd.
func New(env service.Env, feed Feed) *Daemon {
	d := &Daemon{
		feed: feed, log: env.Log, kernel: env.Kernel, guard: newGuard(env.Kernel),
		sources: make(map[tid.TID][]logpage.Entry),
		wanted:  make(map[tid.TID]reason),
		told:    make(map[string]bool),

		kept: make(map[tid.TID]bool), withheld: make(map[tid.TID]withheld), awaited: make(map[tid.TID][]operation),
		foreign: make(map[tid.TID]bool),
		parked:  make(map[tid.TID]parked),
	}
	d.Service = service.New(tid.IO, d, env)
	return d
}

// Run runs stacd until ctx ends or something fails for good.
func (d *Daemon) Run(ctx context.Context) error {
	var last state
	if d.Restore(&last) {
		for _, s := range last.Sources {
			d.sources[s.DC] = s.Entries
		}
		for _, w := range last.Wanted {
			d.wanted[w.TID] = reason{configured: w.Configured}
		}
		for _, id := range last.Kept {
			d.kept[id] = true
		}
		d.holds.set(last.Holds)
	}
	return d.Service.Run(ctx, d)
}

// Tasks implements [service.Policy].
func (d *Daemon) Tasks() []func(context.Context) error {
	return []func(context.Context) error{func(ctx context.Context) error {
		d.feed.Follow(ctx, func(pages []Page) {
			d.Loop().Post(ctx, func() { d.deliver(pages) })
		})
		return nil
	}}
}

// Apply implements [service.Policy].
func (d *Daemon) Apply(cfg *conf.Config, identity hostid.Identity) {
	d.configure(cfg, identity)
	clear(d.told)
	clear(d.strangers) // what could not be removed is tried again
	clear(d.parked)
	d.guard.allow.Store(cfg.DisconnectInUse)
	d.reconsider()
	d.awaitExpiry()
}

// configure takes a configuration, and acts upon nothing.
func (d *Daemon) configure(cfg *conf.Config, identity hostid.Identity) {
	d.cfg, d.identity = cfg, identity
	d.configured = service.Configured(cfg, tid.IO, identity, d.log)
	d.own = make(map[tid.TID]conf.OwnTimes)
	for _, c := range cfg.Controllers {
		if id, err := c.TID(identity.NQN, cfg.IgnoreIface); err == nil {
			d.own[id] = c.Params.Own
		}
	}
}

// deliver takes the log pages of all discovery controllers from stafd, or nil
// if stafd is silent. A discovery controller that stafd no longer has, and an
// entry that is missing from a page that is complete, have provably gone.
// Nothing else has.
func (d *Daemon) deliver(pages []Page) {
	d.answered = pages != nil
	if pages == nil {
		return // silent is unknown: all sources stay as they are
	}
	next := make(map[tid.TID][]logpage.Entry, len(pages))
	unread := make(map[string]bool) // addresses
	d.known = make(map[tid.TID]bool, len(pages))
	for _, p := range pages {
		dc := stasbus.ParseID(p.DiscoveryController)
		entries := p.LogPages
		d.known[dc] = complete(p)
		if !complete(p) {
			entries = union(d.sources[dc], entries)
			unread[place(dc)] = true
		}
		next[dc] = union(next[dc], entries)
	}
	partial := slices.ContainsFunc(pages, func(p Page) bool { return p.DiscoveryController[stasbus.PartialKey] == stasbus.True })
	for dc, entries := range d.sources {
		// One that is listed under another identity now (host NQN, interface),
		// and has not been read under it, has not gone. Nor has one that a stafd
		// without memory does not list yet.
		if _, listed := next[dc]; !listed && (partial || unread[place(dc)]) {
			next[dc] = entries
		}
	}
	d.scheduleAudit()
	if maps.EqualFunc(next, d.sources, slices.Equal) {
		return
	}
	before := d.sources
	d.sources = next
	d.reconsider()
	d.hurry(before)
}

// hurry has the controllers tried at once that are listed by a page that has
// changed: something happens at the target.
func (d *Daemon) hurry(before map[tid.TID][]logpage.Entry) {
	now := time.Now()
	for dc, entries := range d.sources {
		if slices.Equal(entries, before[dc]) {
			continue
		}
		for i := range entries {
			if id, err := d.named(dc, &entries[i]); err == nil && isStorage(&entries[i]) {
				d.Engine().Kick(id, now)
			}
		}
	}
}

// place is where a discovery controller is, whoever asks it.
func place(dc tid.TID) string { return dc.Transport + " " + dc.TrAddr + " " + dc.TrSvcID }

// complete reports whether the page has all entries of its controller. The
// stafd of nvme-stas 2.x does not tell; there an empty page may be one that has
// not been read yet.
func complete(p Page) bool {
	known, told := p.DiscoveryController[stasbus.KnownKey]
	if !told {
		return len(p.LogPages) > 0
	}
	return known == stasbus.True
}

// union returns a, followed by what b has besides.
func union(a, b []logpage.Entry) []logpage.Entry {
	if len(a) == 0 {
		return b
	}
	have := make(map[logpage.Entry]bool, len(a))
	for _, e := range a {
		have[e] = true
	}
	all := slices.Clip(a)
	for _, e := range b {
		if !have[e] {
			all = append(all, e)
		}
	}
	return all
}

// decision is who is wanted, and who is not any more.
type decision struct {
	wanted  map[tid.TID]reason
	order   []tid.TID // of those that something lists
	options map[tid.TID]fabrics.Options
	stays   map[tid.TID]string // why others stay wanted
	gone    []gone
}

// gone is a controller that is not wanted any more.
type gone struct {
	id     tid.TID
	booted string // why it is never disconnected
	scope  bool   // disconnect-scope lets it be disconnected
}

// decide works out who is wanted. It tells nobody but the log, see Decide.
func (d *Daemon) decide() decision {
	options := maps.Clone(d.configured)
	wanted := make(map[tid.TID]reason, len(options))
	for id := range options {
		wanted[id] = reason{configured: true}
	}
	// In the order of the pages: what a target lists first is tried first.
	order := slices.SortedFunc(maps.Keys(options), byName)
	doubted := make(map[tid.TID]*logpage.Entry)
	d.unusable = make(map[string]bool)
	for _, dc := range slices.SortedFunc(maps.Keys(d.sources), byName) {
		entries := d.sources[dc]
		for i := range entries {
			e := &entries[i]
			id, may := d.candidate(dc, e)
			if may == perhaps {
				doubted[id] = e
			}
			if may != yes {
				continue
			}
			r, listed := wanted[id]
			if !listed {
				order = append(order, id)
			}
			r.entry = e
			wanted[id] = r
			if !r.configured {
				options[id] = service.Options(id, tid.IO, d.cfg.ParamsFor(id), d.identity)
			}
		}
	}
	for _, id := range order {
		r, o := wanted[id], options[id]
		if r.entry == nil {
			// What was said of a controller counts until something else is said.
			r.entry = d.wanted[id].entry
			wanted[id] = r
		}
		if r.entry != nil {
			honor(&o, d.cfg, d.ownTimes(id), r.entry.SubNQN)
			options[id] = o
		}
	}
	made := decision{wanted: wanted, order: order, options: options, stays: make(map[tid.TID]string)}
	for _, id := range slices.SortedFunc(maps.Keys(d.wanted), byName) {
		was := d.wanted[id]
		if _, ok := wanted[id]; ok {
			continue
		}
		entry := doubted[id]
		stays := service.Stays
		switch {
		case entry != nil || was.configured && service.Doubted(d.cfg, id):
		case d.BootTables().Unread:
			stays = " stays, because the boot tables cannot be read, and the host may have been booted from it"
		default:
			stays = ""
		}
		if stays != "" {
			wanted[id] = reason{was.configured, entry}
			made.stays[id] = stays
			d.tell(slog.LevelWarn, id.String()+stays)
			continue
		}
		made.gone = append(made.gone, gone{id, d.Booted(id), d.mayDisconnect(id)})
	}
	return made
}

// reconsider decides, and tells the engine.
func (d *Daemon) reconsider() {
	made := d.decide()
	wanted := made.wanted
	now := time.Now()
	for _, id := range made.order {
		booted := d.BootTables().Booted(id) != "" && d.ownTimes(id) == conf.OwnTimes{}
		d.Engine().Want(id, d.Untouched(id, made.options[id], booted), now)
	}
	for id := range made.stays {
		d.WantUntilNow(id, d.cfg, d.identity)
	}
	for _, g := range made.gone {
		// It may be known from before a restart only.
		d.WantUntilNow(g.id, d.cfg, d.identity)
		if g.booted != "" {
			d.log.Info(g.id.String() + " is no longer wanted, but never disconnected: " + g.booted)
		} else if !g.scope {
			d.kept[g.id] = true
		}
		d.GiveUp(g.id, g.booted != "" || !g.scope, func(id tid.TID) bool { _, ok := wanted[id]; return ok })
	}
	was := d.wanted
	d.wanted = wanted
	for id := range d.withheld {
		if _, ok := wanted[id]; ok {
			delete(d.withheld, id)
		}
	}
	d.lookAgainAtKept()
	d.unpark(was)
	d.applyHolds()
	d.save()
	d.scheduleAudit()
}

// Booted says why a controller is never disconnected, whoever asks for it: the
// host may run from it. It says nothing of others. It belongs to the loop.
func (d *Daemon) Booted(id tid.TID) string {
	table := d.BootTables().Booted(id)
	if table == "" {
		return ""
	}
	return "the boot table " + table + " names it, so that the host may have been booted from it"
}

func byName(a, b tid.TID) int { return strings.Compare(a.String(), b.String()) }

// answer says whether something may be connected.
type answer uint8

const (
	no      answer = iota
	perhaps        // not, but what is connected stays: nobody knows for sure
	yes
)

// isStorage tells the entries that name what stacd connects.
func isStorage(e *logpage.Entry) bool { return e.SubType == logpage.SubNVMe && !e.Placeholder() }

// named is the I/O controller that a log page entry names. If it cannot be
// connected, there is an error, too.
func (d *Daemon) named(dc tid.TID, e *logpage.Entry) (tid.TID, error) {
	if dc.HostNQN == "" {
		dc.HostNQN = d.identity.NQN
	}
	id, err := e.IOC(dc)
	if d.cfg.IgnoreIface {
		id.HostIface = ""
	}
	return id, err
}

// candidate is the I/O controller that a log page entry names, and whether
// stacd may connect it.
func (d *Daemon) candidate(dc tid.TID, e *logpage.Entry) (tid.TID, answer) {
	if !isStorage(e) {
		return tid.TID{}, no
	}
	id, err := d.named(dc, e)
	if err != nil {
		d.unusable[e.SubNQN] = true
		d.tell(slog.LevelWarn, fmt.Sprintf("an entry of the log page of %s cannot be connected: %v", dc, err))
		return tid.TID{}, no
	}
	_, named := d.configured[id]
	refusal := d.cfg.Refuses(id, named)
	if refusal == nil {
		return id, yes
	}
	if _, connected := d.wanted[id]; connected && !refusal.Sure {
		return id, perhaps
	}
	d.tell(slog.LevelInfo, id.String()+" is listed, but not connected: "+refusal.Why)
	return id, no
}

// tellOnce bounds what is remembered to have been told.
const tellOnce = 1000

// tell logs something once per configuration.
func (d *Daemon) tell(level slog.Level, message string) {
	if !d.told[message] {
		if len(d.told) == tellOnce {
			clear(d.told) // somebody lists new nonsense all the time
		}
		d.told[message] = true
		d.log.Log(context.Background(), level, message)
	}
}

func (d *Daemon) save() {
	var s state
	for id, r := range d.wanted {
		s.Wanted = append(s.Wanted, wantedState{id, r.configured})
	}
	for id := range d.withheld {
		// Still to be disconnected: as if nobody had told yet.
		if _, ok := d.wanted[id]; !ok && !d.foreign[id] {
			s.Wanted = append(s.Wanted, wantedState{TID: id})
		}
	}
	for dc, entries := range d.sources {
		s.Sources = append(s.Sources, sourceState{dc, entries})
	}
	for id := range d.kept {
		s.Kept = append(s.Kept, id)
	}
	s.Holds = d.holds.list
	d.Save(s)
}

// Event implements [service.Policy].
func (d *Daemon) Event(ev reconcile.Event) {
	d.guarded(ev)
	d.answerOperators(ev)
	d.limitAttempts(ev)
}

// Work implements [service.Policy]: it asks a controller once what it says
// about times. One that does not tell is none the worse for it.
func (d *Daemon) Work(ctx context.Context, op reconcile.Op[fabrics.Options]) (func(), error) {
	_, found, err := d.Identify(ctx, op)
	if err != nil {
		d.log.Debug("cannot identify a controller", "device", op.Device, "error", err)
		return nil, nil
	}
	return found, nil
}

// Changed implements [service.Policy].
func (d *Daemon) Changed(uevent.Event) { d.scheduleAudit() }

// Overrun implements [service.Policy].
func (d *Daemon) Overrun() { d.scheduleAudit() }

// nccFlag is the bit of EFLAGS that says: not connected to the CDC now.
const nccFlag = 1 << 2

func notConnected(e *logpage.Entry) bool {
	flags, _ := strconv.Atoi(e.EFlags)
	return flags&nccFlag != 0
}

// Info implements [service.Policy].
func (d *Daemon) Info(id tid.TID, detailed bool, info stasbus.Dict) {
	if !detailed {
		return
	}
	if p, ok := d.parked[id]; ok {
		info["connect attempts"] = strconv.Itoa(p.attempts)
	}
	info["dlpe"], info["dlpe.eflags.ncc"] = "None", stasbus.False
	if e := d.wanted[id].entry; e != nil {
		var dict pyprint.Dict
		for key, value := range e.All() {
			dict = append(dict, pyprint.Item{Key: key, Value: value})
		}
		info["dlpe"], info["dlpe.eflags.ncc"] = pyprint.Repr(dict), stasbus.Bool(notConnected(e))
	}
}
