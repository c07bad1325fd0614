package daemon

import (
	"context"
	"time"
)

// Loop runs functions one after another in one goroutine, which thereby owns
// all state that only they touch. Nothing that blocks may run in it.
type Loop struct {
	in chan func()
	// after runs after each batch of functions and when the timer expires; it
	// returns when it wants to run again at the latest, zero for never.
	after func() time.Time
}

// NewLoop returns a loop that calls after when something has happened.
func NewLoop(after func() time.Time) *Loop {
	return &Loop{in: make(chan func(), 64), after: after}
}

// Post hands a function to the loop and does not wait for it. It reports false
// if ctx ended first. The loop itself must not call it.
func (l *Loop) Post(ctx context.Context, f func()) bool {
	select {
	case l.in <- f:
		return true
	case <-ctx.Done():
		return false
	}
}

// Do has the loop run a function and waits until it has.
func (l *Loop) Do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	if !l.Post(ctx, func() { defer close(done); f() }) {
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run is the loop. It returns when ctx ends.
func (l *Loop) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case f := <-l.in:
			f()
			l.drain()
		}
		if ctx.Err() != nil {
			return // what happened last begins nothing new
		}
		timer.Stop()
		if next := l.after(); !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// drain runs what has gathered meanwhile, so that a burst is decided upon
// once. It is bounded, so that a steady stream cannot put the decision off.
func (l *Loop) drain() {
	for range cap(l.in) {
		select {
		case f := <-l.in:
			f()
		default:
			return
		}
	}
}
