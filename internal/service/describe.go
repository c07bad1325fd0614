package service

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/pyprint"
	"github.com/nvme-stas/stas/internal/reconcile"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
)

// This file answers the D-Bus methods that both daemons have. They are called
// in goroutines of the bus; what they need of the state they ask the loop for.

// noDevice stands for the device of a controller that has none.
const noDevice = "nvme?"

// Description is a controller on its way to the bus.
type Description struct {
	TID    tid.TID
	Dict   stasbus.Dict
	device string
	tried  bool // to connect, in vain or still
}

// Describe describes controllers. each is called in the loop for every one
// that is described, and may be nil. After an error that may be still to come.
func (s *Service) Describe(ctx context.Context, detailed bool, each func(tid.TID)) ([]Description, error) {
	var all []Description
	err := s.loop.Do(ctx, func() {
		for _, st := range s.engine.All() {
			if !st.Wanted {
				continue // on its way out
			}
			all = append(all, s.describe(st, detailed))
			if each != nil {
				each(st.TID)
			}
		}
	})
	if err != nil {
		return nil, err // the loop may still be about to write to all
	}
	if detailed {
		for _, d := range all {
			s.addDetails(d)
		}
	}
	return all, nil
}

// describe gives the identity of a controller, and with info, what is being
// done about it. It belongs to the loop.
func (s *Service) describe(st reconcile.Status, info bool) Description {
	d := Description{TID: st.TID, Dict: st.TID.Map(), device: st.Device, tried: st.Failures > 0 || st.Busy == reconcile.Connect}
	maps.Copy(d.Dict, s.shown[st.TID])
	d.Dict["device"] = noDevice
	if st.Device != "" {
		d.Dict["device"] = st.Device
	}
	if !info {
		return d
	}
	now := time.Now()
	d.Dict["connect attempts"] = strconv.Itoa(st.Failures)
	d.Dict["retry connect timer"] = timerText(st.Next, now, s.retryMost)
	if st.Busy == reconcile.Connect {
		d.Dict["connect operation"] = OperationText(st.Failures, false)
	}
	s.policy.Info(st.TID, true, d.Dict)
	return d
}

// addDetails adds what sysfs shows at this moment.
func (s *Service) addDetails(d Description) {
	for _, key := range []string{"hostid", "hostnqn", "model", "serial", "dctype", "cntrltype"} {
		d.Dict[key] = ""
	}
	d.Dict["connected"] = "None"
	if d.device == "" {
		if d.tried {
			d.Dict["connected"] = stasbus.False
		}
		return
	}
	c, err := s.env.Kernel.Read(d.device)
	if err != nil {
		d.Dict["connected"] = stasbus.False
		return
	}
	d.Dict["hostid"], d.Dict["hostnqn"] = c.HostID, c.HostNQN
	d.Dict["model"], d.Dict["serial"] = c.Model, c.Serial
	d.Dict["dctype"], d.Dict["cntrltype"] = c.DCType, c.CntrlType
	d.Dict["connected"] = stasbus.True
}

// OperationText is an operation in the notation of nvme-stas.
func OperationText(failures int, completed bool) string {
	return pyprint.Repr(pyprint.Dict{{Key: "fail count", Value: failures}, {Key: "completed", Value: completed}, {Key: "alive", Value: true}})
}

// timerText is a timer in the notation of nvme-stas: its interval and what is
// left of it.
func timerText(at, now time.Time, interval time.Duration) string {
	if at.IsZero() {
		return off(retryFirst)
	}
	return Countdown(interval, at, now)
}

// Countdown is a timer that runs.
func Countdown(interval time.Duration, at, now time.Time) string {
	left := strings.TrimRight(fmt.Sprintf("%.3f", max(at.Sub(now), 0).Seconds()), "0")
	return fmt.Sprintf("%.1fs [%ss]", interval.Seconds(), strings.TrimSuffix(left, "."))
}

// ListControllers implements [stasbus.Backend].
func (s *Service) ListControllers(ctx context.Context, detailed bool) ([]stasbus.Dict, error) {
	all, err := s.Describe(ctx, detailed, nil)
	if err != nil {
		return nil, err
	}
	list := make([]stasbus.Dict, 0, len(all))
	for _, d := range all {
		list = append(list, d.Dict)
	}
	return list, nil
}

// ControllerInfo implements [stasbus.Backend].
func (s *Service) ControllerInfo(ctx context.Context, id tid.TID) (string, error) {
	info := stasbus.Dict{}
	err := s.loop.Do(ctx, func() {
		if st, ok := s.engine.Status(id); ok && st.Wanted {
			info = s.describe(st, true).Dict
		}
	})
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(info)
	return string(text), err
}

// ProcessInfo implements [stasbus.Backend].
func (s *Service) ProcessInfo(ctx context.Context) (string, error) {
	info, err := s.Process(ctx)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(info)
	return string(text), err
}

// Process describes the daemon with the keys of nvme-stas. Those about what
// this one does otherwise say that nothing is going on there.
func (s *Service) Process(ctx context.Context) (map[string]any, error) {
	info := map[string]any{
		"tron":      s.Tron(),
		"log-level": logLevel(s.Tron()),
		// The key never leaves the daemon; nvme-stas showed it to everybody.
		"hostkey":                nil,
		"last known config file": nil,
		// Changes are acted upon at once.
		"config soak timer":         off(1500 * time.Millisecond),
		"terminator.audit timer":    off(30 * time.Second),
		"kernel support.TP8013":     s.supports("discovery"),
		"kernel support.host_iface": s.supports("host_iface"),
	}
	if f, ok := s.env.State.(StateFile); ok {
		info["last known config file"] = f.Path
	}
	err := s.loop.Do(ctx, func() {
		info["hostnqn"], info["hostid"] = s.identity.NQN, s.identity.ID
		info["symname"] = nullable(s.identity.SymName)
		for _, st := range s.engine.All() {
			if !st.Wanted {
				info["terminator.controller."+st.TID.String()] = pyprint.Repr(s.describe(st, true).Dict)
			}
		}
	})
	if err != nil {
		return nil, err // the loop may still be about to write to info
	}
	return info, nil
}

// supports tells whether the kernel has a connect option. It can be asked only
// between two connects, so the answer may come a while after the start.
func (s *Service) supports(option string) string {
	known := s.kernelOptions.Load()
	return stasbus.Bool(known != nil && known.Has(option))
}

// KernelLacks tells whether it is known that the kernel does not have a connect
// option.
func (s *Service) KernelLacks(option string) bool {
	known := s.kernelOptions.Load()
	return known != nil && !known.Has(option)
}

// askKernel finds out what the kernel can connect with. Whoever connects finds
// out as well, and complains.
func (s *Service) askKernel() {
	if options, err := s.env.Kernel.Options(); err == nil {
		s.kernelOptions.Store(&options)
	}
}

// off is a timer that does not run.
func off(interval time.Duration) string { return fmt.Sprintf("%.1fs [off]", interval.Seconds()) }

func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// Tron implements [stasbus.Backend].
func (s *Service) Tron() bool { return s.env.Level.Level() <= slog.LevelDebug }

// SetTron implements [stasbus.Backend].
func (s *Service) SetTron(on bool) {
	if on {
		s.env.Level.Set(slog.LevelDebug)
	} else {
		s.env.Level.Set(slog.LevelInfo)
	}
}

func logLevel(tron bool) string {
	if tron {
		return "DEBUG"
	}
	return "INFO"
}
