package fabrics

import (
	"errors"
	"io/fs"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// The layout is the kernel's: include/uapi/linux/nvme_ioctl.h.
func TestAdminCmdLayout(t *testing.T) {
	var c AdminCmd
	for _, f := range []struct {
		name      string
		got, want uintptr
	}{
		{"size", unsafe.Sizeof(c), 72},
		{"size in the ioctl number", ioctlAdmin >> 16 & 0x1fff, 72},
		// Architectures differ in how they write the direction, but not in how
		// they write "both": it is that of any other ioctl that does both.
		{"direction in the ioctl number", ioctlAdmin >> 29, unix.FIDEDUPERANGE >> 29},
		{"opcode", unsafe.Offsetof(c.Opcode), 0},
		{"flags", unsafe.Offsetof(c.Flags), 1},
		{"nsid", unsafe.Offsetof(c.NSID), 4},
		{"cdw2", unsafe.Offsetof(c.CDW2), 8},
		{"cdw3", unsafe.Offsetof(c.CDW3), 12},
		{"metadata", unsafe.Offsetof(c.metadata), 16},
		{"addr", unsafe.Offsetof(c.addr), 24},
		{"metadata_len", unsafe.Offsetof(c.metadataLen), 32},
		{"data_len", unsafe.Offsetof(c.dataLen), 36},
		{"cdw10", unsafe.Offsetof(c.CDW10), 40},
		{"cdw15", unsafe.Offsetof(c.CDW15), 60},
		{"timeout_ms", unsafe.Offsetof(c.TimeoutMS), 64},
		{"result", unsafe.Offsetof(c.Result), 68},
	} {
		if f.got != f.want {
			t.Errorf("%s at %d, want %d", f.name, f.got, f.want)
		}
	}
}

// noIoctl recognizes the answer of a file that has no ioctl, and that of the
// emulator of "make cross", which knows none of NVMe.
func noIoctl(err error) bool { return errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOSYS) }

func TestAdmin(t *testing.T) {
	if _, err := OpenAdmin(filepath.Join(t.TempDir(), "nvme0"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	a, err := OpenAdmin("/dev/null", nil) // which has no ioctl at all
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 20)
	if err := a.GetLogPage(nvme.LogDiscovery, 0, false, 0, buf); !noIoctl(err) {
		t.Errorf("%v", err)
	}
	if err := a.GetLogPage(nvme.LogDiscovery, 0, false, 1, buf); err == nil || noIoctl(err) {
		t.Errorf("odd offset: %v", err)
	}
	if err := a.Do(&AdminCmd{}, nil); !noIoctl(err) {
		t.Errorf("%v", err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := a.GetLogPage(nvme.LogDiscovery, 0, false, 0, buf); err == nil {
		t.Error("a closed device was read")
	}
}
