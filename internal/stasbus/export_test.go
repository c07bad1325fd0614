package stasbus

import "time"

// WithTimeout returns a feed that waits that long for an answer.
func (f Feed) WithTimeout(d time.Duration) Feed {
	f.timeout = d
	return f
}

// WithSoak makes the feed take changes together for a shorter time.
func (f Feed) WithSoak(most time.Duration) Feed {
	f.slowest = most
	return f
}
