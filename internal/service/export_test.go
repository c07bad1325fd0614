package service

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
