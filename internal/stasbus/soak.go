package stasbus

import "time"

// How changes that come one after another are taken together.
const (
	soakLeast = 250 * time.Millisecond
	soakMost  = 1500 * time.Millisecond
)

// soak spaces the questions that changes ask for. The first change is looked at
// at once. Those that follow it gather for a while, which grows as long as they
// keep coming, up to a bound that no further change puts off.
type soak struct {
	last time.Time // of the questions
	gap  time.Duration
	most time.Duration // of the gap
}

// due is when the next question may be asked.
func (s *soak) due() time.Time { return s.last.Add(s.gap) }

// asked notes that one is.
func (s *soak) asked(now time.Time) {
	switch {
	case now.Sub(s.last) >= 2*s.most: // it has been quiet
		s.gap = min(soakLeast, s.most)
	default:
		s.gap = min(2*s.gap, s.most)
	}
	s.last = now
}
