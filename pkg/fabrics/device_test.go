package fabrics

import (
	"errors"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeDevice keeps the protocol of /dev/nvme-fabrics for one open file after
// the other.
type fakeDevice struct {
	options string  // "" for a kernel that cannot be asked
	results []error // of the writes to come; then they succeed
	reply   string
	opens   int
	writes  []string
	open    int // files not yet closed
}

type fakeFile struct {
	d         *fakeDevice
	connected bool
}

func (d *fakeDevice) openFile(string) (io.ReadWriteCloser, error) {
	d.opens++
	d.open++
	return &fakeFile{d: d}, nil
}

func (f *fakeFile) Write(b []byte) (int, error) {
	f.d.writes = append(f.d.writes, string(b))
	if len(f.d.results) > 0 {
		err := f.d.results[0]
		f.d.results = f.d.results[1:]
		if err != nil {
			return 0, err
		}
	}
	f.connected = true
	return len(b), nil
}

func (f *fakeFile) Read(b []byte) (int, error) {
	switch {
	case f.connected:
		return copy(b, f.d.reply), nil
	case f.d.options == "":
		return 0, unix.EINVAL
	}
	return copy(b, f.d.options), nil
}

func (f *fakeFile) Close() error { f.d.open--; return nil }

const options612 = "instance=-1,cntlid=-1,transport=%s,traddr=%s,trsvcid=%s,nqn=%s,queue_size=%d,nr_io_queues=%d,hostnqn=%s,hostid=%s," +
	"duplicate_connect,host_traddr=%s,host_iface=%s,discovery,tls\n"

func simple() Options {
	return Options{Transport: "tcp", TrAddr: "192.0.2.1", TrSvcID: "4420", NQN: testNQN}
}

func TestProbe(t *testing.T) {
	fake := &fakeDevice{options: options612}
	d := &Device{open: fake.openFile}
	for range 2 {
		set, err := d.Probe()
		if err != nil || !set.Has("discovery") || !set.Has("tls") || !set.Has("queue_size") || set.Has("concat") || set.Has("instance") {
			t.Fatalf("%v, %v", set, err)
		}
	}
	if fake.opens != 1 || fake.open != 0 {
		t.Errorf("opened %d times, %d still open", fake.opens, fake.open)
	}
}

func TestProbeOldKernel(t *testing.T) {
	for _, tc := range []struct {
		release          string
		iface, discovery bool
	}{
		{"5.4.0-42-generic", false, false},
		{"5.13.19", false, false},
		{"5.14.0-503.el9.x86_64", true, false},
		{"5.15.0-203", true, false},
		{"5.16", true, true},
		{"6.0.1", true, true},
		{"10.0", true, true},
		{"strange", false, false},
	} {
		d := &Device{Release: tc.release, open: (&fakeDevice{}).openFile}
		set, err := d.Probe()
		if err != nil || set.Has("host_iface") != tc.iface || set.Has("discovery") != tc.discovery ||
			!set.Has("traddr") || set.Has("dhchap_secret") || set.Has("tls") {
			t.Errorf("%s: %v, %v", tc.release, set, err)
		}
	}
	if set, err := (&Device{open: (&fakeDevice{}).openFile}).Probe(); err != nil || !set.Has("nqn") {
		t.Errorf("release of this machine: %v, %v", set, err)
	}
}

func TestProbeNonsense(t *testing.T) {
	if set, err := (&Device{open: (&fakeDevice{options: "hello\n"}).openFile}).Probe(); err == nil {
		t.Errorf("%v", set)
	}
}

func TestConnect(t *testing.T) {
	fake := &fakeDevice{options: options612, reply: "instance=3,cntlid=65519\n"}
	d := &Device{open: fake.openFile}
	o := simple()
	o.HdrDigest = true // not supported by the kernel above
	got, err := d.Connect(o)
	if err != nil || got.Name != "nvme3" || got.CntlID != 65519 || !slices.Equal(got.Dropped, []string{"hdr_digest"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if want := []string{"nqn=" + testNQN + ",transport=tcp,traddr=192.0.2.1,trsvcid=4420"}; !slices.Equal(fake.writes, want) {
		t.Errorf("wrote %q", fake.writes)
	}
	if fake.opens != 2 || fake.open != 0 {
		t.Errorf("opened %d times, %d still open", fake.opens, fake.open)
	}
}

func TestConnectInterrupted(t *testing.T) {
	fake := &fakeDevice{options: options612, reply: "instance=0,cntlid=1\n", results: []error{unix.EINTR, unix.EINTR}}
	if got, err := (&Device{open: fake.openFile}).Connect(simple()); err != nil || got.Name != "nvme0" || len(fake.writes) != 3 {
		t.Errorf("%+v, %v, %d writes", got, err, len(fake.writes))
	}
	fake = &fakeDevice{options: options612, results: slices.Repeat([]error{unix.EINTR}, 100)}
	if _, err := (&Device{open: fake.openFile}).Connect(simple()); !errors.Is(err, unix.EINTR) || len(fake.writes) != connectAttempts {
		t.Errorf("%v, %d writes", err, len(fake.writes))
	}
}

func TestConnectRefused(t *testing.T) {
	for errno, words := range map[unix.Errno]string{
		unix.EINVAL: "host ID", unix.ENODEV: "interface eth0", unix.EADDRNOTAVAIL: "192.0.2.9",
		unix.ECONNREFUSED: "192.0.2.1 port 4420", unix.ENETUNREACH: "route", unix.EHOSTUNREACH: "route",
		unix.ETIMEDOUT: "does not answer", unix.EAGAIN: "does not speak", unix.ECONNRESET: "closed",
		unix.EIO: "kernel log", unix.EALREADY: "already connected", unix.EKEYREJECTED: "authentication",
		unix.ENOKEY: "secret", unix.EOPNOTSUPP: "demands", unix.EACCES: "root", unix.EPERM: "root", unix.EXDEV: "cross-device",
	} {
		fake := &fakeDevice{options: options612, results: []error{errno}}
		o := simple()
		o.HostIface, o.HostTrAddr = "eth0", "192.0.2.9"
		_, err := (&Device{open: fake.openFile}).Connect(o)
		refused, ok := errors.AsType[*ConnectError](err)
		if !ok || refused.Errno != errno || !errors.Is(err, errno) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", unix.ErrnoName(errno), err)
		}
		if fake.open != 0 || len(fake.writes) != 1 {
			t.Errorf("%s: %d files open, %d writes", unix.ErrnoName(errno), fake.open, len(fake.writes))
		}
	}
}

// Over the real system calls, with files in place of the device.
func TestFD(t *testing.T) {
	dir := t.TempDir()
	_, err := (&Device{Path: filepath.Join(dir, "none")}).Connect(simple())
	if failed, ok := errors.AsType[*OpenError](err); !ok || !errors.Is(err, unix.ENOENT) || !strings.Contains(failed.Hint(), "modprobe nvme-tcp") {
		t.Errorf("%v", err)
	}
	_, err = (&Device{Path: filepath.Join(dir, "none")}).Probe()
	if err == nil || !strings.Contains(err.Error(), "modprobe nvme-fabrics") {
		t.Errorf("%v", err)
	}

	if f, err := openFD("/dev/null", Direct{}); err != nil {
		t.Error(err)
	} else {
		if n, err := f.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("read %d, %v", n, err)
		}
		if n, err := io.WriteString(f, "hello"); n != 5 || err != nil {
			t.Errorf("wrote %d, %v", n, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if n, err := f.Write([]byte("x")); n != 0 || !errors.Is(err, unix.EBADF) {
			t.Errorf("wrote %d, %v", n, err)
		}
	}
	if f, err := openFD("/dev/full", Direct{}); err == nil {
		defer f.Close()
		if n, err := io.WriteString(f, "x"); n != 0 || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("wrote %d, %v", n, err)
		}
	}
}

func FuzzParseInstance(f *testing.F) {
	for _, s := range []string{
		"instance=3,cntlid=1\n", "instance=-1,cntlid=-1,transport=%s\n", "", ",=,", "instance=99999999999,cntlid=1", "cntlid=1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseInstance(s)
		if err != nil {
			return
		}
		digits, ok := strings.CutPrefix(got.Name, "nvme")
		if !ok || digits == "" || strings.Trim(digits, "0123456789") != "" || got.CntlID < 0 {
			t.Errorf("%q is %+v", s, got)
		}
	})
}

func TestParseInstance(t *testing.T) {
	for _, s := range []string{"", "\n", "instance=3\n", "cntlid=3\n", options612, "instance=-1,cntlid=1\n", "instance=+1,cntlid=1", "instance=,cntlid=", "instance=4294967296,cntlid=1"} {
		if got, err := parseInstance(s); err == nil {
			t.Errorf("%q is %+v", s, got)
		}
	}
}

func FuzzParseOptionSet(f *testing.F) {
	for _, s := range []string{options612, "", "transport", "transport=%s,,=x,tls\n", "\x00,\xff,transport"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		set, err := parseOptionSet(s)
		if err == nil && (!set.Has("transport") || set.Has("") || set.Has("instance")) {
			t.Errorf("%q is %v", s, set)
		}
	})
}
