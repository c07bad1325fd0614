package service

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

// This file says what a reload would do. What is wanted, and what is not any
// more, is worked out by what acts: a policy's decision.

// Decision is what a policy makes of a configuration.
type Decision struct {
	Wanted []Wish // in the order in which they are tried
	Gone   []Gone
	// Held says whether an operator has a controller left alone, Guard why a
	// device would not be deleted now. It may block. Nil, both, for never.
	Held  func(tid.TID) bool
	Guard func(reconcile.Op[fabrics.Options]) error
}

// Wish is a controller that is wanted.
type Wish struct {
	TID tid.TID
	// Options are how to connect it; nil for as it was wanted before.
	Options *fabrics.Options
	Why     string
	// Doubted says that nothing lists it, and that this is no evidence.
	Doubted bool
}

// Gone is a controller that was wanted and is not any more.
type Gone struct {
	TID  tid.TID
	Keep bool // its connection stays
	Why  string
}

// Decider is a policy that can say what it would make of a configuration.
type Decider interface {
	// Decide is called in the loop and changes nothing.
	Decide(*conf.Config, hostid.Identity) Decision
}

// Plan implements [stasbus.Planner].
func (s *Service) Plan(ctx context.Context, text string) (stasbus.Plan, error) {
	p := stasbus.Plan{Version: stasbus.ReportVersion, Daemon: s.daemon(), Time: time.Now(), Issues: []string{}, Steps: []stasbus.Step{}}
	decider, ok := s.policy.(Decider)
	if !ok || s.env.Candidate == nil {
		return p, errors.New("this daemon cannot plan")
	}
	in, err := s.env.Candidate(text)
	p.Issues = append(p.Issues, in.Issues...)
	if err != nil {
		p.Refused = err.Error()
		return p, nil
	}
	var (
		deletes []reconcile.Op[fabrics.Options]
		at      []int // their steps
		guard   func(reconcile.Op[fabrics.Options]) error
	)
	err = s.loop.Do(ctx, func() {
		names := s.names.copy()
		cfg := names.resolve(in.Config, in.Identity)
		p.Doubtful = cfg.Doubtful
		d := decider.Decide(cfg, in.Identity)
		p.Steps = append(p.Steps, refusals(cfg, in.Identity)...)
		for _, w := range d.Wanted {
			if step := s.planWish(w); step != nil {
				p.Steps = append(p.Steps, *step)
			} else {
				p.Unchanged++
			}
		}
		wanted := make(map[tid.TID]bool, len(d.Wanted))
		for _, w := range d.Wanted {
			wanted[w.TID] = true
		}
		for _, g := range d.Gone {
			if renamed(g.TID, in.Identity, func(id tid.TID) bool { return wanted[id] }) {
				g.Keep, g.Why = true, "it is wanted under another host NQN, and stays connected under the former one"
			}
			step, op := s.planGone(g)
			if op != nil {
				deletes, at = append(deletes, *op), append(at, len(p.Steps))
			}
			p.Steps = append(p.Steps, step)
		}
		for i := range p.Steps {
			if step := &p.Steps[i]; d.Held != nil && (step.Action == stasbus.PlanConnect || step.Action == stasbus.PlanDisconnect) && d.Held(tid.TID(step.ID)) {
				step.Action, step.Why = stasbus.PlanHold, step.Why+"; but an operator holds it"
			}
		}
		guard = d.Guard
	})
	if err != nil {
		return stasbus.Plan{}, err // the loop may still be about to write to p
	}
	for i, op := range deletes {
		step := &p.Steps[at[i]]
		if step.Action != stasbus.PlanDisconnect {
			continue
		}
		err := s.owned(op.Device)
		if err == nil && guard != nil {
			err = guard(op)
		}
		if err != nil {
			step.Action, step.Why = stasbus.PlanKeep, step.Why+"; but "+err.Error()
		}
	}
	return p, nil
}

// refusals are the lines of the configuration that connect nothing.
func refusals(cfg *conf.Config, identity hostid.Identity) (steps []stasbus.Step) {
	_, refused := Origins(cfg, identity)
	for _, r := range refused {
		steps = append(steps, stasbus.Step{ID: r.ID, Action: stasbus.PlanRefuse, Why: r.Origins[0].Place + " asks for it, but " + r.Why})
	}
	return steps
}

// planWish is what would become of a controller that is wanted, nil if nothing.
func (s *Service) planWish(w Wish) *stasbus.Step {
	step := &stasbus.Step{ID: stasbus.ID(w.TID), Why: w.Why}
	st, ok := s.engine.Status(w.TID)
	step.Device = st.Device
	if ok && st.Wanted {
		if w.Doubted {
			step.Action = stasbus.PlanKeep
			return step
		}
		params, _ := s.engine.Params(w.TID)
		if w.Options == nil {
			return nil
		}
		step.Action, step.Changes = stasbus.PlanAdjust, changes(params, *w.Options, st.Device != "")
		if len(step.Changes) == 0 {
			return nil
		}
		return step
	}
	if device, ok := s.engine.Existing(w.TID); ok {
		step.Action, step.Device = stasbus.PlanTakeOver, device
	} else {
		step.Action = stasbus.PlanConnect
	}
	return step
}

// adjustable are the options that a connection takes which exists already.
var adjustable = map[string]bool{"ctrl_loss_tmo": true, "reconnect_delay": true, "fast_io_fail_tmo": true}

// changes lists what differs, under the names of the configuration.
func changes(was, now fabrics.Options, connected bool) (all []stasbus.Change) {
	for _, d := range was.Differences(now) {
		name := strings.ReplaceAll(d.Name, "_", "-")
		if d.Name == "keep_alive_tmo" {
			name = "kato"
		}
		all = append(all, stasbus.Change{Parameter: name, Was: d.Was, Becomes: d.Now, AtOnce: connected && adjustable[d.Name]})
	}
	return all
}

// planGone is what would become of a controller that is no longer wanted.
func (s *Service) planGone(g Gone) (step stasbus.Step, op *reconcile.Op[fabrics.Options]) {
	step = stasbus.Step{ID: stasbus.ID(g.TID), Why: g.Why}
	st, _ := s.engine.Status(g.TID)
	step.Device = st.Device
	if step.Device == "" {
		step.Device, _ = s.engine.Existing(g.TID)
	}
	switch {
	case g.Keep && step.Device != "":
		step.Action = stasbus.PlanKeep
	case step.Device == "":
		step.Action = stasbus.PlanForget
	default:
		step.Action = stasbus.PlanDisconnect
		op = &reconcile.Op[fabrics.Options]{Kind: reconcile.Disconnect, TID: g.TID, Device: step.Device}
		op.Seen, _ = s.engine.Seen(step.Device)
	}
	return step, op
}
