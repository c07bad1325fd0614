package target

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nvme-stas/stas/pkg/dhchap"
	"github.com/nvme-stas/stas/pkg/initiator"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmetcp"
)

func is(err error, status nvme.Status) bool { return errors.Is(err, status) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func oneSubsystem(s Subsystem) Config {
	s.NQN = nqnA
	return Config{Listeners: []Listener{{Name: "a", Address: address}}, Subsystems: []Subsystem{s}}
}

// TestConnectRefused: the status, and the field that it points at.
func TestConnectRefused(t *testing.T) {
	config := oneSubsystem(Subsystem{Hosts: []string{hostNQN(1)}, Controllers: 1})
	config.Listeners = append(config.Listeners, Listener{Address: "127.0.0.1:4420", Discovery: Discovery{Type: NoDiscovery}})
	config.Subsystems = append(config.Subsystems, Subsystem{NQN: nqnB, Listeners: []string{"port2"}})
	for _, tc := range []struct {
		name   string
		host   int
		nqn    string
		edit   func(*initiator.Options)
		status nvme.Status
	}{
		{"unknown subsystem", 1, nqnC, nil, nvme.StatusConnectInvalidParameters},
		{"not on this listener", 1, nqnB, nil, nvme.StatusConnectInvalidParameters},
		{"no discovery here", 1, "", func(o *initiator.Options) { o.Address = "127.0.0.1:4420" }, nvme.StatusConnectInvalidParameters},
		{"host not allowed", 2, nqnA, nil, nvme.StatusConnectInvalidHost},
		{"host without a name", 1, nqnA, func(o *initiator.Options) { o.HostNQN = "" }, nvme.StatusConnectInvalidParameters},
		{"the host is the subsystem", 1, nqnA, func(o *initiator.Options) { o.HostNQN = nqnA }, nvme.StatusConnectInvalidParameters},
		{"storage without keep alive", 1, nqnA, func(o *initiator.Options) { o.KATO = 0 }, nvme.StatusKeepAliveTimeoutInvalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, config)
				var edit []func(*initiator.Options)
				if tc.edit != nil {
					edit = append(edit, tc.edit)
				}
				if _, err := r.dial(t, tc.host, tc.nqn, edit...); !is(err, tc.status) {
					t.Errorf("%v, want %v", err, tc.status)
				}
			})
		})
	}
	t.Run("one controller only", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, config)
			first := r.host(t, 1, nqnA)
			if _, err := r.dial(t, 1, nqnA); !is(err, nvme.StatusConnectControllerBusy) {
				t.Errorf("the second: %v", err)
			}
			must(t, first.Disconnect(t.Context()))
			synctest.Wait()
			r.host(t, 1, nqnA)
		})
	})
}

// TestConnectPointsAtTheField: what is wrong is named by its offset.
func TestConnectPointsAtTheField(t *testing.T) {
	good, err := nvme.ConnectData{CntlID: dynamicCntlID, SubNQN: nvme.WellKnownDiscoveryNQN, HostNQN: hostNQN(1)}.AppendBinary(nil)
	must(t, err)
	for offset, want := range map[int]uint16{nvme.ConnectDataOffSubNQN + 7: nvme.ConnectDataOffSubNQN, nvme.ConnectDataOffHostNQN + 7: nvme.ConnectDataOffHostNQN} {
		data := bytes.Clone(good)
		data[offset] = 0x1b // no text
		got := connect(&request{q: &queue{}, cmd: nvme.Connect{SQSize: 31}.Command(), data: data})
		at, inData := nvme.ConnectResult(got.result).InvalidParameter()
		if !is(got.status, nvme.StatusConnectInvalidParameters) || at != want || !inData {
			t.Errorf("byte %d: %v, offset %d, in the data %t", offset, got.status, at, inData)
		}
	}
}

// TestAlignedData: a host that wants its data aligned is told that it cannot
// have that.
func TestAlignedData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Config{Listeners: []Listener{{Address: address}}})
		nc, err := r.network.dial(t.Context(), "tcp", address)
		must(t, err)
		defer nc.Close()
		conn := nvmetcp.NewConn(nc, nvmetcp.Host, nvmetcp.Limits{})
		must(t, conn.Write(nvmetcp.ICReq{HPDA: 1}))
		pdu, err := conn.Read()
		if term, ok := pdu.(*nvmetcp.TermReq); err != nil || !ok || term.FES != nvmetcp.FESUnsupported || term.FEI != 10 {
			t.Errorf("%+v, %v", pdu, err)
		}
	})
}

// TestTooMuch: no command is given or asked for more than the target moves at
// a time, whatever it says. A fuzzer found 4 GiB.
func TestTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, cmd := range []nvme.Command{
			nvme.Identify{CNS: nvme.CNSController}.Command(),
			{Opcode: nvme.OpDiscoveryInfoMgmt},
			{Opcode: 0xfe}, // vendor specific, to the host
		} {
			r := newRig(t, Config{Listeners: []Listener{{Address: address}}})
			nc, err := r.network.dial(t.Context(), "tcp", address)
			must(t, err)
			go func() { _, _ = nc.Write(session("nqn.2014-08.org.nvmexpress.discovery", capsule(cmd, math.MaxUint32))) }()
			conn := nvmetcp.NewConn(nc, nvmetcp.Host, nvmetcp.Limits{})
			var got nvme.Status
			for range 4 { // ICResp, Connect, Property Set, and this
				pdu, err := conn.Read()
				must(t, err)
				if resp, ok := pdu.(*nvmetcp.CapsuleResp); ok {
					got = resp.Cpl.Status
				}
			}
			if !is(got, nvme.StatusSGLLengthInvalid) {
				t.Errorf("opcode %#x: %v", cmd.Opcode, got)
			}
			nc.Close()
		}
	})
}

// TestStorage writes, reads, zeroes, with and without digests, through the
// capsule and by R2T.
func TestStorage(t *testing.T) {
	for _, digests := range []bool{false, true} {
		for _, block := range []uint32{512, 4096} {
			t.Run(fmt.Sprintf("digests %t, blocks of %d", digests, block), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { storage(t, digests, block) })
			})
		}
	}
}

func storage(t *testing.T, digests bool, block uint32) {
	config := oneSubsystem(Subsystem{Namespaces: []Namespace{{Size: 8 << 20, BlockSize: block}}})
	config.Listeners[0].MaxH2CData = 16 << 10
	r := newRig(t, config)
	c := r.host(t, 1, nqnA, func(o *initiator.Options) { o.HeaderDigest, o.DataDigest = digests, digests })
	ns, err := c.Namespace(t.Context(), 1)
	must(t, err)
	if ns.BlockSize != block || ns.Blocks*uint64(block) != 8<<20 {
		t.Fatalf("namespace %+v", ns)
	}
	queues, err := c.ConnectIO(t.Context(), 3)
	must(t, err)
	equal(t, "queues", len(queues), 3)
	for i, size := range []int{4096, 8192, 16 << 10, 100 << 10, maxTransfer} {
		q := queues[i%3]
		data := bytes.Repeat([]byte{byte(i + 1), 0xa5, byte(size >> 12)}, size)[:size]
		lba := uint64(i) * maxTransfer / uint64(block)
		must(t, q.Write(t.Context(), ns, lba, data))
		got := make([]byte, size)
		must(t, queues[(i+1)%3].Read(t.Context(), ns, lba, got))
		if !bytes.Equal(got, data) {
			t.Errorf("%d bytes came back changed", size)
		}
		must(t, q.Flush(t.Context(), ns))
		must(t, q.WriteZeroes(t.Context(), ns, lba, size/int(block)))
		must(t, q.Read(t.Context(), ns, lba, got))
		if !bytes.Equal(got, make([]byte, size)) {
			t.Errorf("%d bytes were not zeroed", size)
		}
	}
	if err := queues[0].Write(t.Context(), ns, ns.Blocks, make([]byte, block)); !is(err, nvme.StatusLBAOutOfRange) {
		t.Errorf("beyond the end: %v", err)
	}
	if err := queues[0].Read(t.Context(), initiator.Namespace{ID: 2, BlockSize: block, Blocks: 9}, 0, make([]byte, block)); !is(err, nvme.StatusInvalidNamespace) {
		t.Errorf("no such namespace: %v", err)
	}
}

// TestManyWritesAtOnce: more commands with data on the way than the target
// takes at a time.
func TestManyWritesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, oneSubsystem(Subsystem{Namespaces: []Namespace{{Size: 8 << 20}}}))
		c := r.host(t, 1, nqnA)
		ns, err := c.Namespace(t.Context(), 1)
		must(t, err)
		queues, err := c.ConnectIO(t.Context(), 1)
		must(t, err)
		const n, size = 5 * maxTransfers, 64 << 10
		errs := make(chan error, n)
		for i := range n {
			go func() {
				errs <- queues[0].Write(t.Context(), ns, uint64(i*size/512), bytes.Repeat([]byte{byte(i)}, size))
			}()
		}
		for range n {
			must(t, <-errs)
		}
		for i := range n {
			got := make([]byte, size)
			must(t, queues[0].Read(t.Context(), ns, uint64(i*size/512), got))
			if !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, size)) {
				t.Fatalf("write %d is not there", i)
			}
		}
	})
}

func TestANA(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := oneSubsystem(Subsystem{})
		config.Listeners = append(config.Listeners, Listener{Name: "b", Address: "127.0.0.1:4420"})
		r := newRig(t, config)
		onA, onB := r.host(t, 1, nqnA), r.host(t, 1, nqnA, func(o *initiator.Options) { o.Address = "127.0.0.1:4420" })
		read := func(c *initiator.Controller) error {
			ns, err := c.Namespace(t.Context(), 1)
			must(t, err)
			queues, err := c.ConnectIO(t.Context(), 1)
			must(t, err)
			defer queues[0].Close()
			return queues[0].Read(t.Context(), ns, 0, make([]byte, 512))
		}
		events, err := onA.AsyncEvents(t.Context(), nvme.AENConfigANA)
		must(t, err)
		must(t, read(onA))
		for state, status := range anaStatus {
			must(t, r.SetANA(nqnA, ANA{Listener: "a", State: state}))
			equal(t, "told", <-events, nvme.ANAChanged)
			if err := read(onA); !is(err, status) {
				t.Errorf("%v: %v, want %v", state, err, status)
			}
			must(t, read(onB))
			buf := make([]byte, 4096)
			must(t, onA.GetLogPage(nvme.LogANA, 0, false, 0, buf))
			log, err := nvme.DecodeANALog(buf)
			if err != nil || len(log.Groups) != 1 || log.Groups[0].State != state {
				t.Errorf("the log: %+v, %v", log, err)
			}
		}
	})
}

func TestNamespacesComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, oneSubsystem(Subsystem{}))
		c := r.host(t, 1, nqnA)
		events, err := c.AsyncEvents(t.Context(), nvme.AENConfigNamespace)
		must(t, err)
		changed := func() []uint32 {
			buf := make([]byte, 4096)
			must(t, c.GetLogPage(nvme.LogChangedNamespaces, 0, false, 0, buf))
			return nvme.DecodeNamespaceList(buf)
		}
		must(t, r.AddNamespace(nqnA, Namespace{ID: 5, Size: 1 << 20}))
		equal(t, "told", <-events, nvme.NamespaceChanged)
		if ids := changed(); len(ids) == 0 || ids[len(ids)-1] != 5 {
			t.Errorf("changed: %v", ids)
		}
		equal(t, "changed, read again", changed(), nil)
		if _, err := c.Namespace(t.Context(), 5); err != nil {
			t.Error(err)
		}
		must(t, r.RemoveNamespace(nqnA, 5))
		equal(t, "told", <-events, nvme.NamespaceChanged)
		equal(t, "changed", changed(), []uint32{5})
		if err := r.RemoveNamespace(nqnA, 5); !errors.Is(err, ErrNotFound) {
			t.Errorf("removed twice: %v", err)
		}
	})
}

func TestAuthentication(t *testing.T) {
	key := func(fill byte) dhchap.Key {
		k, err := dhchap.GenerateKey(dhchap.SHA256, 32, bytes.NewReader(bytes.Repeat([]byte{fill}, 64)))
		must(t, err)
		return k
	}
	host := Host{NQN: hostNQN(1), Key: key(1), CtrlKey: key(2), Hash: dhchap.SHA384}
	for _, tc := range []struct {
		name  string
		group dhchap.Group
		edit  func(*initiator.Options)
		ok    bool
	}{
		{"right key", dhchap.GroupNull, func(o *initiator.Options) { o.HostKey = key(1) }, true},
		{"right keys, both ways", dhchap.FFDHE2048, func(o *initiator.Options) { o.HostKey, o.ControllerKey = key(1), key(2) }, true},
		{"wrong key", dhchap.GroupNull, func(o *initiator.Options) { o.HostKey = key(3) }, false},
		{"wrong key of the controller", dhchap.FFDHE2048, func(o *initiator.Options) { o.HostKey, o.ControllerKey = key(1), key(3) }, false},
		{"no key", dhchap.GroupNull, func(*initiator.Options) {}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := oneSubsystem(Subsystem{})
				host.Group = tc.group
				config.Hosts = []Host{host}
				r := newRig(t, config)
				c, err := r.dial(t, 1, nqnA, tc.edit)
				if (err == nil) != tc.ok {
					t.Fatalf("storage: %v", err)
				}
				if err == nil {
					queues, err := c.ConnectIO(t.Context(), 2)
					if err != nil || len(queues) != 2 {
						t.Errorf("I/O queues: %v", err)
					}
				}
				// Discovery does without, unless it is told to.
				r.host(t, 1, "", func(o *initiator.Options) { o.HostKey = dhchap.Key{} })
				// Other hosts have no key.
				r.host(t, 2, nqnA)
			})
		})
	}
}

// TestNothingBeforeAuthentication: a host that has not proved itself gets
// nothing but the means to do so.
func TestNothingBeforeAuthentication(t *testing.T) {
	r := &request{q: &queue{}, c: &controller{}, cmd: nvme.Identify{CNS: nvme.CNSController}.Command()}
	r.q.auth = dhchap.NewController(dhchap.ControllerConfig{})
	if got := dispatch(r); got.status != nvme.StatusAuthenticationRequired.WithDNR() {
		t.Errorf("identify: %v", got.status)
	}
	r.cmd = nvme.PropertyGet(nvme.Property{Offset: nvme.PropCSTS})
	if got := dispatch(r); got.status != nvme.StatusAuthenticationRequired.WithDNR() {
		t.Errorf("property get: %v", got.status)
	}
}

// TestSilentHosts: a host that is not heard of loses its association.
func TestSilentHosts(t *testing.T) {
	for _, tc := range []struct {
		name  string
		kato  time.Duration
		limit time.Duration
	}{
		{"keep alive", 5 * time.Second, 10 * time.Second},
		{"no keep alive", 0, 2 * time.Minute},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, Config{Listeners: []Listener{{Address: address}}})
				// A session by hand: the initiator would keep alive.
				nc, err := r.network.dial(t.Context(), "tcp", address)
				must(t, err)
				defer nc.Close()
				go func() { _, _ = bytes.NewReader(sessionKATO(tc.kato)).WriteTo(nc) }()
				gone := make(chan time.Duration)
				began := time.Now()
				go func() {
					buf := make([]byte, 4096)
					for {
						if _, err := nc.Read(buf); err != nil {
							gone <- time.Since(began)
							return
						}
					}
				}()
				synctest.Wait()
				equal(t, "associations", len(r.Connections()), 1)
				if after := <-gone; after != tc.limit {
					t.Errorf("gone after %v, want %v", after, tc.limit)
				}
				synctest.Wait()
				equal(t, "associations", len(r.Connections()), 0)
			})
		})
	}
	t.Run("alive", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, Config{Listeners: []Listener{{Address: address}}})
			c := r.host(t, 1, "")
			time.Sleep(time.Hour)
			if err := c.Err(); err != nil || len(r.Connections()) != 1 {
				t.Errorf("after an hour: %v, %+v", err, r.Connections())
			}
		})
	})
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, oneSubsystem(Subsystem{}))
		c := r.host(t, 1, nqnA)
		must(t, r.Restart("", 10*time.Second))
		<-c.Done()
		synctest.Wait()
		equal(t, "associations", len(r.Connections()), 0)
		equal(t, "state", r.Listeners()[0].State, string(listenRestarts))
		if _, err := r.dial(t, 1, nqnA); err == nil {
			t.Error("connected while the target is away")
		}
		time.Sleep(11 * time.Second)
		synctest.Wait()
		r.host(t, 1, nqnA)
	})
}

// TestRemovals: what goes takes its associations along.
func TestRemovals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, oneSubsystem(Subsystem{}))
		dc, ioc := r.host(t, 1, ""), r.host(t, 1, nqnA)
		must(t, r.RemoveSubsystem(nqnA))
		<-ioc.Done()
		if dc.Err() != nil {
			t.Errorf("discovery: %v", dc.Err())
		}
		must(t, r.RemoveListener("a"))
		<-dc.Done()
		synctest.Wait()
		equal(t, "associations", len(r.Connections()), 0)
		equal(t, "listeners", len(r.Listeners()), 0)
		for what, err := range map[string]error{
			"subsystem": r.RemoveSubsystem(nqnA), "listener": r.RemoveListener("a"), "zone": r.RemoveZoneGroup("z"),
			"host": r.RemoveHost(hostNQN(1)), "fault": r.RemoveFault(7), "offer": r.Offer(nqnA),
		} {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

// TestMistakes: a configuration that cannot be is refused whole, by name.
func TestMistakes(t *testing.T) {
	for want, config := range map[string]Config{
		`listener x: address: "localhost" is not an IP address`: {Listeners: []Listener{{Name: "x", Address: "localhost:8009"}}},
		`the type is "dcd"`:           {Listeners: []Listener{{Address: address, Discovery: Discovery{Type: "dcd"}}}},
		`listener "b": no such thing`: {Subsystems: []Subsystem{{NQN: nqnA, Listeners: []string{"b"}}}},
		"it exists already":           {Subsystems: []Subsystem{{NQN: nqnA}, {NQN: nqnA}}},
		"the block size is 520":       {Subsystems: []Subsystem{{NQN: nqnA, Namespaces: []Namespace{{BlockSize: 520}}}}},
		"is the name of discovery":    {Subsystems: []Subsystem{{NQN: nvme.WellKnownDiscoveryNQN}}},
		`there is no fault "mut"`:     {Faults: []Fault{{Do: "mut"}}},
		`there is no command "reed"`:  {Faults: []Fault{{Do: "status", Command: "reed"}}},
		"delay is missing":            {Faults: []Fault{{Do: "delay"}}},
		"a zone group without a name": {Zoning: Zoning{Groups: []ZoneGroup{{}}}},
	} {
		target, err := Open(config, Options{Listen: new(network).listen})
		if err == nil {
			target.Close()
		}
		if err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
