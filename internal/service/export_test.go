package service

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/internal/reconcile"
)

// What tests look at from outside.
var (
	Observed = observed
)

const (
	RetryFirst = retryFirst
	RetryCap   = retryCap
	RetryLeast = retryLeast
	QuickMost  = quickMost
	QuickFor   = quickFor
	StateLook  = stateLook
	FullPass   = fullPass
	PassRetry  = passRetry

	BlindPasses = blindPasses
)

// TimerText is for tests.
var TimerText = timerText

// ResolverOf is what a service looks up host names with.
func ResolverOf(s *Service) func(context.Context, string) ([]netip.Addr, error) { return s.env.Resolve }

// Numbers are the error numbers that have a class.
func Numbers() (all []unix.Errno) {
	for n := range numbers {
		all = append(all, n)
	}
	return all
}

// Backoff is for tests.
func (s *Service) Backoff(t reconcile.Try) time.Duration { return s.backoff(t) }

// ClassOf is for tests.
func ClassOf(err error) (*class, string) { return classOf(err) }

// ClassName is for tests.
func ClassName(err error) string {
	c, _ := classOf(err)
	return c.name
}
