package inuse

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// tree is a fake host: a disk nvme0n1 (259:0) with partitions p1 (259:1) and p2
// (259:2), and nvme0n10 (259:10), which is no part of it.
type tree struct {
	t       *testing.T
	host    *Host
	claimed map[string]error // by disk; nil: held
	devices map[string]dev   // by path
}

func newTree(t *testing.T) *tree {
	root := t.TempDir()
	r := &tree{t: t, claimed: make(map[string]error), devices: make(map[string]dev)}
	r.host = &Host{
		Proc: root + "/proc", Sys: root + "/sys", Dev: root + "/dev",
		claimed: func(path string) (bool, error) {
			err, ok := r.claimed[filepath.Base(path)]
			return ok && err == nil, err
		},
		device: func(path string) (dev, bool, error) {
			if _, err := os.Lstat(path); err != nil && !strings.HasPrefix(path, "/dev/") {
				return dev{}, false, err
			}
			d, ok := r.devices[strings.TrimPrefix(path, root)]
			return d, ok, nil
		},
	}
	for path, number := range map[string]string{
		"nvme0n1": "259:0", "nvme0n1/nvme0n1p1": "259:1", "nvme0n1/nvme0n1p2": "259:2", "nvme0n10": "259:10", "dm-0": "253:0",
	} {
		r.file("sys/block/"+path+"/dev", number+"\n")
		r.dir("sys/block/" + path + "/holders")
	}
	r.dir("sys/block/nvme0n1/queue")
	r.file("sys/block/dm-0/dm/name", "vg-data\n")
	r.process(1, "mnt:[1]", rootMount)
	return r
}

const rootMount = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n24 22 0:21 / /proc rw - proc proc rw\n"

func (r *tree) dir(path string) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Join(filepath.Dir(r.host.Proc), path), 0o755); err != nil {
		r.t.Fatal(err)
	}
}

func (r *tree) file(path, text string) {
	r.t.Helper()
	r.dir(filepath.Dir(path))
	if err := os.WriteFile(filepath.Join(filepath.Dir(r.host.Proc), path), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// process makes a process of a mount namespace.
func (r *tree) process(pid int, ns, mountinfo string) {
	r.t.Helper()
	dir := fmt.Sprint("proc/", pid)
	r.file(dir+"/mountinfo", mountinfo)
	r.file(dir+"/comm", "tool\n")
	r.dir(dir + "/fd")
	r.dir(dir + "/ns")
	r.link(dir+"/ns/mnt", ns)
}

func (r *tree) link(path, to string) {
	r.t.Helper()
	if err := os.Symlink(to, filepath.Join(filepath.Dir(r.host.Proc), path)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *tree) remove(path string) {
	r.t.Helper()
	if err := os.RemoveAll(filepath.Join(filepath.Dir(r.host.Proc), path)); err != nil {
		r.t.Fatal(err)
	}
}

func check(t *testing.T, got, want []string, err error, wantErr string) {
	t.Helper()
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("users (-want +got):\n%s", diff)
	}
	if (err == nil) != (wantErr == "") || err != nil && !strings.Contains(err.Error(), wantErr) {
		t.Errorf("the error is %v, want %q", err, wantErr)
	}
}

func TestOf(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*tree)
		want []string
		err  string
	}{
		{name: "free"},
		{name: "no such disk", set: func(r *tree) { r.remove("sys/block/nvme0n1"); r.remove("proc") }},
		{
			name: "mounted", want: []string{"nvme0n1p1 is mounted on /my data"},
			set: func(r *tree) {
				r.file("proc/1/mountinfo", rootMount+`30 22 259:1 / /my\040data rw shared:2 master:1 - ext4 /dev/nvme0n1p1 rw`+"\n")
			},
		},
		{
			name: "mounted, with a number of the file system's own", want: []string{"nvme0n1 is mounted on /b"},
			set: func(r *tree) {
				r.devices["/dev/mapper/../nvme0n1"] = dev{259, 0}
				r.file("proc/1/mountinfo", "30 22 0:40 /vol /b rw - btrfs /dev/mapper/../nvme0n1 rw\n")
			},
		},
		{
			name: "mounted in a container", want: []string{"nvme0n1p1 is mounted on /data"},
			set: func(r *tree) { r.process(8, "mnt:[2]", "30 22 259:1 / /data rw - ext4 /dev/nvme0n1p1 rw\n") },
		},
		{name: "another one is mounted", set: func(r *tree) {
			r.file("proc/1/mountinfo", "30 22 259:10 / /d rw - ext4 /dev/nvme0n10 rw\nnonsense\n1 2 x:y / /e\n")
		}},
		{
			name: "swap", want: []string{"nvme0n1p2 is swap"},
			set: func(r *tree) {
				r.devices["/dev/swap\\040one"], r.devices["/dev/swap one"] = dev{259, 10}, dev{259, 2}
				r.file("proc/swaps", "Filename\tType\tSize\n/dev/swap\\040one                          partition\t100\t0\t-2\n/file\t1\n")
			},
		},
		{
			name: "LVM", want: []string{"nvme0n1p1 belongs to dm-0 (vg-data)"},
			set: func(r *tree) { r.dir("sys/block/nvme0n1/nvme0n1p1/holders/dm-0") },
		},
		{
			name: "md", want: []string{"nvme0n1 belongs to md127"},
			set: func(r *tree) { r.dir("sys/block/nvme0n1/holders/md127") },
		},
		{
			name: "held by what cannot be seen", want: []string{"nvme0n1 is held by somebody who does not show"},
			set: func(r *tree) { r.claimed["nvme0n1"] = nil },
		},
		{
			name: "open", want: []string{"nvme0n1 is open in tool (process 7)"},
			set: func(r *tree) {
				r.process(7, "mnt:[1]", "")
				r.link("proc/7/fd/3", "/dev/xvda")
				r.link("proc/7/fd/4", "socket:[1]")
				r.devices["/proc/7/fd/3"] = dev{259, 0}
			},
		},
		{
			name: "another one is open",
			set: func(r *tree) {
				r.link("proc/1/fd/3", "/dev/nvme0n10")
				r.devices["/proc/1/fd/3"] = dev{259, 10}
			},
		},
		{
			name: "a process that ends while it is looked at",
			set: func(r *tree) {
				r.dir("proc/10/fd")
				r.process(11, "mnt:[3]", "")
				r.remove("proc/11/mountinfo")
				r.remove("proc/11/fd")
			},
		},
		{name: "no device file", err: "has no file in", set: func(r *tree) { r.claimed["nvme0n1"] = fs.ErrNotExist }},
		{name: "not for us", err: "permission", set: func(r *tree) { r.claimed["nvme0n1"] = fs.ErrPermission }},
		{name: "just gone", set: func(r *tree) { r.claimed["nvme0n1"] = unix.ENXIO }},
		{name: "garbage for a number", err: "device number", set: func(r *tree) { r.file("sys/block/nvme0n1/dev", "x") }},
		{
			name: "a process that does not show itself", want: []string{"nvme0n1 is open in tool (process 7)"},
			set: func(r *tree) {
				r.dir("proc/5/ns")
				r.file("proc/5/fd", "no directory")
				r.process(7, "mnt:[1]", "")
				r.link("proc/7/fd/3", "/dev/xvda")
				r.devices["/proc/7/fd/3"] = dev{259, 0}
			},
		},
		{name: "no processes to be seen", err: "no process", set: func(r *tree) { r.remove("proc/1") }},
		{name: "no /proc", err: "no such file", set: func(r *tree) { r.remove("proc") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newTree(t)
			if c.set != nil {
				c.set(r)
			}
			got, err := r.host.Look().Of("nvme0n1")
			check(t, got, c.want, err, c.err)
		})
	}
}

func TestHeld(t *testing.T) {
	r := newTree(t)
	held := func(want bool) {
		t.Helper()
		if got, err := r.host.Held("nvme0n1"); got != want || err != nil {
			t.Errorf("held: %v, %v, want %v", got, err, want)
		}
	}
	held(false)
	r.claimed["nvme0n1"] = nil
	held(true)
	r.remove("sys/block/nvme0n1")
	held(false)
}

// What may use a disk is known although something else could not be looked at;
// that nothing does is not.
func TestUnseen(t *testing.T) {
	r := newTree(t)
	u := r.host.Look()
	u.unseen = errors.New("not all was seen")
	r.claimed["nvme0n10"] = nil
	got, err := u.Of("nvme0n10")
	check(t, got, []string{"nvme0n10 is held by somebody who does not show"}, err, "")
	if _, err := u.Of("nvme0n1"); err == nil {
		t.Error("nobody uses it, for sure?")
	}
	u.users[dev{259, 2}] = []string{"is open in tool"}
	got, err = u.Of("nvme0n1")
	check(t, got, []string{"nvme0n1p2 is open in tool"}, err, "")
}

func TestNames(t *testing.T) {
	r := newTree(t)
	for _, disk := range []string{"", "..", ".", "../nvme0n1", "a\x00"} {
		if _, err := r.host.Held(disk); err == nil {
			t.Errorf("%q is taken for a disk", disk)
		}
	}
}

// TestThis looks at the host that the test is on, which has processes.
func TestThis(t *testing.T) {
	if _, err := This().Look().Of("no-such-disk"); err != nil {
		t.Error(err)
	}
	d, isBlock, err := device(t.TempDir())
	if isBlock || err != nil {
		t.Errorf("a directory is the block device %v, %v", d, err)
	}
}

func FuzzMountinfo(f *testing.F) {
	f.Add(rootMount)
	f.Add(`30 22 259:1 / /my\040data rw - btrfs /dev/\777 rw`)
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		h := This()
		h.Proc = dir
		h.device = func(string) (dev, bool, error) { return dev{}, true, nil }
		if err := os.MkdirAll(dir+"/self", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/self/mountinfo", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		into := make(map[dev][]string)
		if err := h.mounts("self", into); err != nil {
			t.Skip()
		}
		for d, users := range into {
			if len(users) > maxUsers {
				t.Errorf("%v has %d users", d, len(users))
			}
		}
	})
}
