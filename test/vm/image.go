package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// defaultSuite is what the tests run on unless told otherwise.
const defaultSuite = "trixie"

// suite is what a guest can be made of.
type suite struct {
	release  string   // of Debian
	options  []string // of mmdebstrap, as its archive needs them
	packages []string // besides guestPackages
	setup    string   // a script in guest/image that runs before setup.sh; may be empty
}

// suites are the guests there are.
var suites = map[string]suite{
	"bookworm": {release: "bookworm"}, // Linux 6.1
	"trixie":   {release: "trixie"},   // Linux 6.12
	"sid": { // Linux 7.x; a mirror may lag
		release: "sid", options: []string{`--aptopt=Acquire::Check-Valid-Until "false"`},
	},
	// nvme-stas, which STAS takes the place of, to compare with.
	"trixie-peer": {release: "trixie", packages: []string{"nvme-stas"}, setup: "peer.sh"},
}

func suiteNames() []string { return slices.Sorted(maps.Keys(suites)) }

// guestPackages is what the guest consists of besides the essential packages.
var guestPackages = []string{
	"systemd", "systemd-sysv", "dbus", "udev", "kmod", "linux-image-cloud-amd64",
	"nvme-cli",           // a second opinion on what the kernel shows, and the bare connects of the benchmark
	"fio",                // writes and verifies
	"e2fsprogs", "fdisk", // file systems and partitions on what was connected
	"avahi-daemon", "avahi-utils", // another's view of what is announced
	"nftables", "iproute2", // break connections
	"procps", "strace", // for whoever looks for a fault in the shell
	"busybox-static", "xz-utils", "zstd", // make the initrd
}

// imageSize is the size of the root file system; the file is sparse.
const imageSize = "1G"

// recipeVersion is counted up when this file changes what an image contains.
const recipeVersion = "2"

//go:embed guest/image
var imageFiles embed.FS

// image is a built image: a root file system with its kernel and initrd.
type image struct {
	suite  string
	dir    string
	root   string
	kernel string
	initrd string
}

// buildImage returns the image of a suite, after building it if the cache
// does not have it.
func buildImage(ctx context.Context, name string) (*image, error) {
	s, ok := suites[name]
	if !ok {
		return nil, fmt.Errorf("there is no suite %q, only %s", name, strings.Join(suiteNames(), ", "))
	}
	if err := ensureHost(ctx); err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("where to keep the image: %w", err)
	}
	cache = filepath.Join(cache, "stas-vm")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(cache, name+".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()

	dir := filepath.Join(cache, name+"-"+s.recipeKey())
	img := &image{
		suite:  name,
		dir:    dir,
		root:   filepath.Join(dir, "root.ext4"),
		kernel: filepath.Join(dir, "kernel"),
		initrd: filepath.Join(dir, "initrd"),
	}
	if _, err := os.Stat(dir); err == nil {
		return img, nil
	}
	progress("building the image of the guest, Debian %s: once, about a minute", name)
	// Beside its place, so that it can be renamed: a directory with the right
	// name is complete.
	tmp, err := os.MkdirTemp(cache, "building-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := s.bootstrap(ctx, tmp); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return nil, err
	}
	progress("the image is in %s", dir)
	return img, nil
}

// scripts are the files of guest/image that make the suite's image.
func (s suite) scripts() []string {
	scripts := []string{"init.sh", "setup.sh"}
	if s.setup != "" {
		scripts = append(scripts, s.setup)
	}
	return scripts
}

// recipeKey names what an image of the suite is made of.
func (s suite) recipeKey() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %q %q %s\n", recipeVersion, s, guestPackages, imageSize)
	for _, name := range s.scripts() {
		data := imageFile(name)
		fmt.Fprintf(h, "%s %d\n%s", name, len(data), data)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// imageFile returns one of the files under guest/image.
func imageFile(name string) []byte {
	data, err := imageFiles.ReadFile("guest/image/" + name)
	if err != nil {
		panic(err) // embedded files can always be read
	}
	return data
}

// lock waits until no other process holds the lock file.
func lock(name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		progress("another process builds the image, waiting for it")
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			f.Close()
			return nil, fmt.Errorf("locking %s: %w", name, err)
		}
	}
	return func() { f.Close() }, nil
}

// bootstrap makes root.ext4, kernel and initrd in dir.
func (s suite) bootstrap(ctx context.Context, dir string) error {
	for _, name := range s.scripts() {
		if err := os.WriteFile(filepath.Join(dir, name), imageFile(name), 0o755); err != nil {
			return err
		}
	}
	mode := "root"
	if os.Geteuid() != 0 {
		mode = "unshare"
	}
	tar := filepath.Join(dir, "root.tar")
	args := []string{"mmdebstrap", "--mode=" + mode, "--variant=minbase",
		"--include=" + strings.Join(slices.Concat(guestPackages, s.packages), ","), "--dpkgopt=force-unsafe-io"}
	args = append(args, s.options...)
	for _, path := range []string{
		"/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*",
		// No initrd of the distribution: setup makes a smaller one.
		"/etc/kernel/postinst.d/*",
	} {
		args = append(args, "--dpkgopt=path-exclude="+path)
	}
	if s.setup != "" {
		args = append(args,
			"--customize-hook=upload "+filepath.Join(dir, s.setup)+" /stas-vm-setup",
			`--customize-hook=chroot "$1" sh /stas-vm-setup`)
	}
	args = append(args,
		"--customize-hook=upload "+filepath.Join(dir, "init.sh")+" /stas-vm-init",
		"--customize-hook=upload "+filepath.Join(dir, "setup.sh")+" /stas-vm-setup",
		`--customize-hook=chroot "$1" sh /stas-vm-setup && rm "$1/stas-vm-setup"`,
		"--customize-hook=download /boot/stas-vm-kernel "+filepath.Join(dir, "kernel"),
		"--customize-hook=download /boot/stas-vm-initrd "+filepath.Join(dir, "initrd"),
		`--customize-hook=rm -r "$1"/boot/*`,
		s.release, tar)
	if err := runWithProgress(ctx, args); err != nil {
		return err
	}

	// Without root, file owners exist only inside a user namespace. The
	// journal of ext4 would protect what every run throws away.
	progress("making the disk image")
	pack := []string{"sh", "-euc", `
		mkdir "$1/tree"
		tar -x -f "$1/root.tar" -C "$1/tree" --exclude=./dev/*
		mke2fs -q -t ext4 -O ^has_journal -m 0 -E root_owner=0:0 -d "$1/tree" "$1/root.ext4" "$2"
		rm -r "$1/tree" "$1/root.tar" "$1"/*.sh`, "pack", dir, imageSize}
	if mode == "unshare" {
		pack = append([]string{"unshare", "--map-root-user", "--map-auto"}, pack...)
	}
	cmd := exec.CommandContext(ctx, pack[0], pack[1:]...)
	// mke2fs lives in a directory that is not on everybody's path.
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making the disk image: %w\n%s", err, lastLines(out, 20))
	}
	return nil
}

// runWithProgress runs mmdebstrap, and shows the steps it tells of.
func runWithProgress(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	// Killed, it would leave its mounts behind.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var all bytes.Buffer
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		fmt.Fprintln(&all, lines.Text())
		if step, ok := strings.CutPrefix(lines.Text(), "I: "); ok && strings.HasSuffix(step, "...") {
			progress("  %s", step)
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("mmdebstrap: %w\n%s", err, lastLines(all.Bytes(), 30))
	}
	return nil
}
