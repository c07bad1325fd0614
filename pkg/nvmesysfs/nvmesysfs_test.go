package nvmesysfs

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/nvme-stas/stas/pkg/nvme"
)

const (
	fabricsDir = "devices/virtual/nvme-fabrics/ctl"
	pcieDir    = "devices/pci0000:00/0000:00:04.0/nvme"
)

// tree is a sysfs in a temporary directory, laid out as the kernel does it.
type tree struct {
	*FS
	t    *testing.T
	root string
}

func newTree(t *testing.T) *tree {
	t.Helper()
	root := t.TempDir()
	f, err := NewFS(root)
	if err != nil {
		t.Fatal(err)
	}
	return &tree{f, t, root}
}

// add creates a controller below parent and its link in the class directory.
func (tr *tree) add(parent, name string, attrs map[string]string) {
	tr.t.Helper()
	dir := filepath.Join(tr.root, parent, name)
	class := filepath.Join(tr.root, classDir)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.MkdirAll(class, 0o755),
		os.Symlink(filepath.Join("../..", parent, name), filepath.Join(class, name))); err != nil {
		tr.t.Fatal(err)
	}
	for attribute, text := range attrs {
		if err := os.WriteFile(filepath.Join(dir, attribute), []byte(text+"\n"), 0o644); err != nil {
			tr.t.Fatal(err)
		}
	}
}

func (tr *tree) remove(parent, name string) {
	tr.t.Helper()
	if err := errors.Join(os.Remove(filepath.Join(tr.root, classDir, name)), os.RemoveAll(filepath.Join(tr.root, parent, name))); err != nil {
		tr.t.Fatal(err)
	}
}

// live are the attributes of a connected I/O controller on Linux 6.12.
func live() map[string]string {
	return map[string]string{
		"address":           "traddr=192.0.2.1,trsvcid=4420,host_traddr=192.0.2.9,host_iface=eth0,src_addr=192.0.2.9",
		"transport":         "tcp",
		"subsysnqn":         "nqn.2014-08.org.example:a",
		"hostnqn":           "nqn.2014-08.org.nvmexpress:uuid:427a2ee6-5386-11ec-8b8b-c85b7670fcd5",
		"hostid":            "427a2ee6-5386-11ec-8b8b-c85b7670fcd5",
		"cntlid":            "7",
		"cntrltype":         "io",
		"dctype":            "none",
		"state":             "live",
		"model":             "Linux                                   ",
		"serial":            "d1b0ac8b9b83b8a02ba3",
		"delete_controller": "",
	}
}

// with returns live attributes with changes; a change to "-" removes one.
func with(changes map[string]string) map[string]string {
	attrs := live()
	maps.Copy(attrs, changes)
	maps.DeleteFunc(attrs, func(_, v string) bool { return v == "-" })
	return attrs
}

func TestRead(t *testing.T) {
	full := Controller{
		Name: "nvme3", Transport: "tcp",
		TrAddr: "192.0.2.1", TrSvcID: "4420", HostTrAddr: "192.0.2.9", HostIface: "eth0", SrcAddr: "192.0.2.9",
		SubsysNQN: "nqn.2014-08.org.example:a",
		HostNQN:   "nqn.2014-08.org.nvmexpress:uuid:427a2ee6-5386-11ec-8b8b-c85b7670fcd5",
		HostID:    "427a2ee6-5386-11ec-8b8b-c85b7670fcd5",
		CntlID:    "7", State: Live, Kind: IO, CntrlType: "io", DCType: "none",
		Model: "Linux", Serial: "d1b0ac8b9b83b8a02ba3",
	}
	longNQN := "nqn.2014-08.org.example:" + strings.Repeat("x", nvme.MaxNQN-24)
	for _, tc := range []struct {
		name  string
		attrs map[string]string
		want  func(*Controller)
	}{
		{"I/O controller", live(), func(*Controller) {}},
		{
			"being connected", with(map[string]string{
				"address": "traddr=192.0.2.1,trsvcid=4420", "subsysnqn": "(efault)", "model": "(efault)", "serial": "(efault)",
				"cntrltype": "reserved", "cntlid": "0", "state": "connecting",
			}),
			func(c *Controller) {
				c.HostTrAddr, c.HostIface, c.SrcAddr, c.SubsysNQN, c.Model, c.Serial = "", "", "", "", "", ""
				c.CntrlType, c.CntlID, c.State, c.Kind = "reserved", "0", Connecting, Unknown
			},
		},
		{
			"between identify and the type", with(map[string]string{"cntrltype": "reserved", "state": "connecting"}),
			func(c *Controller) { c.CntrlType, c.State, c.Kind = "reserved", Connecting, Unknown },
		},
		{
			"target that does not report its type", with(map[string]string{"cntrltype": "reserved"}),
			func(c *Controller) { c.CntrlType = "reserved" },
		},
		{
			"discovery controller that does not report its type", with(map[string]string{"cntrltype": "reserved", "subsysnqn": nvme.WellKnownDiscoveryNQN}),
			func(c *Controller) {
				c.CntrlType, c.SubsysNQN, c.Kind = "reserved", nvme.WellKnownDiscoveryNQN, Discovery
			},
		},
		{
			"CDC", with(map[string]string{"cntrltype": "discovery", "dctype": "cdc"}),
			func(c *Controller) { c.CntrlType, c.DCType, c.Kind = "discovery", "cdc", Discovery },
		},
		{
			"administrative controller", with(map[string]string{"cntrltype": "admin"}),
			func(c *Controller) { c.CntrlType, c.Kind = "admin", Admin },
		},
		{
			"old kernel", with(map[string]string{"cntrltype": "-", "dctype": "-", "address": "traddr=192.0.2.1,trsvcid=4420"}),
			func(c *Controller) {
				c.CntrlType, c.DCType, c.HostTrAddr, c.HostIface, c.SrcAddr = "", "", "", "", ""
			},
		},
		{
			"discovery controller on an old kernel", with(map[string]string{"cntrltype": "-", "dctype": "-", "subsysnqn": nvme.WellKnownDiscoveryNQN}),
			func(c *Controller) {
				c.CntrlType, c.DCType, c.SubsysNQN, c.Kind = "", "", nvme.WellKnownDiscoveryNQN, Discovery
			},
		},
		{
			"old kernel, being connected", with(map[string]string{"cntrltype": "-", "dctype": "-", "subsysnqn": "(efault)"}),
			func(c *Controller) { c.CntrlType, c.DCType, c.SubsysNQN, c.Kind = "", "", "", Unknown },
		},
		{
			"discovery controller with a name of its own on an old kernel",
			with(map[string]string{"cntrltype": "-", "dctype": "-", "queue_count": "1"}),
			func(c *Controller) { c.CntrlType, c.DCType, c.Kind = "", "", Discovery },
		},
		{
			"old kernel, queues", with(map[string]string{"cntrltype": "-", "dctype": "-", "queue_count": "5", "state": "connecting"}),
			func(c *Controller) { c.CntrlType, c.DCType, c.State = "", "", Connecting },
		},
		{
			"old kernel, no queues yet", with(map[string]string{"cntrltype": "-", "dctype": "-", "queue_count": "1", "state": "connecting"}),
			func(c *Controller) { c.CntrlType, c.DCType, c.State, c.Kind = "", "", Connecting, Unknown },
		},
		{"new kernel, one queue", with(map[string]string{"queue_count": "1"}), func(*Controller) {}},
		{
			"none in any case", with(map[string]string{"subsysnqn": "None", "hostnqn": "NONE", "address": "traddr=192.0.2.1,trsvcid=4420,host_iface=None"}),
			func(c *Controller) {
				c.SubsysNQN, c.HostNQN, c.HostTrAddr, c.HostIface, c.SrcAddr = "", "", "", "", ""
			},
		},
		{"longest NQN", with(map[string]string{"subsysnqn": longNQN}), func(c *Controller) { c.SubsysNQN = longNQN }},
		{
			"IPv6 with scope", with(map[string]string{"address": "traddr=fe80::1%eth0,trsvcid=8009,src_addr=fe80::2%eth0"}),
			func(c *Controller) {
				c.TrAddr, c.TrSvcID, c.SrcAddr, c.HostTrAddr, c.HostIface = "fe80::1%eth0", "8009", "fe80::2%eth0", "", ""
			},
		},
		{
			"blanks and none in the address", with(map[string]string{"address": "traddr=192.0.2.1, trsvcid=none, host_traddr=none, future=1=2"}),
			func(c *Controller) { c.TrSvcID, c.HostTrAddr, c.HostIface, c.SrcAddr = "", "", "", "" },
		},
		{
			"fibre channel", with(map[string]string{"transport": "fc", "address": "traddr=nn-0x1:pn-0x2,host_traddr=nn-0x3:pn-0x4"}),
			func(c *Controller) {
				c.Transport, c.TrAddr, c.HostTrAddr = "fc", "nn-0x1:pn-0x2", "nn-0x3:pn-0x4"
				c.TrSvcID, c.HostIface, c.SrcAddr = "", "", ""
			},
		},
		{
			"leaving", with(map[string]string{"state": "deleting (no IO)"}),
			func(c *Controller) { c.State = DeletingNoIO },
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tr := newTree(t)
			tr.add(fabricsDir, "nvme3", tc.attrs)
			want := full
			tc.want(&want)
			if got, err := tr.Read("nvme3"); err != nil || got != want {
				t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
			}
		})
	}
}

func TestReadPCIe(t *testing.T) {
	tr := newTree(t)
	tr.add(pcieDir, "nvme0", with(map[string]string{
		"transport": "pcie", "address": "0000:00:04.0", "hostnqn": "-", "hostid": "-", "delete_controller": "-",
	}))
	c, err := tr.Read("nvme0")
	if err != nil || c.Transport != "pcie" || c.TrAddr != "" || c.HostNQN != "" || c.HostID != "" || c.Kind != IO {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestNames(t *testing.T) {
	tr := newTree(t)
	if names, err := tr.Names(); err != nil || len(names) != 0 {
		t.Errorf("no class directory: %v, %v", names, err)
	}
	for _, name := range []string{"nvme0", "nvme12", "nvme0c0n1", "nvme-subsys0", "nvme", "nvme-1", "nvme+1", "nvme99999999999"} {
		tr.add(fabricsDir, name, live())
	}
	names, err := tr.Names()
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"nvme0", "nvme12"}) {
		t.Errorf("%v, %v", names, err)
	}
}

func TestVanished(t *testing.T) {
	tr := newTree(t)
	tr.add(fabricsDir, "nvme0", live())
	tr.remove(fabricsDir, "nvme0")
	check := func(when string) {
		t.Helper()
		if c, err := tr.Read("nvme0"); !errors.Is(err, fs.ErrNotExist) || c != (Controller{Name: "nvme0"}) {
			t.Errorf("%s: Read: %+v, %v", when, c, err)
		}
		if v, err := tr.Attr("nvme0", "state"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: Attr: %q, %v", when, v, err)
		}
		if err := tr.Delete("nvme0"); err != nil {
			t.Errorf("%s: Delete: %v", when, err)
		}
	}
	check("gone")

	// The kernel takes the attributes away before the directory, and the link
	// may still be there.
	tr.add(fabricsDir, "nvme0", nil)
	check("empty")
	tr.remove(fabricsDir, "nvme0")
	tr.add(fabricsDir, "nvme0", with(map[string]string{"state": "-"}))
	check("without state")
}

// A name that goes to another controller in the middle of a Read must not
// give a mixture of both.
func TestRecycledName(t *testing.T) {
	tr := newTree(t)
	tr.add(fabricsDir, "nvme0", live())
	dir, err := tr.openController("nvme0")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.close()
	tr.remove(fabricsDir, "nvme0")
	tr.add(fabricsDir, "nvme0", with(map[string]string{"subsysnqn": "nqn.2014-08.org.example:b"}))
	if v, err := dir.attr("subsysnqn"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%q, %v", v, err)
	}
}

func TestAttr(t *testing.T) {
	tr := newTree(t)
	tr.add(fabricsDir, "nvme0", live())
	if v, err := tr.Attr("nvme0", "dctype"); err != nil || v != "none" {
		t.Errorf("%q, %v", v, err)
	}
	if v, err := tr.Attr("nvme0", "tls_key"); !errors.Is(err, ErrNoAttr) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%q, %v", v, err)
	}
	// An attribute that cannot be read now, as a directory cannot.
	if err := os.Mkdir(filepath.Join(tr.root, fabricsDir, "nvme0", "power"), 0o755); err != nil {
		t.Fatal(err)
	}
	if v, err := tr.Attr("nvme0", "power"); !errors.Is(err, ErrNoAttr) {
		t.Errorf("%q, %v", v, err)
	}
}

func TestNoOtherNames(t *testing.T) {
	tr := newTree(t)
	tr.add(fabricsDir, "nvme0", live())
	for _, name := range []string{"", "nvme", "nvme0/../nvme0", "../nvme/nvme0", "nvme0n1", "nvme 0", "eth0"} {
		if c, err := tr.Read(name); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Read(%q) = %+v, %v", name, c, err)
		}
		if err := tr.Delete(name); err == nil {
			t.Errorf("Delete(%q) succeeded", name)
		}
		if _, err := tr.Attr(name, "state"); err == nil {
			t.Errorf("Attr(%q) succeeded", name)
		}
	}
}

func TestDelete(t *testing.T) {
	tr := newTree(t)
	tr.add(fabricsDir, "nvme0", live())
	written := filepath.Join(tr.root, fabricsDir, "nvme0", "delete_controller")
	if err := tr.Delete("nvme0"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(written); err != nil || strings.TrimSpace(string(b)) != "1" {
		t.Errorf("wrote %q, %v", b, err)
	}

	// Somebody else is deleting it.
	tr.add(fabricsDir, "nvme1", with(map[string]string{"delete_controller": "-", "state": "deleting"}))
	if err := tr.Delete("nvme1"); err != nil {
		t.Error(err)
	}
	tr.add(pcieDir, "nvme2", with(map[string]string{"delete_controller": "-"}))
	if err := tr.Delete("nvme2"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a PCIe controller was deleted: %v", err)
	}
	// Any other failure comes through; here, the attribute cannot be written.
	tr.add(fabricsDir, "nvme3", with(map[string]string{"delete_controller": "-"}))
	if err := os.Mkdir(filepath.Join(tr.root, fabricsDir, "nvme3", "delete_controller"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := tr.Delete("nvme3"); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("%v", err)
	}
}

func TestLeaving(t *testing.T) {
	for state, want := range map[State]bool{
		New: false, Live: false, Resetting: false, Connecting: false, Deleting: true, DeletingNoIO: true, Dead: true,
	} {
		if state.Leaving() != want {
			t.Errorf("%s: %t", state, !want)
		}
	}
}

func TestKindString(t *testing.T) {
	for kind, want := range map[Kind]string{Unknown: "unknown", IO: "io", Discovery: "discovery", Admin: "admin"} {
		if kind.String() != want {
			t.Errorf("%d is %q", kind, kind)
		}
	}
}

func TestNamespaces(t *testing.T) {
	tr := newTree(t)
	tr.add(fabricsDir, "nvme3", live())
	disk := func(name string, attrs map[string]string) {
		dir := filepath.Join(tr.root, fabricsDir, "nvme3", name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for attribute, text := range attrs {
			if err := os.WriteFile(filepath.Join(dir, attribute), []byte(text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	disk("nvme0c3n10", map[string]string{"size": "8", "ana_state": "inaccessible"})
	disk("nvme0c3n2", map[string]string{"size": "2097152", "ana_state": "optimized"})
	disk("nvme3n1", map[string]string{"size": "0"})
	disk("nvme3n4", nil)                                    // going
	disk("ng3n1", map[string]string{"size": "8"})           // a character device
	disk("hwmon1", map[string]string{"size": "8"})          // a thermometer
	disk("nvmen1", map[string]string{"size": "8"})          // none of the kernel's
	disk("nvme0c3n2p1", map[string]string{"size": "8"})     // a partition
	disk("nvme0cn5", map[string]string{"size": "8"})        // none of the kernel's
	disk("nvme0c3n-1", map[string]string{"size": "8"})      // none of the kernel's
	disk("nvme0n99", map[string]string{"size": "nonsense"}) // as empty as it says
	got, err := tr.Namespaces("nvme3")
	want := []Namespace{
		{Name: "nvme0n2", Size: 1 << 30, ANA: "optimized"},
		{Name: "nvme3n1"},
		{Name: "nvme0n10", Size: 4096, ANA: "inaccessible"},
		{Name: "nvme0n99"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	if got, err := tr.Namespaces("nvme4"); got != nil || err != nil {
		t.Errorf("of a controller that is not there: %v, %v", got, err)
	}
	if _, err := tr.Namespaces("../nvme3"); err == nil {
		t.Error("a path is taken for a name")
	}
}

// What it costs to look whether the connections of 1,000 controllers work.
func BenchmarkState(b *testing.B) {
	root := b.TempDir()
	const n = 1000
	for i := range n {
		dir := filepath.Join(root, classDir, "nvme"+strconv.Itoa(i))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "state"), []byte("live\n"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	sysfs, err := NewFS(root)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		for i := range n {
			if state, err := sysfs.State("nvme" + strconv.Itoa(i)); state != Live || err != nil {
				b.Fatal(state, err)
			}
		}
	}
}

func TestPaths(t *testing.T) {
	tr := newTree(t)
	const subsystem = "devices/virtual/nvme-subsystem/nvme-subsys0"
	ctrl := func(name, state, disk, ana string) {
		tr.add(fabricsDir, name, with(map[string]string{"state": state}))
		if disk == "" {
			return
		}
		dir := filepath.Join(tr.root, fabricsDir, name, disk)
		err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "size"), []byte("8\n"), 0o644))
		if ana != "" {
			err = errors.Join(err, os.WriteFile(filepath.Join(dir, "ana_state"), []byte(ana+"\n"), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	link := func(name, to string) {
		at := filepath.Join(tr.root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.Symlink(filepath.Join(tr.root, to), at)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(tr.root, subsystem, "nvme0n1"), 0o755); err != nil {
		t.Fatal(err)
	}
	link("block/nvme0n1", subsystem+"/nvme0n1")
	ctrl("nvme0", "live", "nvme0c0n1", "optimized")
	ctrl("nvme1", "connecting", "nvme0c1n1", "optimized")
	ctrl("nvme2", "live", "nvme0c2n1", "inaccessible")
	ctrl("nvme3", "live", "nvme0c3n2", "optimized") // has another namespace only
	ctrl("nvme4", "live", "nvme0c4n1", "")
	for _, name := range []string{"nvme0", "nvme1", "nvme2", "nvme3", "nvme4"} {
		link(subsystem+"/"+name, fabricsDir+"/"+name)
	}
	link(subsystem+"/nvme9", fabricsDir+"/nvme9") // just gone
	ctrl("nvme5", "live", "nvme5n1", "")
	link("block/nvme5n1", fabricsDir+"/nvme5/nvme5n1")
	link("block/nvme7n1", fabricsDir+"/nvme7/nvme7n1") // just gone
	for _, c := range []struct {
		disk, want string
	}{
		{"nvme0n1", "nvme0:true nvme1:false nvme2:false nvme4:true"},
		{"nvme5n1", "nvme5:true"},
		{"nvme6n1", ""},
		{"nvme7n1", ""},
	} {
		paths, err := tr.Paths(c.disk)
		var got []string
		for _, p := range paths {
			got = append(got, fmt.Sprint(p.Controller, ":", p.Usable()))
		}
		if strings.Join(got, " ") != c.want || err != nil {
			t.Errorf("%s: %v, %v, want %s", c.disk, got, err, c.want)
		}
	}
	for _, disk := range []string{"", "nvme0", "../nvme0n1", "nvme0c0n1", "sda"} {
		if _, err := tr.Paths(disk); err == nil {
			t.Errorf("%q is taken for a disk", disk)
		}
	}
}

func TestSetTimeouts(t *testing.T) {
	// As short as can be: a file, other than an attribute, keeps what it has
	// behind what is written.
	before := map[string]string{"reconnect_delay": "", "ctrl_loss_tmo": "", "fast_io_fail_tmo": ""}
	for _, c := range []struct {
		name     string
		was, now Timeouts
		want     string // what is written: delay, loss, fail
	}{
		{name: "nothing to do"},
		{name: "the default, in words", now: Timeouts{ReconnectDelay: new(10), CtrlLoss: new(600), FastIOFail: new(-1)}},
		{name: "loss", was: Timeouts{CtrlLoss: new(600)}, now: Timeouts{CtrlLoss: new(30)}, want: "- 30 -"},
		{name: "for ever", now: Timeouts{CtrlLoss: new(-1)}, want: "- -1 -"},
		{name: "delay", now: Timeouts{ReconnectDelay: new(2)}, want: "2 600 -"},
		{name: "fail", now: Timeouts{FastIOFail: new(0)}, want: "- - 0"},
		{name: "back to the default", was: Timeouts{ReconnectDelay: new(1), CtrlLoss: new(1), FastIOFail: new(1)}, want: "10 600 -1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := newTree(t)
			tr.add(fabricsDir, "nvme0", with(before))
			if err := tr.SetTimeouts("nvme0", c.was, c.now); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range []string{"reconnect_delay", "ctrl_loss_tmo", "fast_io_fail_tmo"} {
				b, err := os.ReadFile(filepath.Join(tr.root, fabricsDir, "nvme0", a))
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, cmp.Or(strings.TrimSpace(string(b)), "-"))
			}
			if want := cmp.Or(c.want, "- - -"); strings.Join(got, " ") != want {
				t.Errorf("written: %q, want %q", got, want)
			}
		})
	}
	tr := newTree(t)
	if err := tr.SetTimeouts("nvme0", Timeouts{}, Timeouts{CtrlLoss: new(1)}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of a controller that is not there: %v", err)
	}
	tr.add(fabricsDir, "nvme0", live())
	if err := tr.SetTimeouts("nvme0", Timeouts{}, Timeouts{CtrlLoss: new(1)}); !errors.Is(err, ErrNoAttr) {
		t.Errorf("of a controller without: %v", err)
	}
	if err := tr.SetTimeouts("nvme0", Timeouts{}, Timeouts{ReconnectDelay: new(0)}); err == nil || errors.Is(err, ErrNoAttr) {
		t.Errorf("a delay of 0: %v", err)
	}
}
