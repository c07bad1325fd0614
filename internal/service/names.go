package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
)

// This file follows the host names in controller= lines. A policy never sees
// one: it is given the configuration with addresses in their place, and again
// whenever these change.

const (
	// nameRefresh is the time between two questions about a name that is
	// answered. The resolver of Go does not tell how long an answer is good for.
	nameRefresh = 5 * time.Minute
	// nameSoonest is the time between two questions when connections fail.
	nameSoonest = 30 * time.Second
	nameTimeout = 10 * time.Second
	nameBurst   = 8  // questions at a time
	maxAnswer   = 16 // addresses of a name that are looked at
)

// names is what is known of the host names. It belongs to the loop.
type names struct {
	asked map[string]*question
	// lines has the addresses that a line with a host name stands for, by the
	// identity that the line gives.
	lines map[tid.TID]*namedLine
	// of has the line that a controller stands for.
	of      map[tid.TID]tid.TID
	next    time.Time // when the next question is due, if none is under way
	running int
	former  bool // some line has former addresses
}

// question is one host name.
type question struct {
	answer   []netip.Addr // the last one; empty if there has never been any
	answered time.Time
	err      error // of what was asked since
	failures int
	asked    time.Time
	next     time.Time
	busy     bool
}

// namedLine is a controller= line with a host name.
type namedLine struct {
	// current is the address that is wanted. Invalid if there is none yet.
	current netip.Addr
	// former are those that were wanted before. They are given up once the
	// current one serves, and they have no connection any more.
	former []netip.Addr
}

// The names in the state file. What names stood for outlives a restart without
// a name server.
type (
	namesState struct {
		Asked []askedState `json:"asked,omitempty"`
		Lines []lineState  `json:"lines,omitempty"`
	}
	askedState struct {
		Name     string       `json:"name"`
		Answer   []netip.Addr `json:"answer"`
		Answered time.Time    `json:"answered"`
	}
	lineState struct {
		ID      tid.TID      `json:"id"`
		Current netip.Addr   `json:"current"`
		Former  []netip.Addr `json:"former,omitempty"`
	}
)

func (n *names) restore(state namesState) {
	n.asked, n.lines = make(map[string]*question), make(map[tid.TID]*namedLine)
	valid := func(addrs []netip.Addr) []netip.Addr {
		return slices.DeleteFunc(addrs, func(a netip.Addr) bool { return !a.IsValid() })
	}
	for _, q := range state.Asked {
		n.asked[q.Name] = &question{answer: valid(q.Answer), answered: q.Answered}
	}
	for _, l := range state.Lines {
		n.lines[l.ID] = &namedLine{current: l.Current, former: valid(l.Former)}
	}
}

func (n *names) state() (state namesState) {
	for _, name := range slices.Sorted(maps.Keys(n.asked)) {
		if q := n.asked[name]; len(q.answer) > 0 {
			state.Asked = append(state.Asked, askedState{name, q.answer, q.answered})
		}
	}
	for id, l := range n.lines {
		if l.current.IsValid() {
			state.Lines = append(state.Lines, lineState{id, l.current, l.former})
		}
	}
	return state
}

// resolve gives the configuration with addresses in place of host names. A name
// that was never answered leaves it in doubt which controllers are wanted.
func (n *names) resolve(cfg *conf.Config, identity hostid.Identity) *conf.Config {
	asked, lines := make(map[string]*question), make(map[tid.TID]*namedLine)
	n.of = make(map[tid.TID]tid.TID)
	resolved := *cfg
	resolved.Controllers = make([]conf.Controller, 0, len(cfg.Controllers))
	have := make(map[tid.TID]bool)
	for _, c := range cfg.Controllers {
		name := c.ID.HostName()
		if name == "" {
			have[c.ID] = true
			resolved.Controllers = append(resolved.Controllers, c)
			continue
		}
		if nameRefused(cfg, c.ID, identity) != nil {
			continue
		}
		q, l := n.asked[name], n.lines[c.ID]
		if q == nil {
			q = &question{}
		}
		if l == nil {
			l = &namedLine{}
		}
		asked[name], lines[c.ID] = q, l
		l.choose(usable(q.answer, cfg.IPFamily, c.ID), false)
		if !l.current.IsValid() {
			resolved.Doubtful = true
		}
		for _, addr := range l.all() {
			at := c
			at.ID = c.ID.At(addr)
			if have[at.ID] {
				continue
			}
			have[at.ID] = true
			resolved.Controllers = append(resolved.Controllers, at)
			if id, err := at.TID(identity.NQN, cfg.IgnoreIface); err == nil {
				n.of[id] = c.ID
			}
		}
	}
	n.asked, n.lines = asked, lines
	n.plan()
	return &resolved
}

// copy is for trying a configuration out.
func (n *names) copy() *names {
	c := &names{asked: n.asked, lines: make(map[tid.TID]*namedLine, len(n.lines))}
	for id, l := range n.lines {
		c.lines[id] = &namedLine{current: l.current, former: slices.Clone(l.former)}
	}
	return c
}

// nameRefused says why a name is not even looked up.
func nameRefused(cfg *conf.Config, id tid.TID, identity hostid.Identity) *conf.Refusal {
	if id.HostNQN == "" {
		id.HostNQN = identity.NQN
	}
	if cfg.IgnoreIface {
		id.HostIface = ""
	}
	return cfg.Refuses(id, true)
}

// usable are the addresses of an answer that a line can be connected by, the
// best one first: as in nvme-stas, IPv4 goes before IPv6.
func usable(answer []netip.Addr, family conf.IPFamily, line tid.TID) []netip.Addr {
	host, err := netip.ParseAddr(line.HostTrAddr)
	var v4, v6 []netip.Addr
	for _, a := range answer {
		switch {
		case !family.Allows(a), err == nil && host.Unmap().Is4() != a.Is4():
		case a.Is4():
			v4 = append(v4, a)
		default:
			v6 = append(v6, a)
		}
	}
	return append(v4, v6...)
}

// choose takes a line's current address from those that are usable. One that
// the answer still has stays, since name servers like to shuffle them; unless
// it is failing, when the next one's turn has come.
func (l *namedLine) choose(usable []netip.Addr, failing bool) (changed bool) {
	if len(usable) == 0 {
		return false
	}
	i := slices.Index(usable, l.current)
	if i >= 0 && (!failing || len(usable) == 1) {
		return false
	}
	if l.current.IsValid() {
		l.former = append(l.former, l.current)
	}
	l.current = usable[(i+1)%len(usable)]
	l.former = slices.DeleteFunc(l.former, func(a netip.Addr) bool { return a == l.current })
	return true
}

func (l *namedLine) all() []netip.Addr {
	if !l.current.IsValid() {
		return nil
	}
	return append([]netip.Addr{l.current}, l.former...)
}

// plan works out when the next question is due, and what there is to tend.
func (n *names) plan() {
	n.next, n.former = time.Time{}, false
	first := true
	for _, q := range n.asked {
		if !q.busy && (first || q.next.Before(n.next)) {
			n.next, first = q.next, false
		}
	}
	for _, l := range n.lines {
		n.former = n.former || len(l.former) > 0
	}
}

// hurry has all names asked for now.
func (n *names) hurry(now time.Time) {
	for _, q := range n.asked {
		q.next = now
	}
	n.plan()
}

// doubt has the name of a controller asked for that is not to be reached.
func (n *names) doubt(id tid.TID, now time.Time) {
	line, ok := n.of[id]
	if !ok {
		return
	}
	q := n.asked[line.HostName()]
	soonest := q.asked.Add(nameSoonest)
	if soonest.Before(now) {
		soonest = now
	}
	if !q.busy && soonest.Before(q.next) {
		q.next = soonest
		n.plan()
	}
}

// tendNames runs in the loop after something has happened: it asks what is
// due, and gives up former addresses. It says when it wants to run again.
func (s *Service) tendNames(now time.Time) time.Time {
	n := &s.names
	if n.former && s.dropFormer() {
		s.applyNames()
	}
	if len(n.asked) == 0 || n.running == nameBurst {
		return time.Time{}
	}
	if n.next.After(now) {
		return n.next
	}
	for name, q := range n.asked {
		if q.busy || q.next.After(now) || n.running == nameBurst {
			continue
		}
		q.busy, q.asked = true, now
		n.running++
		s.workers.Go(func() { s.lookUp(name) })
	}
	n.plan()
	return n.next
}

// lookUp asks for one name, in a goroutine of its own.
func (s *Service) lookUp(name string) {
	ctx, cancel := context.WithTimeout(s.ctx, nameTimeout)
	defer cancel()
	addrs, err := s.env.Resolve(ctx, name)
	var answer []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); !a.IsUnspecified() && !a.IsMulticast() && len(answer) < maxAnswer {
			answer = append(answer, a)
		}
	}
	if err == nil && len(answer) == 0 {
		err = errors.New("the name has no address")
	}
	s.loop.Post(s.ctx, func() { s.lookedUp(name, answer, err, time.Now()) })
}

// lookedUp takes what came of it. What was known stays, if nothing did.
func (s *Service) lookedUp(name string, answer []netip.Addr, err error, now time.Time) {
	s.names.running--
	defer s.names.plan()
	q := s.names.asked[name]
	if q == nil {
		return // no line has it any more
	}
	q.busy = false
	if err != nil {
		q.failures++
		q.err = err
		pause := s.backoff(reconcile.Try{Err: err, N: q.failures})
		q.next = now.Add(pause)
		if q.failures == 1 {
			stays := "what it stood for last stays"
			if len(q.answer) == 0 {
				stays = "the controller is not connected"
			}
			s.log.Warn(fmt.Sprintf("the host name %s cannot be looked up, trying again; %s", name, stays), "error", err, "retry-in", pause.Round(100*time.Millisecond))
		}
		return
	}
	if q.failures > 0 {
		s.log.Info("the host name " + name + " is answered again")
	}
	*q = question{answer: answer, answered: now, asked: q.asked, next: now.Add(nameRefresh)}
	changed := false
	for id, l := range s.names.lines {
		if id.HostName() != name {
			continue
		}
		was := l.current
		if !l.choose(usable(answer, s.configured.IPFamily, id), s.failing(id, l.current)) {
			continue
		}
		changed = true
		if was.IsValid() {
			s.log.Info(fmt.Sprintf("the host name %s now stands for %s; the connection to %s stays as long as it lasts", name, l.current, was))
		} else {
			s.log.Info(fmt.Sprintf("the host name %s stands for %s", name, l.current))
		}
	}
	if changed {
		s.applyNames()
	}
}

// at is the controller that a line stands for by an address.
func (s *Service) at(line tid.TID, addr netip.Addr) tid.TID {
	id := line.At(addr)
	if id.HostNQN == "" {
		id.HostNQN = s.identity.NQN
	}
	if s.configured.IgnoreIface {
		id.HostIface = ""
	}
	return id
}

// failing reports whether no connection can be made by an address.
func (s *Service) failing(line tid.TID, addr netip.Addr) bool {
	if !addr.IsValid() {
		return false
	}
	st, ok := s.engine.Status(s.at(line, addr))
	return ok && st.Device == "" && st.Failures > 0
}

// Learner is a policy that has to learn something of a controller before that
// can take another one's place.
type Learner interface {
	// Learned is called in the loop.
	Learned(tid.TID) bool
}

// dropFormer gives up former addresses that have no connection any more, if
// the current one serves. Until then they may be all there is.
func (s *Service) dropFormer() (dropped bool) {
	for id, l := range s.names.lines {
		if len(l.former) == 0 {
			continue
		}
		now := s.at(id, l.current)
		if st, ok := s.engine.Status(now); !ok || st.Device == "" {
			continue
		}
		if p, ok := s.policy.(Learner); ok && !p.Learned(now) {
			continue
		}
		l.former = slices.DeleteFunc(l.former, func(a netip.Addr) bool {
			st, ok := s.engine.Status(s.at(id, a))
			gone := !ok || st.Device == "" && st.Busy == reconcile.None
			dropped = dropped || gone
			return gone
		})
	}
	s.names.plan()
	return dropped
}

// addNames adds to a report which controllers stand for host names, and the
// lines that stand for none yet. It belongs to the loop.
func (s *Service) addNames(r *stasbus.Report) {
	for i := range r.Controllers {
		c := &r.Controllers[i]
		line, ok := s.names.of[c.TID()]
		if !ok {
			continue
		}
		host := s.hostName(line)
		host.Former = s.at(line, s.names.lines[line].current) != c.TID()
		for j := range c.Origins {
			if c.Origins[j].Kind == stasbus.Configured {
				c.Origins[j].Host = host
			}
		}
	}
	for _, c := range s.configured.Controllers {
		name := c.ID.HostName()
		if name == "" {
			continue
		}
		id := c.ID
		if id.HostNQN == "" {
			id.HostNQN = s.identity.NQN
		}
		refused := stasbus.Refusal{ID: stasbus.ID(id), Origins: []stasbus.Origin{{Kind: stasbus.Configured, Place: c.String()}}}
		if no := nameRefused(s.configured, c.ID, s.identity); no != nil {
			refused.Why = no.Why
			r.Refused = append(r.Refused, refused)
			continue
		}
		if s.names.lines[c.ID].current.IsValid() {
			continue
		}
		refused.Origins[0].Host = s.hostName(c.ID)
		switch q := s.names.asked[name]; {
		case len(q.answer) > 0:
			refused.Why = "the host name " + name + " stands for no address that may be used: " + addrList(q.answer)
		case q.err != nil:
			refused.Why = "the host name " + name + " cannot be looked up: " + q.err.Error()
		default:
			refused.Why = "the host name " + name + " is being looked up"
		}
		r.Refused = append(r.Refused, refused)
	}
}

func addrList(addrs []netip.Addr) string {
	texts := make([]string, len(addrs))
	for i, a := range addrs {
		texts[i] = a.String()
	}
	return strings.Join(texts, ", ")
}

func (s *Service) hostName(line tid.TID) *stasbus.HostName {
	name := line.HostName()
	q := s.names.asked[name]
	return &stasbus.HostName{Name: name, Answered: q.answered, Failure: failure(q.failures, q.err, q.next)}
}
