package linux

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvmetcp"
)

// listen serves one connection after the other with f. Its address and port
// are those of the options that it returns.
func listen(t *testing.T, f func(net.Conn)) fabrics.Options {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f(c)
			c.Close()
		}
	}()
	return optionsOf(l.Addr())
}

func optionsOf(a net.Addr) fabrics.Options {
	ap := netip.MustParseAddrPort(a.String())
	return fabrics.Options{Transport: "tcp", TrAddr: ap.Addr().String(), TrSvcID: strconv.Itoa(int(ap.Port()))}
}

// answer does what a target does with ICReq.
func answer(change func(*nvmetcp.ICResp)) func(net.Conn) {
	return func(nc net.Conn) {
		c := nvmetcp.NewConn(nc, nvmetcp.Controller, nvmetcp.Limits{})
		pdu, err := c.Read()
		if req, ok := pdu.(*nvmetcp.ICReq); err == nil && ok {
			resp := &nvmetcp.ICResp{MaxH2CData: nvmetcp.MinMaxH2CData, HeaderDigest: req.HeaderDigest, DataDigest: req.DataDigest}
			change(resp)
			_ = c.Write(resp)
			_, _ = c.Read() // until the end
		}
	}
}

// full returns the options of a listener that takes no more connections.
func full(t *testing.T) fabrics.Options {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*unix.SockaddrInet4).Port}
	for range 8 {
		c, err := net.DialTimeout("tcp", at.String(), 100*time.Millisecond)
		if err != nil {
			return optionsOf(at)
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Skip("the listener takes any number of connections")
	return fabrics.Options{}
}

func TestProbe(t *testing.T) {
	normal := func(*nvmetcp.ICResp) {}
	good := listen(t, answer(normal))
	with := func(o fabrics.Options, f func(*fabrics.Options)) fabrics.Options { f(&o); return o }
	mute := func(c net.Conn) {
		b := make([]byte, 1024)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	}
	for _, c := range []struct {
		name string
		o    fabrics.Options
		want unix.Errno
	}{
		{"answers", good, 0},
		{"answers, digests", with(good, func(o *fabrics.Options) { o.HdrDigest, o.DataDigest = true, true }), 0},
		{"answers, source address", with(good, func(o *fabrics.Options) { o.HostTrAddr = "127.0.0.2" }), 0},
		{"answers, source interface", with(good, func(o *fabrics.Options) { o.HostIface = "lo" }), 0},
		{"source address of somebody else", with(good, func(o *fabrics.Options) { o.HostTrAddr = "192.0.2.1" }), unix.EADDRNOTAVAIL},
		{"no such interface", with(good, func(o *fabrics.Options) { o.HostIface = "nowhere9" }), unix.ENODEV},
		{"refuses", with(good, func(o *fabrics.Options) { o.TrSvcID = "1" }), unix.ECONNREFUSED},
		{"closes", listen(t, func(net.Conn) {}), unix.ECONNRESET},
		{"is mute", listen(t, mute), unix.EAGAIN},
		{"is mute, with TLS", with(listen(t, mute), func(o *fabrics.Options) { o.TLS = true }), 0},
		{"is full", full(t), unix.ETIMEDOUT},
		{"refuses, with TLS", with(good, func(o *fabrics.Options) { o.TrSvcID, o.TLS = "1", true }), unix.ECONNREFUSED},
		// The kernel judges these, at once.
		{"speaks something else", listen(t, func(c net.Conn) { _, _ = c.Write([]byte("220 mail.example.org ESMTP\r\n")); mute(c) }), 0},
		{"wants alignment", listen(t, answer(func(r *nvmetcp.ICResp) { r.CPDA = 1 })), 0},
		{"a name", with(good, func(o *fabrics.Options) { o.TrAddr = "localhost" }), 0},
		{"another transport", with(good, func(o *fabrics.Options) { o.Transport, o.TrSvcID = "rdma", "1" }), 0},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		err := new(Kernel).Probe(ctx, c.o)
		cancel()
		got, _ := errors.AsType[unix.Errno](err)
		if got != c.want || (err == nil) != (c.want == 0) {
			t.Errorf("a target that %s: %v, want errno %v", c.name, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := new(Kernel).Probe(ctx, good); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}
