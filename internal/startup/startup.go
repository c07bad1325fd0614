// Package startup is the main program of the daemons: command line, checks
// that need no daemon, and the real world that the daemon is put into.
package startup

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/nvme-stas/stas/internal/blocking"
	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/internal/cmdline"
	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/daemon"
	"github.com/nvme-stas/stas/internal/exclusions"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/linux"
	"github.com/nvme-stas/stas/internal/mdns"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/stac"
	"github.com/nvme-stas/stas/internal/staf"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/udevrule"
	"github.com/nvme-stas/stas/internal/version"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// Exit codes, as in the manual pages.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// gcPercent makes the collector run from a heap of 1 MiB on, instead of 4.
const gcPercent = 25

// program is one of the daemons.
type program struct {
	name   conf.Daemon
	what   string
	names  stasbus.Names
	run    func(context.Context, service.Env) error
	paths  hostid.Paths
	tables string // directory of the boot tables
	host   host
}

// host is what the checks at start ask the host for.
type host struct {
	euid      func() int
	available func() error // what the kernel needs to connect anything
	udevRule  string       // where nvme-cli's udev rule is overridden
}

var thisHost = host{euid: os.Geteuid, available: linux.Available, udevRule: udevrule.DefaultPath}

// Stafd runs stafd with the arguments behind its name and returns the exit code.
func Stafd(args []string, stdout, stderr io.Writer) int {
	return stafd(thisHost).main(args, stdout, stderr)
}

// Stacd runs stacd with the arguments behind its name and returns the exit code.
func Stacd(args []string, stdout, stderr io.Writer) int {
	return stacd(thisHost).main(args, stdout, stderr)
}

func stafd(h host) program {
	return program{
		name: conf.Stafd, what: "find NVMe-oF discovery controllers and read their log pages", names: stasbus.Staf, paths: hostid.DefaultPaths, tables: boot.DefaultDir, host: h,
		run: func(ctx context.Context, env service.Env) error {
			env.Restart = stasbus.RestartUnit
			env.Tasks = append(env.Tasks, udevrule.Override{Path: h.udevRule, Log: env.Log}.Hold)
			d := staf.New(env)
			d.MDNS = func(mode conf.MDNS) mdns.Browser { return browser(mode, env.Log) }
			return d.Run(ctx)
		},
	}
}

// browser returns who browses in the way that the configuration asks for.
func browser(mode conf.MDNS, log *slog.Logger) mdns.Browser {
	embedded := mdns.NewEmbedded(func(text string) { log.Warn(text) })
	switch mode {
	case conf.MDNSAvahi:
		return mdns.Avahi{Log: log}
	case conf.MDNSEmbedded:
		return mdns.Steady(log, embedded)
	}
	return mdns.Auto(log, embedded)
}

func stacd(h host) program {
	return program{
		name: conf.Stacd, what: "connect the NVMe-oF I/O controllers that stafd finds", names: stasbus.Stac, paths: hostid.DefaultPaths, tables: boot.DefaultDir, host: h,
		run: func(ctx context.Context, env service.Env) error {
			return stac.New(env, stasbus.Feed{Log: env.Log}).Run(ctx)
		},
	}
}

// options are those of the command line.
type options struct {
	confFile string
	syslog   bool
	tron     bool
	version  bool
	help     bool
	check    bool
	restore  bool
}

func (p program) main(args []string, stdout, stderr io.Writer) int {
	if len(args) == 1 && args[0] == blocking.Arg {
		if err := blocking.Main(); err != nil {
			fmt.Fprintf(stderr, "%s: %v\n", p.name, err)
			return exitFailed
		}
		return exitOK
	}
	var o options
	flags := pflag.NewFlagSet(string(p.name), pflag.ContinueOnError)
	flags.SortFlags = false
	flags.StringVarP(&o.confFile, "conf-file", "f", "/etc/stas/"+string(p.name)+".conf", "configuration `FILE`")
	flags.BoolVarP(&o.syslog, "syslog", "s", false, "log to the journal instead of standard error")
	flags.BoolVar(&o.tron, "tron", false, "trace: log at level debug")
	flags.BoolVar(&o.check, "check-config", false, "say what is wrong with the configuration, and exit")
	if p.name == conf.Stafd {
		flags.BoolVar(&o.restore, "restore-udev-rule", false, "put nvme-cli's udev rule in force again, and exit")
	}
	flags.BoolVarP(&o.version, "version", "v", false, "print the version and exit")
	flags.BoolVarP(&o.help, "help", "h", false, "print this help and exit")
	flags.SetOutput(io.Discard) // usage and errors are printed here
	usage := func(w io.Writer) {
		fmt.Fprintf(w, "Usage: %s [options]\n\n%s: %s.\n\nOptions:\n%s\n", p.name, p.name, p.what, flags.FlagUsages())
		fmt.Fprintf(w, "It is meant to be started by systemd: systemctl start %[1]s\nSee also: man %[1]s, man %[1]s.conf\n", p.name)
	}
	args, err := cmdline.ExpandFlags(flags, args)
	if err == nil {
		err = flags.Parse(args)
	}
	switch {
	case err == nil && o.help:
		usage(stdout)
		return exitOK
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err != nil {
		usage(stderr)
		fmt.Fprintf(stderr, "\n%s: %v\n", p.name, err)
		return exitUsage
	}
	if o.version {
		// Two lines, as scripts that know nvme-stas 2.x expect.
		fmt.Fprintf(stdout, "%s %s\nlibnvme not used\n", version.Product, version.Version)
		return exitOK
	}
	if o.check {
		return p.checkConfig(o.confFile, flags.Changed("conf-file"), stdout, stderr)
	}
	if o.restore {
		if err := (udevrule.Override{Path: p.host.udevRule}).Restore(); err != nil {
			fmt.Fprintf(stderr, "%s: %v\n", p.name, err)
			return exitFailed
		}
		return exitOK
	}
	if err := p.check(); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", p.name, err)
		return exitFailed
	}
	level := new(slog.LevelVar)
	log := daemon.NewLogger(stderr, o.syslog, level)
	if err := p.start(o, log, level); err != nil {
		log.Error(fmt.Sprintf("%s ends: %v", p.name, err))
		return exitFailed
	}
	return exitOK
}

// check looks for what can never work.
func (p program) check() error {
	if p.host.euid() != 0 {
		return fmt.Errorf("only root can connect storage; run %s as root, or have systemd do it: systemctl start %[1]s", p.name)
	}
	// The unit has the module loaded while the daemon starts already.
	err := p.host.available()
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return err
	}
	for end := time.Now().Add(moduleWait); err != nil && time.Now().Before(end); err = p.host.available() {
		time.Sleep(modulePoll)
	}
	return err
}

// How long the kernel may take to load a module, and how often to look.
const (
	moduleWait = 10 * time.Second
	modulePoll = 20 * time.Millisecond
)

func (p program) start(o options, log *slog.Logger, level *slog.LevelVar) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// Once it is stopping, a second signal ends the process at once.
	context.AfterFunc(ctx, stop)

	// The daemons live long and do little: collect early, and stay small.
	debug.SetGCPercent(gcPercent)
	// One thread decides; those that wait in the kernel do not count. More would
	// only pass the work around.
	runtime.GOMAXPROCS(1)

	kernel, err := linux.Open(log, blocking.New(log))
	if err != nil {
		return err
	}
	log.Info(fmt.Sprintf("%s %s starts", p.name, version.Version))
	tables := boot.Source{Dir: p.tables, Links: kernel.Links}
	return p.run(ctx, service.Env{
		Kernel:     kernel,
		Bus:        stasbus.NewServer(p.names, log),
		State:      service.StateFile{Path: filepath.Join(runtimeDir(p.name), "state.json")},
		Supervisor: daemon.Supervisor{Log: log},
		Config: func() (*conf.Config, error) {
			cfg, issues, err := conf.Load(p.name, o.confFile)
			report(log, issues)
			return cfg, err
		},
		BootTables: func() boot.Tables {
			t, issues := tables.Read()
			report(log, issues)
			if len(t.Names) > 0 {
				log.Info("this host has boot tables of its firmware: " + strings.Join(t.Names, ", "))
			}
			return t
		},
		Identity: func(tables boot.Tables) (hostid.Identity, error) {
			identity, issues, err := hostid.Load(p.paths, others(tables, kernel.FS)...)
			report(log, issues)
			return identity, err
		},
		Candidate: func(text string) (service.Candidate, error) {
			return p.candidate(o.confFile, text, tables, kernel.FS)
		},
		Excluded: exclusions.New(exclusions.DefaultPath, log).Excludes,
		Reload:   reloads(),
		Log:      log,
		Level:    level,
		Tron:     o.tron,
	})
}

// candidateName stands for the file in complaints about a text.
const candidateName = "candidate"

// candidate reads what a reload would read, with a text in place of the main
// file, unless it is empty.
func (p program) candidate(file, text string, source boot.Source, sysfs *nvmesysfs.FS) (c service.Candidate, err error) {
	var found []conf.Issue
	if text == "" {
		c.Config, found, err = conf.Load(p.name, file)
	} else {
		c.Config, found, err = conf.LoadWith(p.name, file, candidateName, text)
	}
	if err == nil {
		var more []conf.Issue
		booted, _ := source.Read()
		c.Identity, more, err = hostid.Load(p.paths, others(booted, sysfs)...)
		found = append(found, more...)
	}
	for _, i := range found {
		c.Issues = append(c.Issues, i.String())
	}
	return c, err
}

// runtimeDir is where the state lives: it has to outlast the daemon, but not
// the kernel's connections.
func runtimeDir(name conf.Daemon) string {
	dirs := strings.Split(os.Getenv("RUNTIME_DIRECTORY"), ":")
	for _, dir := range dirs {
		if filepath.Base(dir) == string(name) { // the unit has others, in no special order
			return dir
		}
	}
	return cmp.Or(dirs[0], "/run/"+string(name))
}

// reloads receives each SIGHUP; those that come during a reload count as one.
func reloads() <-chan struct{} {
	signals, reload := make(chan os.Signal, 1), make(chan struct{}, 1)
	signal.Notify(signals, syscall.SIGHUP)
	go func() {
		for range signals {
			select {
			case reload <- struct{}{}:
			default:
			}
		}
	}()
	return reload
}

// others lists the host NQNs and IDs that are known besides the host's files:
// those of the boot tables, and those of the connections that exist.
func others(tables boot.Tables, sysfs *nvmesysfs.FS) []hostid.Pair {
	inUse := connected(sysfs)
	return append(tables.Pairs(inUse), inUse...)
}

// connected lists the host NQNs and IDs of the connections that exist.
func connected(sysfs *nvmesysfs.FS) []hostid.Pair {
	names, _ := sysfs.Names() // whoever looks after them will complain
	slices.Sort(names)
	var pairs []hostid.Pair
	for _, name := range names {
		nqn, _ := sysfs.Attr(name, "hostnqn") // local drives have none
		id, _ := sysfs.Attr(name, "hostid")
		pair := hostid.Pair{NQN: nqn, ID: id, From: name, InUse: true}
		if nqn != "" && !slices.ContainsFunc(pairs, func(p hostid.Pair) bool { return p.NQN == nqn && p.ID == id }) {
			pairs = append(pairs, pair)
		}
	}
	return pairs
}

// report logs what is wrong with a configuration that can be used.
func report(log *slog.Logger, issues []conf.Issue) {
	for _, i := range issues {
		level := slog.LevelInfo
		switch i.Severity {
		case conf.Warning:
			level = slog.LevelWarn
		case conf.Error:
			level = slog.LevelError
		}
		log.Log(context.Background(), level, i.String())
	}
}
