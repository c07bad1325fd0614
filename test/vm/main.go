// Command vm runs STAS on a real Linux kernel, in a throwaway QEMU guest: the
// scenarios of test/scenario, the demo, or a shell.
//
//	go run ./test/vm image|test|demo|exec|shell [flags]
//
// The guest has systemd, D-Bus, the kernel's NVMe host and its NVMe target,
// all in one; nothing reaches the network or the disks of the machine that
// runs it. Its image is built once by mmdebstrap and kept under the user's
// cache directory. What runs in it comes as a tar on a second disk, which the
// initrd unpacks over the root file system; output comes back through a serial
// port, the exit status and the logs of a failure as a tar on a third disk.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const usage = `usage: go run ./test/vm COMMAND [flags]

commands:
  image   build the image of the guest, if it is not there yet
  test    run the scenarios of test/scenario in the guest
  demo    show what the product does
  exec    run a script of this machine in the guest: exec [flags] SCRIPT [ARG...]
  shell   give a shell in the guest, in the state of the demo

go run ./test/vm COMMAND -h lists the flags of a command.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if status, ok := errors.AsType[exitStatus](err); ok {
		os.Exit(int(status))
	}
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "vm:", err)
		os.Exit(2)
	}
}

// exitStatus is what ran in the guest and ended with another status than 0. It
// has told why itself.
type exitStatus int

func (s exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// options are the flags of all commands; each command accepts some.
type options struct {
	suite   string
	accel   string
	timeout time.Duration
	run     string
	skip    string
	label   string
	nbft    string
	verbose bool
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return errors.New("no command given")
	}
	command, args := args[0], args[1:]
	var o options
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.StringVar(&o.suite, "suite", defaultSuite, "`guest` to use, by its Debian release: "+strings.Join(suiteNames(), ", "))
	if command != "image" {
		flags.StringVar(&o.accel, "accel", "tcg", "how QEMU runs the guest: `one` of "+strings.Join(accelNames(), ", "))
		flags.DurationVar(&o.timeout, "timeout", 30*time.Minute, "give up after this long")
		flags.StringVar(&o.nbft, "nbft", "", "put the boot table of this `file` into the firmware of the guest; that of the scenarios is test/scenario/testdata/NBFT")
		flags.StringVar(&o.label, "label", "", "`name` of this guest where several run: before each line of output, and in the directory of its logs")
		flags.BoolVar(&o.verbose, "v", false, "show the console of the guest too, on standard error")
	}
	if command == "test" {
		flags.StringVar(&o.run, "run", "^TestGuest", "only the tests that match this `regexp`, as of go test")
		flags.StringVar(&o.skip, "skip", "", "without the tests that match this `regexp`, as of go test")
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 && command != "exec" {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.label != "" {
		label, keepAs = o.label+"| ", "-"+o.label
	}
	switch command {
	case "image":
		_, err := buildImage(ctx, o.suite)
		return err
	case "test":
		return runTests(ctx, o)
	case "demo":
		return runDemo(ctx, o)
	case "exec":
		if flags.NArg() == 0 {
			return errors.New("exec needs the script to run")
		}
		return runScript(ctx, o, flags.Arg(0), flags.Args()[1:])
	case "shell":
		return runShell(ctx, o)
	}
	fmt.Fprint(os.Stderr, usage)
	return fmt.Errorf("there is no command %q", command)
}

// prepare makes sure of the image, and begins a payload with the product
// installed.
func prepare(ctx context.Context, o options) (*image, *payload, error) {
	img, err := buildImage(ctx, o.suite)
	if err != nil {
		return nil, nil, err
	}
	p, err := newPayload()
	if err != nil {
		return nil, nil, err
	}
	if err := p.addProduct(ctx); err != nil {
		p.remove()
		return nil, nil, err
	}
	return img, p, nil
}

// runTests runs the test binary of test/scenario in the guest.
func runTests(ctx context.Context, o options) error {
	img, p, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	defer p.remove()
	if err := p.addTests(ctx); err != nil {
		return err
	}
	// The binary ends itself a little before the guest is given up, so that
	// its stack traces show where it hangs.
	args := []string{"-test.v", "-test.run=" + o.run, "-test.skip=" + o.skip, "-test.timeout=" + (o.timeout - o.timeout/10).String()}
	p.setMain("/stage/"+testBinary, args)
	p.addAgent()
	return boot(ctx, o, img, p)
}

// runDemo runs the demo in the guest.
func runDemo(ctx context.Context, o options) error {
	img, p, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	defer p.remove()
	p.addScripts()
	p.setMain("/stage/demo.sh", nil)
	p.addAgent()
	return boot(ctx, o, img, p)
}

// runScript runs a script of this machine in the guest.
func runScript(ctx context.Context, o options, file string, args []string) error {
	script, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	img, p, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	defer p.remove()
	p.addScripts()
	p.add("stage/script", 0o755, script)
	p.setMain("/stage/script", args)
	p.addAgent()
	return boot(ctx, o, img, p)
}

// runShell boots the guest with a shell on this terminal.
func runShell(ctx context.Context, o options) error {
	img, p, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	defer p.remove()
	p.addScripts()
	p.addShell()
	return bootShell(ctx, o, img, p)
}

// moduleRoot finds the top directory of the source tree.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if !filepath.IsAbs(mod) || mod == os.DevNull {
		return "", errors.New("not inside the source tree: change into it first")
	}
	return filepath.Dir(mod), nil
}
