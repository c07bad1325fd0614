package stasbus

import "time"

// WithTimeout returns a feed that waits that long for an answer.
func (f Feed) WithTimeout(d time.Duration) Feed {
	f.timeout = d
	return f
}
