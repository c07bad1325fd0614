package target

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/initiator"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmetcp"
)

// A trial is what a host does, to see what comes of a fault. It returns how
// that ended.
type trial func(t *testing.T, r *rig) error

func connecting(nqn string) trial {
	return func(t *testing.T, r *rig) error {
		_, err := r.dial(t, 1, nqn)
		return err
	}
}

// withController does something with a controller to which one was connected
// before the fault was on.
func withController(nqn string, do func(t *testing.T, r *rig, c *initiator.Controller) error) trial {
	return func(t *testing.T, r *rig) error {
		faults := r.Faults()
		must(t, r.ClearFaults())
		c := r.host(t, 1, nqn)
		for _, f := range faults {
			_, err := r.AddFault(f.Fault)
			must(t, err)
		}
		return do(t, r, c)
	}
}

func lateLog(_ *testing.T, _ *rig, c *initiator.Controller) error {
	return c.GetLogPage(nvme.LogDiscovery, 0, false, nvme.LogHeaderSize, make([]byte, 1024))
}

func wholeLog(t *testing.T, _ *rig, c *initiator.Controller) error {
	log, err := fabrics.ReadDiscoveryLog(t.Context(), c, 0)
	return errors.Join(append(log.Bad, err)...)
}

func identifying(t *testing.T, _ *rig, c *initiator.Controller) error {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := c.Identify(ctx)
	return err
}

// identity checks what Identify says.
func identity(nqn string, check func(nvme.IdentifyController) bool) trial {
	return withController(nqn, func(t *testing.T, _ *rig, c *initiator.Controller) error {
		id, err := c.Identify(t.Context())
		if err == nil && check(id) {
			err = errAsWanted
		}
		return err
	})
}

var (
	errAsWanted = errors.New("as the fault is to have it")
	errAny      = errors.New("any error at all")
	errClosed   = errors.New("the connection is closed")
)

// as compares how a trial has ended with how it should.
func as(err, want error) bool {
	switch {
	case errors.Is(want, errAny):
		return err != nil
	case errors.Is(want, errClosed): // how a pipe shows it depends on who was faster
		return errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe)
	}
	return errors.Is(err, want)
}

// TestFaults: each kind of fault does what it is for.
func TestFaults(t *testing.T) {
	mute := context.DeadlineExceeded
	trials := map[string]struct {
		fault Fault
		do    trial
		want  error
	}{
		"refuse":     {Fault{}, connecting(""), errAny},
		"black-hole": {}, // needs real sockets: TestBlackHole
		"mute":       {Fault{}, connecting(""), mute},
		"close":      {Fault{}, connecting(""), errClosed},
		"reset":      {Fault{}, connecting(""), errClosed}, // a pipe knows no RST

		"close-at-icreq":     {Fault{}, connecting(""), errClosed},
		"mute-after-icresp":  {Fault{}, connecting(""), mute},
		"close-after-icresp": {Fault{}, connecting(""), errClosed},
		"maxh2cdata":         {Fault{}, connecting(""), errAny},
		"pfv":                {Fault{}, connecting(""), errAny},
		"cpda":               {Fault{}, connecting(""), errAny},
		"digest-mismatch":    {Fault{}, connecting(""), errAny},

		"status":            {Fault{Command: "identify", Status: nvme.StatusNamespaceNotReady}, connecting(nqnA), nvme.StatusNamespaceNotReady},
		"swallow":           {Fault{Command: "identify"}, withController("", identifying), mute},
		"drop":              {Fault{Command: "identify"}, withController("", identifying), errClosed},
		"drop-reset":        {Fault{Command: "identify"}, withController("", identifying), errClosed},
		"silent-death":      {Fault{}, withController("", func(_ *testing.T, _ *rig, c *initiator.Controller) error { <-c.Done(); return c.Err() }), initiator.ErrKeepAlive},
		"busy":              {Fault{}, connecting(nqnA), nvme.StatusConnectControllerBusy},
		"unknown-subsystem": {Fault{Subsystem: nqnA}, connecting(nqnA), nvme.StatusConnectInvalidParameters},
		"invalid-host":      {Fault{Host: hostNQN(1)}, connecting(nqnA), nvme.StatusConnectInvalidHost},
		"shutdown-mute": {Fault{}, withController("", func(t *testing.T, _ *rig, c *initiator.Controller) error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			return c.Disconnect(ctx)
		}), mute},
		"aer-error": {Fault{}, withController("", func(t *testing.T, _ *rig, c *initiator.Controller) error {
			if told := events(t, c)(); len(told) > 0 {
				return nil
			}
			_, err := c.Do(t.Context(), nvme.Command{Opcode: nvme.OpAsyncEventRequest}, nil)
			return err
		}), nvme.StatusInternalError},
		"dim-refused": {Fault{Status: nvme.StatusZoneGroupOriginatorInvalid}, withController("", func(t *testing.T, _ *rig, c *initiator.Controller) error {
			return c.ManageDiscovery(t.Context(), registrationOf(1))
		}), nvme.StatusZoneGroupOriginatorInvalid},
		"log-refused": {Fault{}, withController("", wholeLog), nvme.StatusInvalidLogPage},
		"log-mute": {Fault{}, withController("", func(t *testing.T, _ *rig, c *initiator.Controller) error {
			must(t, c.GetLogPage(nvme.LogDiscovery, 0, false, 0, make([]byte, 20))) // the header is there
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			return c.LogPage(ctx, nvme.GetLogPage{LID: nvme.LogDiscovery, Offset: nvme.LogHeaderSize, Length: 1024}, make([]byte, 1024))
		}), mute},
		"log-restart": {Fault{}, withController("", lateLog), nvme.StatusDiscoverRestart},

		"delay": {Fault{Delay: Duration(2 * time.Minute), Command: "identify"}, withController("", identifying), mute},
		"patch": {Fault{Command: "identify", Offset: 4, Bytes: Bytes("BROKEN")}, identity(nqnA, func(id nvme.IdentifyController) bool { return id.Serial[:6] == "BROKEN" }), errAsWanted},
		"flip": {Fault{Command: "identify", Offset: 200}, func(t *testing.T, r *rig) error {
			_, err := r.dial(t, 1, "", func(o *initiator.Options) { o.DataDigest = true })
			return err
		}, nvmetcp.ErrDataDigest},
		"bad-length": {Fault{Command: "identify"}, withController("", identifying), errAny},
		"short-data": {Fault{Command: "identify"}, withController("", identifying), errAny},
		"long-data":  {Fault{Command: "identify"}, withController("", identifying), errAny},
		"wrong-cid":  {Fault{Command: "identify"}, withController("", identifying), errAny},

		"kas-zero":        {Fault{}, identity(nqnA, func(id nvme.IdentifyController) bool { return id.KAS == 0 && id.IOCCSz != 0 }), errAsWanted},
		"ioccsz-small":    {Fault{}, identity(nqnA, func(id nvme.IdentifyController) bool { return id.IOCCSz == 3 }), errAsWanted},
		"cntlid-mismatch": {Fault{}, identity(nqnA, func(id nvme.IdentifyController) bool { return id.CntlID == 0xbeef }), errAsWanted},
		"cntrltype-io":    {Fault{}, identity("", func(id nvme.IdentifyController) bool { return id.CntrlType == nvme.ControllerIO }), errAsWanted},
		"oaes-zero":       {Fault{}, identity("", func(id nvme.IdentifyController) bool { return id.OAES == 0 }), errAsWanted},
		"cmic-zero":       {Fault{}, identity(nqnA, func(id nvme.IdentifyController) bool { return id.CMIC == 0 }), errAsWanted},
		"cntlid-reused": {Fault{}, func(t *testing.T, r *rig) error {
			if a, b := r.host(t, 1, ""), r.host(t, 2, ""); a.ID() == 1 && b.ID() == 1 {
				return errAsWanted
			}
			return nil
		}, errAsWanted},
		"genctr-moves": {Fault{}, withController("", wholeLog), fabrics.ErrGenerationMoved},
		"numrec-lies":  {Fault{}, withController("", wholeLog), fabrics.ErrTooManyEntries},
		"garbage":      {Fault{}, withController("", wholeLog), errAny},

		"restart": {Fault{Delay: Duration(time.Minute)}, withController("", func(_ *testing.T, _ *rig, c *initiator.Controller) error {
			began := time.Now()
			<-c.Done()
			if time.Since(began) == time.Minute {
				return errAsWanted
			}
			return c.Err()
		}), errAsWanted},
		"aen": {Fault{Every: Duration(time.Millisecond), Times: 100}, func(t *testing.T, r *rig) error {
			c := r.host(t, 1, "")
			ch, err := c.AsyncEvents(t.Context(), 0)
			must(t, err)
			must(t, r.ClearFaults())
			_, err = r.AddFault(Fault{Do: "aen", Delay: Duration(time.Second), Every: Duration(time.Millisecond), Times: 100})
			must(t, err)
			for range 100 {
				equal(t, "event", <-ch, nvme.DiscoveryLogChanged)
			}
			return errAsWanted
		}, errAsWanted},
	}
	for _, k := range Kinds() {
		tr, ok := trials[k.Name]
		if !ok {
			t.Errorf("no trial for %s", k.Name)
			continue
		}
		if tr.do == nil {
			continue
		}
		t.Run(k.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := oneSubsystem(Subsystem{})
				tr.fault.Do = k.Name
				config.Faults = []Fault{tr.fault}
				r := newRig(t, config)
				err := tr.do(t, r)
				if !as(err, tr.want) {
					t.Errorf("%v, want %v", err, tr.want)
				}
				if faults := r.Faults(); len(faults) != 1 || faults[0].Done == 0 && k.at != atListen {
					t.Errorf("it did not strike: %+v", faults)
				}
				// Without it all is well again.
				must(t, r.ClearFaults())
				time.Sleep(10 * time.Second)
				synctest.Wait()
				wholeLog(t, r, r.host(t, 1, ""))
			})
		})
	}
}

// TestFaultFilters: a fault strikes where and as often as it says.
func TestFaultFilters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, oneSubsystem(Subsystem{}))
		c1, c2, ioc := r.host(t, 1, ""), r.host(t, 2, ""), r.host(t, 1, nqnA)
		fails := func(c *initiator.Controller) bool { return identifying(t, r, c) != nil }
		for _, tc := range []struct {
			name  string
			fault Fault
			want  [3]bool
		}{
			{"everywhere", Fault{}, [3]bool{true, true, true}},
			{"one host", Fault{Host: hostNQN(1)}, [3]bool{true, false, true}},
			{"one subsystem", Fault{Subsystem: nqnA}, [3]bool{false, false, true}},
			{"discovery", Fault{Subsystem: nvme.WellKnownDiscoveryNQN}, [3]bool{true, true, false}},
			{"this listener", Fault{Listener: "a"}, [3]bool{true, true, true}},
			{"I/O queues", Fault{Queue: "io"}, [3]bool{}},
			{"another command", Fault{Command: "get-log-page"}, [3]bool{}},
			{"once", Fault{Times: 1}, [3]bool{true, false, false}},
			{"all but the first", Fault{Skip: 1}, [3]bool{false, true, true}},
			{"a log page", Fault{LID: new(nvme.LogDiscovery)}, [3]bool{}},
		} {
			tc.fault.Do = "status"
			if tc.fault.Command == "" {
				tc.fault.Command = "identify"
			}
			id, err := r.AddFault(tc.fault)
			must(t, err)
			equal(t, tc.name, [3]bool{fails(c1), fails(c2), fails(ioc)}, tc.want)
			must(t, r.RemoveFault(id))
		}
		if fails(c1) || fails(c2) || fails(ioc) {
			t.Error("a fault that was removed strikes")
		}
		_, err := r.AddFault(Fault{Do: "mute", Listener: "b"})
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("a listener that is not there: %v", err)
		}
	})
}
