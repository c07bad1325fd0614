package initiator

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/pkg/dhchap"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmetcp"
)

const connectSequence = "connect property-get property-set property-get property-get identify"

func TestDial(t *testing.T) {
	p := newPeer(t)
	var connect nvme.Connect
	var data nvme.ConnectData
	p.on["connect"] = func(q *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		var errCmd, errData error
		connect, errCmd = nvme.ParseConnect(c.Cmd)
		data, errData = nvme.DecodeConnectData(c.Data)
		if errCmd != nil || errData != nil || c.Cmd.SGL != nvme.InCapsule(nvme.ConnectDataSize) {
			t.Errorf("%+v, %v, %v", c.Cmd, errCmd, errData)
		}
		return defaults["connect"](q, c)
	}
	p.props[nvme.PropCAP] |= nvme.CAPCommandSets
	o := p.options()
	o.KATO = 30 * time.Second
	c := p.connect(o)
	if got := p.happened(); got != connectSequence {
		t.Errorf("the commands were %s", got)
	}
	if diff := cmp.Diff(nvme.Connect{SQSize: 31, KATO: 30 * time.Second}, connect); diff != "" {
		t.Errorf("Connect (-want +got):\n%s", diff)
	}
	want := nvme.ConnectData{HostID: nvme.HostID{1, 2, 3}, CntlID: nvme.CntlIDDynamic, SubNQN: testSubNQN, HostNQN: testHostNQN}
	if diff := cmp.Diff(want, data); diff != "" {
		t.Errorf("Connect data (-want +got):\n%s", diff)
	}
	if cc := p.props[nvme.PropCC]; cc != 0x460061 {
		t.Errorf("CC %#x", cc)
	}
	if c.ID() != testCntlID || c.Version() != nvme.Version21 || c.Identity().SubNQN != testSubNQN || c.Capabilities() != p.props[nvme.PropCAP] {
		t.Errorf("controller %d, VS %#x, CAP %#x, %+v", c.ID(), c.Version(), c.Capabilities(), c.Identity())
	}
	if c.Err() != nil {
		t.Error(c.Err())
	}
}

func TestProbe(t *testing.T) {
	p := newPeer(t)
	ic, err := Probe(t.Context(), Options{Address: "peer", Dialer: p.dial})
	if err != nil || ic.MaxH2CData != 8192 {
		t.Errorf("%+v, %v", ic, err)
	}
	p.wg.Wait()
	if got := p.happened(); got != "" {
		t.Errorf("the peer got %s", got)
	}
}

// TestDialTCP makes one real connection.
func TestDialTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	p := newPeer(t)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			p.serve(nc)
		}
	}()
	o := p.options()
	o.Address, o.Dialer, o.SubNQN = l.Addr().String(), nil, ""
	if _, err := Probe(t.Context(), Options{Address: o.Address}); err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Disconnect(t.Context()); err != nil {
		t.Error(err)
	}
	l.Close()
	if _, err := Probe(t.Context(), Options{Address: o.Address}); !strings.HasPrefix(err.Error(), "connecting to "+o.Address+": opening the connection: ") {
		t.Error(err)
	}
}

// TestDialFails: every way not to get connected has its step and its reason.
func TestDialFails(t *testing.T) {
	for _, tc := range []struct {
		name string
		set  func(*peer, *Options)
		step Step
		is   error
		text string // of the error behind the step
	}{
		{
			name: "refused", step: StepTCP, is: io.ErrNoProgress,
			set: func(_ *peer, o *Options) {
				o.Dialer = func(context.Context, string, string) (net.Conn, error) { return nil, io.ErrNoProgress }
			},
		},
		{
			name: "hangs up", step: StepInitialize, is: ErrLost,
			set: func(p *peer, _ *Options) { p.onIC = func() []nvmetcp.PDU { return nil } },
		},
		{
			name: "a part of ICResp", step: StepInitialize, is: io.ErrUnexpectedEOF,
			set: func(_ *peer, o *Options) {
				o.Dialer = func(context.Context, string, string) (net.Conn, error) {
					near, far := net.Pipe()
					go func() {
						far.Read(make([]byte, 128))
						far.Write([]byte{1, 0, 128, 0})
						far.Close()
					}()
					return near, nil
				}
			},
		},
		{
			name: "TermReq", step: StepInitialize, text: "the controller ended the connection: unsupported parameter (FEI 0x8)",
			set: ic(&nvmetcp.TermReq{FES: nvmetcp.FESUnsupported, FEI: 8}),
		},
		{
			name: "another protocol", step: StepInitialize, text: "NVMe/TCP: invalid PDU header field: PDU type 0x48 does not exist",
			set: ic(nvmetcp.Raw("HTTP/1.1 400 Bad Request\r\n\r\n")),
		},
		{
			name: "another version", step: StepInitialize, text: "NVMe/TCP: unsupported parameter: PDU format version 1",
			set: ic(&nvmetcp.ICResp{PFV: 1, MaxH2CData: 8192}),
		},
		{
			name: "response first", step: StepInitialize, text: "NVMe/TCP: PDU sequence error: CapsuleResp first",
			set: ic(&nvmetcp.CapsuleResp{}),
		},
		{
			name: "CPDA", step: StepInitialize, text: "ICResp: the controller wants data aligned (CPDA 3), which is not supported",
			set: ic(&nvmetcp.ICResp{CPDA: 3, MaxH2CData: 8192}),
		},
		{
			name: "digest unasked", step: StepInitialize, text: "ICResp: header and data digest are true and false, wanted false and false",
			set: ic(&nvmetcp.ICResp{HeaderDigest: true, MaxH2CData: 8192}),
		},
		{
			name: "no digest", step: StepInitialize, text: "ICResp: header and data digest are true and false, wanted true and true",
			set: func(p *peer, o *Options) {
				o.HeaderDigest, o.DataDigest = true, true
				ic(&nvmetcp.ICResp{HeaderDigest: true, MaxH2CData: 8192})(p, o)
			},
		},
		{
			name: "MAXH2CDATA small", step: StepInitialize, text: "ICResp: MAXH2CDATA is 2048",
			set: ic(&nvmetcp.ICResp{MaxH2CData: 2048}),
		},
		{
			name: "MAXH2CDATA odd", step: StepInitialize, text: "ICResp: MAXH2CDATA is 8193",
			set: ic(&nvmetcp.ICResp{MaxH2CData: 8193}),
		},
		{
			name: "host NQN too long", step: StepConnect,
			set: func(_ *peer, o *Options) { o.HostNQN = strings.Repeat("n", 257) },
		},
		{
			name: "unknown subsystem", step: StepConnect, is: nvme.StatusConnectInvalidParameters,
			text: "NVMe status 0x4182 Connect Invalid Parameters, do not retry: the field SUBNQN",
			set:  on("connect", refused(0x4182, uint64(nvme.NewInvalidParameter(nvme.ConnectDataOffSubNQN, true)))),
		},
		{
			name: "queue size", step: StepConnect, is: nvme.StatusConnectInvalidParameters,
			text: "NVMe status 0x4182 Connect Invalid Parameters, do not retry: the field SQSIZE",
			set:  on("connect", refused(0x4182, uint64(nvme.NewInvalidParameter(nvme.ConnectOffSQSize, false)))),
		},
		{
			name: "some parameter", step: StepConnect, is: nvme.StatusConnectInvalidParameters,
			text: "NVMe status 0x4182 Connect Invalid Parameters, do not retry: the field at offset 99",
			set:  on("connect", refused(0x4182, uint64(nvme.NewInvalidParameter(99, true)))),
		},
		{
			name: "host not allowed", step: StepConnect, is: nvme.StatusConnectInvalidHost,
			text: "NVMe status 0x4184 Connect Invalid Host, do not retry", set: on("connect", refused(0x4184, 0)),
		},
		{name: "busy", step: StepConnect, is: nvme.StatusConnectControllerBusy, set: on("connect", refused(0x181, 0))},
		{name: "hangs up on Connect", step: StepConnect, is: ErrLost, set: on("connect", hangUp)},
		{name: "secure channel", step: StepAuthenticate, is: ErrSecureChannel, set: on("connect", connected(1<<18))},
		{name: "no key", step: StepAuthenticate, is: ErrNoKey, set: on("connect", connected(1<<17))},
		{
			name: "authentication refused", step: StepAuthenticate, is: nvme.StatusInvalidOpcode,
			text: "authentication send: NVMe status 0x4001 Invalid Command Opcode, do not retry",
			set: func(p *peer, o *Options) {
				o.HostKey = testKey(p.t)
				p.on["connect"], p.on["auth-send"] = connected(1<<17), refused(0x4001, 0)
			},
		},
		{
			name: "no authentication message", step: StepAuthenticate, is: dhchap.ErrIncorrectMessage,
			set: func(p *peer, o *Options) {
				o.HostKey = testKey(p.t)
				p.on["connect"] = connected(1 << 17)
				p.on["auth-receive"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU { return sends(c, nil) }
			},
		},
		{name: "no CAP", step: StepEnable, is: nvme.StatusInvalidField, set: on("property-get", refused(0x4002, 0)),
			text: "property 0x00: NVMe status 0x4002 Invalid Field in Command, do not retry"},
		{name: "CC refused", step: StepEnable, is: nvme.StatusInvalidField, set: on("property-set", refused(0x4002, 0)),
			text: "property 0x14: NVMe status 0x4002 Invalid Field in Command, do not retry"},
		{name: "never ready", step: StepEnable, is: ErrNotReady, set: on("property-set", func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
			return []nvmetcp.PDU{done(c, 0)}
		})},
		{name: "fatal", step: StepEnable, is: ErrControllerFatal, set: func(p *peer, _ *Options) {
			p.props[nvme.PropCSTS] = nvme.CSTSFatal
			p.on["property-set"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU { return []nvmetcp.PDU{done(c, 0)} }
		}},
		{name: "no Identify", step: StepIdentify, is: nvme.StatusInvalidField, set: on("identify", refused(0x4002, 0))},
		{name: "another CNTLID", step: StepIdentify, text: "its CNTLID is 7, Connect said 8", set: on("connect", connected(8))},
		{name: "hangs up on Identify", step: StepIdentify, is: io.EOF, set: on("identify", hangUp)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // which also sees whether a goroutine stays
				p := newPeer(t)
				o := p.options()
				tc.set(p, &o)
				c, err := Dial(t.Context(), o)
				e, ok := errors.AsType[*StepError](err)
				if !ok || c != nil || e.Step != tc.step {
					t.Fatalf("%v, %v; want a failure of %q", c, err, tc.step)
				}
				if tc.is != nil && !errors.Is(err, tc.is) {
					t.Errorf("%v is not %v", err, tc.is)
				}
				if tc.text != "" && e.Err.Error() != tc.text {
					t.Errorf("%q, want %q", e.Err, tc.text)
				}
				if !strings.HasPrefix(err.Error(), "connecting to peer: "+string(tc.step)+": ") {
					t.Error(err)
				}
			})
		})
	}
}

func ic(pdus ...nvmetcp.PDU) func(*peer, *Options) {
	return func(p *peer, _ *Options) { p.onIC = func() []nvmetcp.PDU { return pdus } }
}

func on(command string, a answer) func(*peer, *Options) {
	return func(p *peer, _ *Options) { p.on[command] = a }
}

func connected(result uint64) answer {
	return func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU { return []nvmetcp.PDU{done(c, result)} }
}

// TestDialCancel: at every step the context ends the waiting, by its own error
// and at its own time.
func TestDialCancel(t *testing.T) {
	for n := -1; n < len(strings.Fields(connectSequence)); n++ {
		for _, deadline := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				p := newPeer(t)
				commands := 0
				silent := func(q *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
					if commands++; commands > n {
						return nil
					}
					return defaults[nvme.CommandName(c.Cmd.Opcode, c.Cmd.FCType(), false)](q, c)
				}
				for name := range strings.FieldsSeq(connectSequence) {
					p.on[name] = silent
				}
				if n < 0 {
					p.onIC = func() []nvmetcp.PDU { return []nvmetcp.PDU{nvmetcp.Raw{1}} } // a byte, and no more
				}
				want := context.Canceled
				ctx, cancel := context.WithCancel(t.Context())
				if deadline {
					want = context.DeadlineExceeded
					ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
				} else {
					time.AfterFunc(300*time.Millisecond, cancel)
				}
				defer cancel()
				start := time.Now()
				_, err := Dial(ctx, p.options())
				if took := time.Since(start); !errors.Is(err, want) || took != 300*time.Millisecond {
					t.Errorf("silent after %d commands: %v after %v", n, err, took)
				}
			})
		}
	}
}

// TestDialCancelTCP: the dialer has the context.
func TestDialCancelTCP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		o := Options{Address: "peer", Dialer: func(ctx context.Context, network, address string) (net.Conn, error) {
			if network != "tcp" || address != "peer" {
				t.Errorf("dials %s %s", network, address)
			}
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}}
		if _, err := Dial(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

// TestEnableWaits: a controller may take its time to get ready.
func TestEnableWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPeer(t)
		start := time.Now()
		p.on["property-get"] = func(q *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
			if nvme.ParseProperty(c.Cmd).Offset == nvme.PropCSTS && time.Since(start) < 900*time.Millisecond {
				return []nvmetcp.PDU{done(c, 0)}
			}
			return defaults["property-get"](q, c)
		}
		c, err := Dial(t.Context(), p.options())
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 1500*time.Millisecond {
			t.Errorf("took %v", took)
		}
		c.Close()
	})
}

func testKey(t testing.TB) dhchap.Key {
	t.Helper()
	k, err := dhchap.GenerateKey(dhchap.SHA256, 32, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// authenticating makes the peer authenticate the host on every queue.
func authenticating(p *peer, host, controller dhchap.Key) (queues *int) {
	queues = new(int)
	var side *dhchap.Controller
	p.on["connect"] = func(q *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		defaults["connect"](q, c)
		side = dhchap.NewController(dhchap.ControllerConfig{HostNQN: testHostNQN, SubNQN: testSubNQN, HostKey: host, ControllerKey: controller})
		return []nvmetcp.PDU{done(c, uint64(nvme.NewConnectResult(testCntlID, true)))}
	}
	p.on["auth-send"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		params, err := nvme.ParseAuth(c.Cmd)
		if err != nil || int(params.Length) != len(c.Data) {
			p.t.Errorf("%+v, %d bytes, %v", params, len(c.Data), err)
		}
		_ = side.Send(c.Data)
		if ok, _ := side.Done(); ok {
			*queues++
		}
		return []nvmetcp.PDU{done(c, 0)}
	}
	p.on["auth-receive"] = func(_ *queuePeer, c *nvmetcp.CapsuleCmd) []nvmetcp.PDU {
		message, err := side.Receive()
		if err != nil {
			p.t.Error(err)
		}
		if ok, _ := side.Done(); ok {
			*queues++
		}
		return sends(c, message)
	}
	return queues
}

func TestAuthentication(t *testing.T) {
	host, controller := testKey(t), testKey(t)
	for _, tc := range []struct {
		name             string
		host, controller dhchap.Key
		groups           []dhchap.Group
		commands         string // until the controller is enabled
		is               error
	}{
		{name: "host", host: host, commands: "auth-send auth-receive auth-send auth-receive"},
		{name: "both", host: host, controller: controller, commands: "auth-send auth-receive auth-send auth-receive auth-send"},
		{name: "with Diffie-Hellman", host: host, groups: []dhchap.Group{dhchap.FFDHE2048}, commands: "auth-send auth-receive auth-send auth-receive"},
		{name: "wrong host key", host: controller, is: dhchap.ErrAuthenticationFailed},
		{name: "wrong controller key", host: host, controller: host, is: dhchap.ErrAuthenticationFailed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPeer(t)
			queues := authenticating(p, host, controller)
			o := p.options()
			o.HostKey, o.ControllerKey, o.Groups = tc.host, tc.controller, tc.groups
			c, err := Dial(t.Context(), o)
			if tc.is != nil {
				if e, ok := errors.AsType[*StepError](err); !ok || e.Step != StepAuthenticate || !errors.Is(err, tc.is) {
					t.Errorf("%v, want %v", err, tc.is)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got := p.happened(); !strings.HasPrefix(got, "connect "+tc.commands+" property-get") {
				t.Errorf("the commands were %s", got)
			}
			if _, err := c.ConnectIO(t.Context(), 2); err != nil || *queues != 3 {
				t.Errorf("%d queues were authenticated, %v", *queues, err)
			}
		})
	}
}
