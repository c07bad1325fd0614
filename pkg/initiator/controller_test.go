package initiator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmetcp"
)

var _ fabrics.LogReader = (*Controller)(nil)

// TestDiscoveryLog reads a log with the reader that the daemons use.
func TestDiscoveryLog(t *testing.T) {
	want := nvme.DiscoveryLog{GenCtr: 5}
	page, err := nvme.DiscoveryLogHeader{GenCtr: 5, NumRec: 7}.AppendBinary(nil)
	for i := range 7 {
		e := nvme.DiscoveryLogEntry{TrType: nvme.TCP, SubType: nvme.NVMSubsystem, SubNQN: fmt.Sprint("nqn.", i)}
		want.Entries = append(want.Entries, e)
		if err == nil {
			page, err = e.AppendBinary(page)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t)
	p.on["get-log-page"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		get, err := nvme.ParseGetLogPage(c.Cmd)
		if err != nil || get.LID != nvme.LogDiscovery || get.LSP != nvme.LSPPortLocal || c.Cmd.NSID != 0 {
			return refused(0x4002, 0)(nil, c)
		}
		return sends(c, page[get.Offset:][:get.Length])
	}
	c := p.connect(p.options())
	log, err := fabrics.ReadDiscoveryLog(t.Context(), c, nvme.LSPPortLocal)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, log); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	err = c.LogPage(t.Context(), nvme.GetLogPage{LID: nvme.LogSupportedPages}, make([]byte, 1024))
	if !errors.Is(err, nvme.StatusInvalidField) || !strings.HasPrefix(err.Error(), "log page 0x00: ") {
		t.Error(err)
	}
}

// TestGetLogPageTimeout: what has no context has a time.
func TestGetLogPageTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.on["get-log-page"] = mute
		c := p.connect(p.options())
		start := time.Now()
		err := c.GetLogPage(nvme.LogDiscovery, 0, false, 0, make([]byte, 20))
		if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took != time.Minute {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestManageDiscovery(t *testing.T) {
	want := nvme.DiscoveryInformation{
		Task: nvme.TaskDeregister, Format: nvme.EntryExtended, EntityType: nvme.EntityHost, KeyType: nvme.KeyAddress,
		EID: testHostNQN, Name: "host",
		Entries: []nvme.ExtendedEntry{{
			Entry:      nvme.DiscoveryLogEntry{TrType: nvme.TCP, AdrFam: nvme.FamilyIPv4, SubNQN: testHostNQN},
			Attributes: []nvme.Attribute{nvme.HostIDAttribute(nvme.HostID{1}), nvme.SymbolicName("here")},
		}},
	}
	p := newPeer(t)
	p.on["discovery-info-mgmt"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		got, err := nvme.DecodeDiscoveryInformation(c.Cmd, c.Data)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		return []nvmetcp.PDU{done(c, 0)}
	}
	c := p.connect(p.options())
	if err := c.ManageDiscovery(t.Context(), want); err != nil {
		t.Error(err)
	}
	p.on["discovery-info-mgmt"] = refused(0x4133, 0)
	if err := c.ManageDiscovery(t.Context(), want); !errors.Is(err, nvme.StatusRequestedFunctionDisabled) {
		t.Error(err)
	}
}

func TestFeatures(t *testing.T) {
	p := newPeer(t)
	p.on["set-features"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		fid, value := nvme.ParseFeature(c.Cmd)
		if fid == nvme.FeatureHostBehavior && len(c.Data) != nvme.HostBehaviorSize {
			t.Errorf("%d bytes of data", len(c.Data))
		}
		return []nvmetcp.PDU{done(c, uint64(value)+1)}
	}
	p.on["get-features"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		if fid, _ := nvme.ParseFeature(c.Cmd); fid == nvme.FeatureTimestamp {
			return sends(c, []byte("12345678"))
		}
		return []nvmetcp.PDU{done(c, 42)}
	}
	c := p.connect(p.options())
	if v, err := c.SetFeatures(t.Context(), nvme.FeatureNumberOfQueues, 3, nil); err != nil || v != 4 {
		t.Errorf("%d, %v", v, err)
	}
	if _, err := c.SetFeatures(t.Context(), nvme.FeatureHostBehavior, 0, make([]byte, nvme.HostBehaviorSize)); err != nil {
		t.Error(err)
	}
	if v, err := c.GetFeatures(t.Context(), nvme.FeatureKATO, nil); err != nil || v != 42 {
		t.Errorf("%d, %v", v, err)
	}
	stamp := make([]byte, nvme.TimestampSize)
	if _, err := c.GetFeatures(t.Context(), nvme.FeatureTimestamp, stamp); err != nil || string(stamp) != "12345678" {
		t.Errorf("%q, %v", stamp, err)
	}
}

// TestKeepAlive: one comes every half KATO; if none is answered for KATO, the
// controller is lost.
func TestKeepAlive(t *testing.T) {
	for _, tc := range []struct {
		name string
		then answer // after three of them
		is   error
		at   time.Duration
	}{
		{"silence", mute, ErrKeepAlive, (4*2 + 4) * time.Second},
		{"refusal", refused(0x4001, 0), nvme.StatusInvalidOpcode, 4 * 2 * time.Second},
		{"hanging up", hangUp, io.EOF, 4 * 2 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				start := time.Now()
				var came []time.Duration
				p.on["keep-alive"] = func(q *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
					if came = append(came, time.Since(start)); len(came) > 3 {
						return tc.then(q, c)
					}
					return []nvmetcp.PDU{done(c, 0)}
				}
				p.on["async-event-request"] = mute
				o := p.options()
				o.KATO = 4 * time.Second
				c := p.connect(o)
				events, err := c.AsyncEvents(t.Context(), 0)
				if err != nil {
					t.Fatal(err)
				}
				<-c.Done()
				if took := time.Since(start); !errors.Is(c.Err(), tc.is) || took != tc.at {
					t.Errorf("%v after %v, want %v after %v", c.Err(), took, tc.is, tc.at)
				}
				synctest.Wait()
				if want := []time.Duration{2 * time.Second, 4 * time.Second, 6 * time.Second, 8 * time.Second}; !slices.Equal(came, want) {
					t.Errorf("Keep Alive came at %v", came)
				}
				if _, open := <-events; open {
					t.Error("an event out of nothing")
				}
			})
		})
	}
}

// TestAsyncEvents: one request is kept with the controller, and a reader that
// is behind holds nothing up.
func TestAsyncEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		var features []uint32
		p.on["set-features"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
			features = append(features, c.Cmd.CDW10, c.Cmd.CDW11)
			return []nvmetcp.PDU{done(c, 0)}
		}
		sent, most := 0, eventBacklog+10
		p.on["async-event-request"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
			if sent == most {
				return nil
			}
			sent++
			return []nvmetcp.PDU{done(c, uint64(nvme.DiscoveryLogChanged)|uint64(sent)<<24)}
		}
		c := p.connect(p.options())
		events, err := c.AsyncEvents(t.Context(), nvme.AENConfigDiscovery)
		if err != nil || !slices.Equal(features, []uint32{uint32(nvme.FeatureAsyncEvents), 1 << 31}) {
			t.Fatalf("%x, %v", features, err)
		}
		synctest.Wait()
		if sent != eventBacklog+1 {
			t.Errorf("%d events were taken while nobody read", sent)
		}
		if _, err := c.Identify(t.Context()); err != nil {
			t.Errorf("meanwhile: %v", err)
		}
		for i := range most {
			if got, want := <-events, nvme.DiscoveryLogChanged|nvme.AEN(i+1)<<24; got != want {
				t.Fatalf("event %d is %v, want %v", i, got, want)
			}
		}
		if _, err := c.AsyncEvents(t.Context(), 0); err == nil {
			t.Error("events are delivered twice")
		}
		c.Close()
		if _, open := <-events; open {
			t.Error("an event out of nothing")
		}
		if _, err := c.AsyncEvents(t.Context(), 0); !errors.Is(err, ErrClosed) {
			t.Errorf("of a closed connection: %v", err)
		}
	})
}

// TestAsyncEventsRefused: a controller that refuses to announce is still good
// for all the rest.
func TestAsyncEventsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		p.on["set-features"] = refused(0x4002, 0)
		c := p.connect(p.options())
		if _, err := c.AsyncEvents(t.Context(), nvme.AENConfigDiscovery); !errors.Is(err, nvme.StatusInvalidField) {
			t.Error(err)
		}
		p.on["async-event-request"] = refused(0x4105, 0)
		events, err := c.AsyncEvents(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, open := <-events; open {
			t.Error("an event out of nothing")
		}
		if _, err := c.Identify(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestDisconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, q, ns := p.connectIO(p.options())
		p.on["property-get"] = func(qp *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
			if q.Err() == nil {
				t.Error("the I/O queue is still open")
			}
			return defaults["property-get"](qp, c)
		}
		p.happened()
		if err := c.Disconnect(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.wg.Wait()
		if got := p.happened(); got != "property-set property-get" || p.props[nvme.PropCC] != 0x464001 {
			t.Errorf("the commands were %s, CC is %#x", got, p.props[nvme.PropCC])
		}
		if !errors.Is(c.Err(), ErrClosed) || !errors.Is(q.Err(), ErrClosed) {
			t.Errorf("%v, %v", c.Err(), q.Err())
		}
		<-c.Done()
		<-q.Done()
		if err := q.Flush(t.Context(), ns); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
		if _, err := c.ConnectIO(t.Context(), 1); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// TestDisconnectMute: a controller that does not answer is left at the time
// that the context sets.
func TestDisconnectMute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c := p.connect(p.options())
		p.on["property-set"] = mute
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if err := c.Disconnect(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if !errors.Is(c.Err(), ErrClosed) {
			t.Error(c.Err())
		}
	})
}

// TestClose: commands under way end with the connection.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, q, ns := p.connectIO(p.options())
		p.on["get-features"], p.on["flush"] = mute, mute
		errs := make(chan error, 2)
		go func() {
			_, err := c.GetFeatures(t.Context(), nvme.FeatureKATO, nil)
			errs <- err
		}()
		go func() { errs <- q.Flush(t.Context(), ns) }()
		synctest.Wait()
		c.Close()
		for range 2 {
			if err := <-errs; !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		}
		c.Close() // once more
	})
}

// TestLost: the end of the admin queue is that of all queues.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		c, q, _ := p.connectIO(p.options())
		p.on["get-features"] = func(*queuePeer, *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
			return []nvmetcp.PDU{&nvmetcp.TermReq{FES: nvmetcp.FESLimit, FEI: 1}}
		}
		_, err := c.GetFeatures(t.Context(), nvme.FeatureKATO, nil)
		if e, ok := errors.AsType[*TerminatedError](err); !ok || e.FES != nvmetcp.FESLimit || e.FEI != 1 {
			t.Error(err)
		}
		<-q.Done()
		if !errors.Is(c.Err(), err) && c.Err() == nil {
			t.Error(c.Err())
		}
	})
}

func TestConnectIO(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*peer)
		want int // queues, of 3
		is   error
	}{
		{name: "all", want: 3},
		{name: "less", want: 2, set: func(p *peer) {
			p.on["set-features"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
				return []nvmetcp.PDU{done(c, uint64(nvme.QueueCount(2)))}
			}
		}},
		{name: "none", is: nvme.StatusInvalidField, set: func(p *peer) { p.on["set-features"] = refused(0x4002, 0) }},
		{name: "refused", is: nvme.StatusInvalidQueueID, set: func(p *peer) {
			p.on["connect"] = func(q *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
				connect, err := nvme.ParseConnect(c.Cmd)
				data, errData := nvme.DecodeConnectData(c.Data)
				if err != nil || errData != nil || connect.SQSize != 127 && connect.QID > 0 || data.CntlID != testCntlID && connect.QID > 0 {
					t.Errorf("%+v, %+v, %v, %v", connect, data, err, errData)
				}
				if connect.QID == 3 {
					return refused(0x4101, 0)(q, c)
				}
				return defaults["connect"](q, c)
			}
		}},
		{name: "no room", is: errNoRoom, set: func(p *peer) {
			p.on["identify"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
				data, err := nvme.IdentifyController{CntlID: testCntlID, IOCCSz: 3}.AppendBinary(nil)
				if err != nil {
					t.Error(err)
				}
				return sends(c, data)
			}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				if tc.set != nil {
					tc.set(p)
				}
				c := p.connect(p.options())
				queues, err := c.ConnectIO(t.Context(), 3)
				if len(queues) != tc.want || !errors.Is(err, tc.is) {
					t.Errorf("%d queues, %v; want %d, %v", len(queues), err, tc.want, tc.is)
				}
			})
		})
	}
}

func TestNamespace(t *testing.T) {
	p := newPeer(t)
	c := p.connect(p.options())
	for name, id := range map[string]nvme.IdentifyNamespace{
		"there is no namespace 9":                 {},
		"namespace 9 has blocks of no known size": {NSZE: 1, LBAFormats: []nvme.LBAFormat{{DataShift: 3}}},
	} {
		p.on["identify"] = func(_ *queuePeer, cmd *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
			data, err := id.AppendBinary(nil)
			if err != nil || cmd.Cmd.NSID != 9 {
				t.Errorf("%+v, %v", cmd.Cmd, err)
			}
			return sends(cmd, data)
		}
		if ns, err := c.Namespace(t.Context(), 9); err == nil || err.Error() != name {
			t.Errorf("%+v, %v; want %s", ns, err, name)
		}
	}
}

// TestFootprint: a thousand controllers fit into a test machine many times.
func TestFootprint(t *testing.T) {
	const n, budget = 1000, 40 << 10 // bytes for each, both sides
	measure := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	p := newPeer(t)
	p.on["identify"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		data, err := nvme.IdentifyController{CntlID: testCntlID}.AppendBinary(nil)
		if err != nil {
			t.Error(err)
		}
		return sends(c, data)
	}
	before := measure()
	o := p.options()
	o.KATO = time.Hour
	for range n {
		c := p.connect(o)
		if _, err := c.AsyncEvents(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
	each := (measure() - before) / n
	t.Logf("%d bytes each", each)
	if each > budget {
		t.Errorf("a controller and its peer take %d bytes, %d are allowed", each, budget)
	}
}
