package service

import "time"

// After has the loop do something later, as long as the daemon runs. It may be
// called from the loop.
func (s *Service) After(pause time.Duration, do func()) *time.Timer {
	return time.AfterFunc(pause, func() { s.loop.Post(s.ctx, do) })
}

// InBackground runs a worker, which the end of the daemon waits for.
func (s *Service) InBackground(work func()) { s.workers.Go(work) }

// Post has the loop do something. It may be called from any goroutine.
func (s *Service) Post(do func()) { s.loop.Post(s.ctx, do) }
