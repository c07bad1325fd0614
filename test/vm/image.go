package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
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

// suites are the Debian releases a guest can be made of, with the options of
// apt that their archives need.
var suites = map[string][]string{
	"bookworm": nil,                                             // Linux 6.1
	"trixie":   nil,                                             // Linux 6.12
	"sid":      {`--aptopt=Acquire::Check-Valid-Until "false"`}, // Linux 7.x; a mirror may lag
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
func buildImage(ctx context.Context, suite string) (*image, error) {
	if _, ok := suites[suite]; !ok {
		return nil, fmt.Errorf("there is no suite %q, only %s", suite, strings.Join(suiteNames(), ", "))
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
	unlock, err := lock(filepath.Join(cache, suite+".lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()

	dir := filepath.Join(cache, suite+"-"+recipeKey(suite))
	img := &image{
		suite:  suite,
		dir:    dir,
		root:   filepath.Join(dir, "root.ext4"),
		kernel: filepath.Join(dir, "kernel"),
		initrd: filepath.Join(dir, "initrd"),
	}
	if _, err := os.Stat(dir); err == nil {
		return img, nil
	}
	progress("building the image of the guest, Debian %s: once, about a minute", suite)
	// Beside its place, so that it can be renamed: a directory with the right
	// name is complete.
	tmp, err := os.MkdirTemp(cache, "building-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	if err := bootstrap(ctx, suite, tmp); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return nil, err
	}
	progress("the image is in %s", dir)
	return img, nil
}

// recipeKey names what an image of the suite is made of.
func recipeKey(suite string) string {
	h := sha256.New()
	fmt.Fprintln(h, recipeVersion, suite, suites[suite], guestPackages, imageSize)
	err := fs.WalkDir(imageFiles, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := imageFiles.ReadFile(name)
		fmt.Fprintf(h, "%s %d\n%s", name, len(data), data)
		return err
	})
	if err != nil {
		panic(err) // embedded files can always be read
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
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
func bootstrap(ctx context.Context, suite, dir string) error {
	for _, name := range []string{"init.sh", "setup.sh"} {
		data, err := imageFiles.ReadFile("guest/image/" + name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			return err
		}
	}
	mode := "root"
	if os.Geteuid() != 0 {
		mode = "unshare"
	}
	tar := filepath.Join(dir, "root.tar")
	args := []string{"mmdebstrap", "--mode=" + mode, "--variant=minbase",
		"--include=" + strings.Join(guestPackages, ","), "--dpkgopt=force-unsafe-io"}
	args = append(args, suites[suite]...)
	for _, path := range []string{
		"/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*",
		// No initrd of the distribution: setup makes a smaller one.
		"/etc/kernel/postinst.d/*",
	} {
		args = append(args, "--dpkgopt=path-exclude="+path)
	}
	args = append(args,
		"--customize-hook=upload "+filepath.Join(dir, "init.sh")+" /stas-vm-init",
		"--customize-hook=upload "+filepath.Join(dir, "setup.sh")+" /stas-vm-setup",
		`--customize-hook=chroot "$1" sh /stas-vm-setup && rm "$1/stas-vm-setup"`,
		"--customize-hook=download /boot/stas-vm-kernel "+filepath.Join(dir, "kernel"),
		"--customize-hook=download /boot/stas-vm-initrd "+filepath.Join(dir, "initrd"),
		`--customize-hook=rm -r "$1"/boot/*`,
		suite, tar)
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
		rm -r "$1/tree" "$1/root.tar" "$1/init.sh" "$1/setup.sh"`, "pack", dir, imageSize}
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
