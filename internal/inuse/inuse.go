// Package inuse finds out whether block devices are in use anywhere on the
// host: mounted, in whatever mount namespace, swap, below another block device
// (LVM, md, device mapper, bcache), or open. It looks and never changes
// anything.
package inuse

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxProcesses bounds the processes that are looked at. A host with more
	// of them has not been looked at completely.
	maxProcesses = 1 << 17
	// maxLine bounds a line of mountinfo; options of overlays are long.
	maxLine = 1 << 20
	// maxUsers bounds what is said of one device; more do not use it more.
	maxUsers = 4
)

// dev is a device number, as stat(2) and sysfs tell it.
type dev struct{ major, minor uint32 }

// Host is the host as its file systems show it. The zero value is of no use:
// see [This].
type Host struct {
	Proc, Sys, Dev string
	// claimed reports whether somebody has a block device for himself alone:
	// whoever mounts it, swaps to it, or builds another device of it does.
	claimed func(path string) (bool, error)
	// device is the number of the block device behind a path, if it is one.
	device func(path string) (dev, bool, error)
}

// This returns the host that we are on.
func This() *Host {
	return &Host{Proc: "/proc", Sys: "/sys", Dev: "/dev", claimed: claimed, device: device}
}

// claimed tries to open the device exclusively, which fails if anybody holds it
// so, in whatever namespace, be it the whole disk or a partition of it
// (block/bdev.c, bd_may_claim). Nothing is read, and udev does not look at
// devices again that were opened for reading.
func claimed(path string) (bool, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_EXCL|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return true, nil
	case err != nil:
		return false, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	_ = unix.Close(fd)
	return false, nil
}

// device looks through a link of /proc/PID/fd at what is open, without asking a
// file server that may not answer (AT_STATX_DONT_SYNC).
func device(path string) (dev, bool, error) {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st)
	if err != nil {
		return dev{}, false, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	return dev{st.Rdev_major, st.Rdev_minor}, st.Mode&unix.S_IFMT == unix.S_IFBLK, nil
}

// Use is what is known of all block devices of the host at one moment.
type Use struct {
	host  *Host
	users map[dev][]string
	// unseen is why it may not be all.
	unseen error
}

// Held reports whether somebody has the disk, or a partition of it, for himself
// alone. It costs a few system calls: what is mounted stays so for long, and
// needs to be asked for often.
func (h *Host) Held(disk string) (bool, error) {
	parts, err := h.parts(disk)
	if err != nil || parts == nil {
		return false, err
	}
	held, err := h.claimed(filepath.Join(h.Dev, disk))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, fmt.Errorf("%s has no file in %s, so that nobody can tell whether it is in use", disk, h.Dev)
	case errors.Is(err, unix.ENXIO), errors.Is(err, unix.ENODEV):
		return false, nil // it has just gone
	}
	return held, err
}

// Look looks at the swaps, and at all processes: at what they have open, and at
// the mounts of their mount namespaces, of each of these once. It is done once
// for many disks.
func (h *Host) Look() *Use {
	u := &Use{host: h, users: make(map[dev][]string)}
	u.unseen = errors.Join(u.swaps(), u.processes())
	return u
}

// Of says what uses a disk or one of its partitions. No text and no error mean
// that nothing does.
func (u *Use) Of(disk string) ([]string, error) {
	h := u.host
	parts, err := h.parts(disk)
	if err != nil || parts == nil {
		return nil, err
	}
	var users []string
	for name, d := range parts {
		for _, use := range u.users[d] {
			users = append(users, name+" "+use)
		}
		holders, err := os.ReadDir(filepath.Join(h.partDir(disk, name), "holders"))
		if err != nil && !absent(err) {
			return nil, err
		}
		for _, e := range holders {
			users = append(users, name+" belongs to "+h.mapped(e.Name()))
		}
	}
	if len(users) > 0 {
		slices.Sort(users)
		return users, nil
	}
	held, err := h.Held(disk)
	if err == nil && held {
		return []string{disk + " is held by somebody who does not show"}, nil
	}
	return nil, cmp.Or(err, u.unseen)
}

// swaps notes what the host swaps to (proc_swaps(5)):
//
//	/dev/nvme0n1p2  partition  8388604  0  -2
func (u *Use) swaps() error {
	text, err := os.ReadFile(filepath.Join(u.host.Proc, "swaps"))
	if absent(err) {
		return nil // a kernel without
	}
	for line := range strings.Lines(string(text)) {
		path, _, _ := strings.Cut(line, " ")
		path, _, _ = strings.Cut(path, "\t")
		if !strings.HasPrefix(path, "/") {
			continue // the heading
		}
		if d, isBlock, err := u.host.device(unescape(path)); err == nil && isBlock {
			note(u.users, d, "is swap")
		}
	}
	return err
}

func (u *Use) processes() error {
	h := u.host
	dir, err := os.Open(h.Proc)
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		_, err := strconv.ParseUint(name, 10, 31)
		return err != nil
	})
	if len(names) > maxProcesses {
		return fmt.Errorf("there are %d processes, more than are looked at", len(names))
	}
	if len(names) == 0 {
		return fmt.Errorf("%s shows no process", h.Proc)
	}
	// What one process does not show, others may: all are looked at.
	var unseen error
	failed := func(err error) bool {
		if err != nil && !gone(err) {
			unseen = cmp.Or(unseen, err)
		}
		return err != nil
	}
	seen := make(map[string]bool) // mount namespaces
	for _, pid := range names {
		ns, err := os.Readlink(filepath.Join(h.Proc, pid, "ns", "mnt"))
		// Of a namespace whose process has just ended, the next one tells.
		if !failed(err) && !seen[ns] {
			seen[ns] = !failed(h.mounts(pid, u.users))
		}
		failed(u.open(pid))
	}
	return unseen
}

// absent recognizes what sysfs says of devices that have gone.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// gone recognizes what /proc says of processes that have ended.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL)
}

// open notes what block devices a process has open.
func (u *Use) open(pid string) error {
	path := filepath.Join(u.host.Proc, pid, "fd")
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	for {
		fds, err := dir.Readdirnames(1024)
		for _, fd := range fds {
			d, isBlock, err := u.host.device(path + "/" + fd)
			if err == nil && isBlock {
				note(u.users, d, "is open in "+u.host.command(pid))
			}
			// What is closed meanwhile is not open; what cannot be looked at is
			// on a file system that does not answer, and so is no device.
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// command is a process in a text.
func (h *Host) command(pid string) string {
	comm, err := os.ReadFile(filepath.Join(h.Proc, pid, "comm"))
	if err != nil {
		return "process " + pid
	}
	return strings.TrimSpace(string(comm)) + " (process " + pid + ")"
}

func note(users map[dev][]string, d dev, use string) {
	if len(users[d]) < maxUsers && !slices.Contains(users[d], use) {
		users[d] = append(users[d], use)
	}
}

// mounts notes the devices that are mounted in the namespace of a process
// (proc_pid_mountinfo(5)):
//
//	36 35 259:1 / /data rw,noatime shared:1 - ext4 /dev/nvme0n1p1 rw
//
// Some file systems (btrfs) have a number of their own, and the device only by
// its name.
func (h *Host) mounts(pid string, into map[dev][]string) error {
	f, err := os.Open(filepath.Join(h.Proc, pid, "mountinfo"))
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		front, back, _ := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(front)
		if len(fields) < 5 {
			continue
		}
		use := "is mounted on " + unescape(fields[4])
		if d, ok := parseDev(fields[2]); ok && d.major != 0 {
			note(into, d, use)
			continue
		}
		if source := strings.Fields(back); len(source) > 1 && strings.HasPrefix(source[1], "/dev/") {
			if d, isBlock, err := h.device(unescape(source[1])); err == nil && isBlock {
				note(into, d, use)
			}
		}
	}
	return lines.Err()
}

// unescape undoes what the kernel does to blanks in paths: "\040".
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func parseDev(s string) (dev, bool) {
	major, minor, _ := strings.Cut(strings.TrimSpace(s), ":")
	a, err1 := strconv.ParseUint(major, 10, 32)
	b, err2 := strconv.ParseUint(minor, 10, 32)
	return dev{uint32(a), uint32(b)}, err1 == nil && err2 == nil
}

// parts are the disk and its partitions, nil if there is no such disk.
func (h *Host) parts(disk string) (map[string]dev, error) {
	if disk == "" || strings.ContainsAny(disk, "/\x00") || disk[0] == '.' {
		return nil, fmt.Errorf("%q is not the name of a disk", disk)
	}
	dir := filepath.Join(h.Sys, "block", disk)
	entries, err := os.ReadDir(dir)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := []string{disk}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), disk) {
			names = append(names, e.Name())
		}
	}
	parts := make(map[string]dev, len(names))
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(h.partDir(disk, name), "dev"))
		if absent(err) {
			continue // gone meanwhile, or no device
		}
		if err != nil {
			return nil, err
		}
		d, ok := parseDev(string(text))
		if !ok {
			return nil, fmt.Errorf("%s has the device number %q", name, text)
		}
		parts[name] = d
	}
	return parts, nil
}

func (h *Host) partDir(disk, name string) string {
	if name == disk {
		name = ""
	}
	return filepath.Join(h.Sys, "block", disk, name)
}

// mapped is a block device that is made of others, under the name that its
// makers gave it ("dm-0 (vg-data)").
func (h *Host) mapped(name string) string {
	if text, err := os.ReadFile(filepath.Join(h.Sys, "block", name, "dm", "name")); err == nil {
		return name + " (" + strings.TrimSpace(string(text)) + ")"
	}
	return name
}
