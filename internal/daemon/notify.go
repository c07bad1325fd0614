package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// Supervisor tells the service manager about the daemon (sd_notify(3)). Where
// there is no service manager, every method does nothing.
type Supervisor struct{ Log *slog.Logger }

func (s Supervisor) send(lines ...string) {
	if _, err := sd.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		s.Log.Warn("cannot notify the service manager", "error", err)
	}
}

// Ready reports that start-up, or a reload, is complete.
func (s Supervisor) Ready(status string) { s.send(sd.SdNotifyReady, "STATUS="+status) }

// Reloading reports the beginning of a reload; Ready ends it. The time stamp
// is what Type=notify-reload compares.
func (s Supervisor) Reloading() { s.send(sd.SdNotifyReloading, sd.SdNotifyMonotonicUsec()) }

// Stopping reports the beginning of the end.
func (s Supervisor) Stopping() { s.send(sd.SdNotifyStopping) }

// Watchdog keeps the service manager's watchdog quiet as long as probe
// returns in time: it has to go through whatever must not hang.
func (s Supervisor) Watchdog(ctx context.Context, probe func(context.Context) error) error {
	interval, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("the service manager's watchdog setting is unusable: %w", err)
	}
	if interval == 0 {
		return nil
	}
	ticker := time.NewTicker(interval / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			if err := probe(ctx); err == nil {
				s.send(sd.SdNotifyWatchdog)
			}
		}
	}
}
