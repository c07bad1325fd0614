package stasbus

import (
	"testing"
	"time"
)

// A change alone is looked at when it comes. Under a stream of them, questions
// become few, but never stop (defect 54 of nvme-stas).
func TestSoak(t *testing.T) {
	s := soak{most: soakMost}
	start := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	ask := func(change time.Time) (waited time.Duration) {
		at := change
		if s.due().After(at) {
			at = s.due()
		}
		s.asked(at)
		return at.Sub(change)
	}
	for i := range 3 {
		if waited := ask(start.Add(time.Duration(i) * time.Minute)); waited != 0 {
			t.Errorf("change %d, alone, waits for %v", i, waited)
		}
	}
	// A change every millisecond for a minute.
	start = start.Add(time.Hour)
	end := start.Add(time.Minute)
	asked, longest := 0, time.Duration(0)
	for now := start; now.Before(end); {
		waited := ask(now)
		longest = max(longest, waited)
		asked++
		now = now.Add(waited + time.Millisecond)
	}
	if longest > soakMost || asked < 40 || asked > 50 {
		t.Errorf("a stream: %d questions, the longest wait is %v", asked, longest)
	}
	// Ten changes in 200 ms: two questions.
	start = end.Add(time.Hour)
	asked = 0
	for i := range 10 {
		change := start.Add(time.Duration(i) * 20 * time.Millisecond)
		if i > 0 && change.Before(s.due()) {
			continue // gathers
		}
		ask(change)
		asked++
	}
	if waited := s.due().Sub(start); asked != 1 || waited > soakLeast {
		t.Errorf("a burst: %d questions while it lasts, the next after %v", asked, waited)
	}
}
