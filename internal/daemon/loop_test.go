package daemon

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// run runs a loop until the test ends.
func run(t *testing.T, l *Loop) {
	ctx, cancel := context.WithCancel(t.Context())
	go l.Run(ctx)
	t.Cleanup(func() { cancel(); synctest.Wait() })
}

func TestLoopOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got, want []int
		batches := 0
		l := NewLoop(func() time.Time { batches++; return time.Time{} })
		for i := range cap(l.in) {
			l.Post(t.Context(), func() { got = append(got, i) })
			want = append(want, i)
		}
		run(t, l)
		synctest.Wait()
		if !slices.Equal(got, want) {
			t.Errorf("ran in the order %v", got)
		}
		// One for them all, and one for the start, whichever came first.
		if batches > 2 {
			t.Errorf("%d decisions about one burst", batches)
		}
	})
}

// A steady stream does not put the decision off.
func TestLoopBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l *Loop
		ran, decided := 0, 0
		l = NewLoop(func() time.Time { decided = ran; return time.Time{} })
		var again func()
		again = func() {
			if ran++; ran < 10*cap(l.in) {
				l.in <- again
			} else if decided == 0 {
				t.Errorf("no decision during %d functions", ran)
			}
		}
		l.Post(t.Context(), again)
		run(t, l)
		synctest.Wait()
		if ran == 0 {
			t.Error("nothing ran")
		}
	})
}

func TestLoopTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		next := []time.Duration{5 * time.Second, 7 * time.Second, 0, 100 * time.Second}
		l := NewLoop(func() time.Time {
			at = append(at, time.Since(start))
			n := len(at) - 1
			if n >= len(next) || next[n] == 0 {
				return time.Time{}
			}
			return start.Add(next[n])
		})
		run(t, l)
		time.Sleep(time.Minute)
		// Never is never, until something happens; what happens sets the timer anew.
		if err := l.Do(t.Context(), func() {}); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		want := []time.Duration{0, 5 * time.Second, 7 * time.Second, time.Minute, 100 * time.Second}
		if !slices.Equal(at, want) {
			t.Errorf("decided at %v, want %v", at, want)
		}
	})
}

func TestLoopEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := false
		l := NewLoop(func() time.Time {
			if ctx.Err() != nil {
				t.Error("a decision after the end")
			}
			return time.Time{}
		})
		go func() { l.Run(ctx); ended = true }()
		if err := l.Do(ctx, cancel); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		synctest.Wait()
		if !ended {
			t.Fatal("the loop goes on")
		}
		if err := l.Do(ctx, func() { t.Error("ran after the end") }); !errors.Is(err, context.Canceled) {
			t.Errorf("Do after the end: %v", err)
		}
		// The buffer takes it, but nobody waits for ever.
		short, cancelShort := context.WithTimeout(t.Context(), time.Second)
		defer cancelShort()
		if err := l.Do(short, func() { t.Error("ran after the end") }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Do after the end: %v", err)
		}
		for len(l.in) < cap(l.in) {
			l.in <- func() {}
		}
		if l.Post(ctx, func() {}) {
			t.Error("posted into a full buffer after the end")
		}
	})
}
