package service

import (
	"context"
	"net/netip"
)

// What tests look at from outside.
var (
	Backoff  = backoff
	Observed = observed
)

const (
	RetryFirst = retryFirst
	RetryCap   = retryCap
	FullPass   = fullPass
	PassRetry  = passRetry

	BlindPasses = blindPasses
)

// TimerText is for tests.
var TimerText = timerText

// ResolverOf is what a service looks up host names with.
func ResolverOf(s *Service) func(context.Context, string) ([]netip.Addr, error) { return s.env.Resolve }
