package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// bootLimit bounds the time until the guest says that it runs. It needs about
// 15 s on two idle cores; this is for a machine that does much else.
const bootLimit = 4 * time.Minute

// resultsSize bounds what the guest may leave behind besides its output.
const resultsSize = 64 << 20

// accels are the ways to run the guest. KVM has to be asked for: there are
// machines with a /dev/kvm that cannot boot a stock kernel.
var accels = map[string]string{
	"tcg":        "tcg,thread=multi",
	"tcg-single": "tcg,thread=single",
	"kvm":        "kvm",
}

func accelNames() []string { return slices.Sorted(maps.Keys(accels)) }

// qemu prepares a QEMU process whose first serial port, the console of the
// guest, is on its standard input and output.
func qemu(ctx context.Context, o options, img *image, payload string, kernelArgs ...string) (*exec.Cmd, error) {
	accel, ok := accels[o.accel]
	if !ok {
		return nil, fmt.Errorf("-accel is one of %s, not %q", strings.Join(accelNames(), ", "), o.accel)
	}
	kernelArgs = append([]string{
		"root=/dev/vda", "rw", "console=ttyS0",
		"systemd.getty_auto=no", "systemd.show_status=no",
		"panic=-1", "oops=panic", // rather end than go on broken
		"mitigations=off", "audit=0", "apparmor=0", "selinux=0", "rcupdate.rcu_expedited=1", // quicker
	}, kernelArgs...)
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64",
		"-machine", "q35", "-nodefaults", "-display", "none", "-no-reboot",
		"-accel", accel,
		// In QEMU 7.2's emulation the guest kernel double-faults in cmpxchg16b.
		"-cpu", "max,cx16=off",
		"-smp", "2", "-m", "2048", "-nic", "none",
		"-kernel", img.kernel, "-initrd", img.initrd, "-append", strings.Join(kernelArgs, " "),
		"-drive", "if=virtio,format=raw,snapshot=on,file="+img.root,
		"-drive", "if=virtio,format=raw,readonly=on,file="+payload,
		"-serial", "mon:stdio")
	if o.nbft != "" {
		cmd.Args = append(cmd.Args, "-acpitable", "file="+strings.ReplaceAll(o.nbft, ",", ",,"))
	}
	return cmd, nil
}

// bootShell runs the guest with its console on this terminal.
func bootShell(ctx context.Context, o options, img *image, p *payload) error {
	disk, err := p.disk()
	if err != nil {
		return err
	}
	cmd, err := qemu(ctx, o, img, disk, "quiet", "loglevel=1")
	if err != nil {
		return err
	}
	progress("booting the guest, Debian %s; Ctrl-A X ends it by force", img.suite)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

// boot runs the guest and copies its output to standard output. What the guest
// ended with is the error: nil, an [exitStatus], or how it died.
func boot(ctx context.Context, o options, img *image, p *payload) error {
	disk, err := p.disk()
	if err != nil {
		return err
	}
	err = bootOnce(ctx, o, img, p.dir, disk)
	death, ok := errors.AsType[*guestDeath](err)
	hung := ok && errors.Is(death.cause, errHung)
	if !ok || o.accel != "tcg" || !hung && !bytes.Contains(death.console, []byte("int3: 0000")) {
		return err
	}
	// The emulation of several processors at a time (seen with QEMU 7.2) now
	// and then lets one execute the breakpoint with which the kernel patches
	// its own code after the kernel has taken it away again. A guest that hangs
	// for another reason does so again.
	progress("the guest hangs, or its emulator has failed: once more, one processor at a time")
	o.accel = "tcg-single"
	return bootOnce(ctx, o, img, p.dir, disk)
}

// errHung is the end of a guest that neither ends nor works.
var errHung = errors.New("it hangs")

// pulse is the console of a guest, which prints something every few seconds
// once it runs. When it does not for too long, the guest hangs.
type pulse struct {
	text    bytes.Buffer
	beating atomic.Bool
	silence *time.Timer
}

// silenceLimit is how long a guest that runs may print nothing.
const silenceLimit = time.Minute

func (p *pulse) Write(b []byte) (int, error) {
	if p.beating.Load() {
		p.silence.Reset(silenceLimit)
	}
	return p.text.Write(b)
}

// begin watches from now on.
func (p *pulse) begin() {
	p.silence.Reset(silenceLimit)
	p.beating.Store(true)
}

// guestDeath is the end of a guest that did not end by itself.
type guestDeath struct {
	cause   error
	console []byte
}

func (d *guestDeath) Error() string {
	return fmt.Sprintf("the guest died: %v; the end of its console:\n%s", d.cause, lastLines(d.console, 40))
}

// bootOnce is boot without the second chance; dir is for temporary files.
func bootOnce(parent context.Context, o options, img *image, dir, disk string) error {
	results := filepath.Join(dir, "results")
	if err := errors.Join(os.WriteFile(results, nil, 0o644), os.Truncate(results, resultsSize)); err != nil {
		return err
	}
	socket := filepath.Join(dir, "output")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer listener.Close()

	ctx, cancel := context.WithTimeoutCause(parent, o.timeout, fmt.Errorf("it had not ended after %v", o.timeout))
	defer cancel()
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	cmd, err := qemu(ctx, o, img, disk, "quiet")
	if err != nil {
		return err
	}
	cmd.Args = append(cmd.Args,
		"-drive", "if=virtio,format=raw,cache=unsafe,file="+results,
		"-serial", "unix:"+socket)
	var complaints bytes.Buffer
	var console pulse
	console.silence = time.AfterFunc(bootLimit, func() {
		giveUp(fmt.Errorf("%w: it has not booted within %v, or printed nothing for %v", errHung, bootLimit, silenceLimit))
	})
	defer console.silence.Stop()
	cmd.Stdout, cmd.Stderr = &console, &complaints
	if o.verbose {
		fmt.Fprintln(os.Stderr, strings.Join(cmd.Args, " "))
		cmd.Stdout = io.MultiWriter(&console, os.Stderr)
	}
	progress("booting the guest, Debian %s", img.suite)
	booting := time.Now()
	if err := cmd.Start(); err != nil {
		return err
	}

	copied := make(chan struct{})
	go func() {
		defer close(copied)
		conn, err := listener.Accept()
		if err != nil {
			return // QEMU ended before it opened its serial ports
		}
		defer conn.Close()
		output := bufio.NewReader(conn)
		if _, err := output.ReadString('\n'); err != nil {
			return
		}
		console.begin()
		progress("booted in %.1f s", time.Since(booting).Seconds())
		// Until the guest ends, however it does. By lines, since io.Copy would
		// leave it to the kernel when to move what it has.
		for err == nil {
			var line string
			line, err = output.ReadString('\n')
			fmt.Print(label + line)
		}
	}()
	err = cmd.Wait()
	listener.Close()
	<-copied
	if parent.Err() != nil {
		return context.Cause(parent)
	}
	switch cause := context.Cause(ctx); {
	case cause != nil:
		err = cause
	case err != nil:
		err = fmt.Errorf("QEMU: %w: %s", err, lastLines(complaints.Bytes(), 5))
	}
	return outcome(img, results, console.text.Bytes(), err)
}

// outcome tells how the guest ended, after err if that is not nil, and keeps
// what explains a bad end.
func outcome(img *image, results string, console []byte, err error) error {
	files, resultsErr := readResults(results)
	status, statusErr := strconv.Atoi(strings.TrimSpace(string(files["status"])))
	switch {
	case err != nil:
	case resultsErr != nil:
		err = fmt.Errorf("its results: %w", resultsErr)
	case statusErr != nil:
		err = errors.New("it ended before its work did")
	case status == 0:
		return nil
	}
	files["console.txt"] = console
	delete(files, "status")
	if keepErr := keep(img, files); keepErr != nil {
		err = errors.Join(err, keepErr)
	}
	if err != nil {
		return &guestDeath{err, console}
	}
	return exitStatus(status)
}

// readResults reads the tar that the guest leaves at its end: its exit status
// and, after a failure, logs. A guest that died leaves none.
func readResults(file string) (map[string][]byte, error) {
	files := map[string][]byte{}
	f, err := os.Open(file)
	if err != nil {
		return files, err
	}
	defer f.Close()
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return files, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if files[filepath.Base(h.Name)], err = io.ReadAll(r); err != nil {
			return files, err
		}
	}
}

// keep stores what helps to understand a failure, in place of what was kept
// of the failure before.
func keep(img *image, files map[string][]byte) error {
	// Not the context of the run, which may be why it failed.
	root, err := moduleRoot(context.Background())
	if err != nil {
		return err
	}
	dir := filepath.Join(root, "build", "vm", img.suite+keepAs)
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	progress("the logs are in %s", dir)
	return nil
}
