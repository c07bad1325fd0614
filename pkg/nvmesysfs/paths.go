package nvmesysfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Path is one of the ways to a disk.
type Path struct {
	Controller string
	State      State
	// ANA is as in [Namespace].
	ANA string
}

// Usable reports whether I/O gets through here.
func (p Path) Usable() bool {
	return p.State == Live && (p.ANA == "" || p.ANA == "optimized" || p.ANA == "non-optimized")
}

// Paths lists the ways to a disk, "nvme0n1", that the kernel has bundled
// (drivers/nvme/host/multipath.c). A disk that belongs to one controller alone,
// because the kernel or the subsystem does not know of multiple paths, has one.
// A disk that is not there has none.
func (f *FS) Paths(disk string) ([]Path, error) {
	number, ok := diskOf(disk)
	if !ok || number != disk {
		return nil, fmt.Errorf("%q is not the name of an NVMe disk", disk)
	}
	// /sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1, or below the
	// controller: .../nvme-fabrics/ctl/nvme0/nvme0n1.
	place, err := filepath.EvalSymlinks(path.Join(f.root, "block", disk))
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for %s: %w", disk, err)
	}
	above := path.Dir(place)
	if name := path.Base(above); isController(name) {
		p, err := f.path(name, disk)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return []Path{p}, err
	}
	entries, err := os.ReadDir(above)
	if err != nil && !absent(err) {
		return nil, fmt.Errorf("listing the paths of %s: %w", disk, err)
	}
	subsystem, namespace, _ := strings.Cut(strings.TrimPrefix(disk, "nvme"), "n")
	var all []Path
	for _, e := range entries {
		if !isController(e.Name()) {
			continue
		}
		p, err := f.path(e.Name(), "nvme"+subsystem+"c"+strings.TrimPrefix(e.Name(), "nvme")+"n"+namespace)
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone, or without this namespace
		}
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// path reads one. It is [fs.ErrNotExist] if the controller is not there or has
// no such directory.
func (f *FS) path(controller, directory string) (Path, error) {
	p := Path{Controller: controller}
	if _, err := f.Attr(controller, directory+"/size"); err != nil {
		if errors.Is(err, ErrNoAttr) {
			err = fs.ErrNotExist
		}
		return p, err
	}
	ana, err := f.Attr(controller, directory+"/ana_state")
	if err != nil && !errors.Is(err, ErrNoAttr) {
		return p, err
	}
	state, err := f.Attr(controller, "state")
	p.State, p.ANA = State(state), ana
	return p, err
}
