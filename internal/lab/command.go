package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/nvme-stas/stas/internal/daemon"
	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/version"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/target"
)

// Exit codes, as in the manual page.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// failure is an error of what a command did; all others are of its arguments.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// errNoCommand ends a call without a command. It was told all it needs.
var errNoCommand = errors.New("no command")

// Run runs stas-lab with the arguments behind its name, and returns the exit
// code: 0, 1 if something could not be done, 2 if the arguments make no sense.
func Run(args []string, stdout, stderr io.Writer) int {
	return (&tool{stdin: os.Stdin, stdout: stdout, stderr: stderr}).main(args)
}

// tool is what the commands have in common.
type tool struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	output         string
	control        string
}

func (t *tool) main(args []string) int {
	cmd := t.command()
	cmd.SetArgs(args)
	cmd.SetOut(t.stdout)
	cmd.SetErr(t.stderr)
	err := cmd.Execute()
	switch _, failed := errors.AsType[failure](err); {
	case err == nil:
		return exitOK
	case errors.Is(err, errNoCommand):
		return exitFailed
	case failed:
		fmt.Fprintf(t.stderr, "stas-lab: %v\n", err)
		return exitFailed
	}
	fmt.Fprintf(t.stderr, "stas-lab: %v\nTry: stas-lab --help\n", err)
	return exitUsage
}

// help is what a command does that only has commands below it.
func help(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	if err := cmd.Help(); err != nil {
		return failure{err}
	}
	return errNoCommand
}

func (t *tool) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "stas-lab",
		Short: "An NVMe/TCP target to test hosts with",
		Long: `An NVMe/TCP target to test hosts with: discovery controllers, direct and
central (CDC), with registration and zoning; storage in memory; and everything
that can go wrong, on command. It needs no privilege and no kernel module.

"stas-lab serve" runs one until it is stopped, "stas-lab ctl" changes it
meanwhile.`,
		Example: `  stas-lab serve --subsystems 3
  stas-lab ctl show connections
  stas-lab ctl fault add reset times=1`,
		Version:           version.Version,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Args:              cobra.ArbitraryArgs,
		RunE:              help,
	}
	root.SetVersionTemplate(version.Product + " {{.Version}}\n")
	root.Flags().BoolP("version", "v", false, "print the version")
	root.AddCommand(t.serve(), t.check(), t.example(), t.faults(), t.ctl())
	return root
}

// addOutput gives a command the option -o.
func (t *tool) addOutput(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVarP(&t.output, "output", "o", "", `"table" or "json" (default: table on a terminal, else json)`)
	cmd.PersistentPreRunE = func(*cobra.Command, []string) (err error) {
		t.output, err = output.Format(t.output, t.stdout)
		return err
	}
}

func (t *tool) addControl(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&t.control, "control", "", "path of the control socket (default: /run/stas-lab.sock of root, else $XDG_RUNTIME_DIR/stas-lab.sock)")
}

// quick is a lab that needs no file.
type quick struct {
	listen     []string
	kind       string
	nqn        string
	subsystems int
	size       target.Size
	announce   string
	logLevel   slog.Level
}

// quickNQN names the subsystems of a lab without a file; a number follows.
const quickNQN = "nqn.2026-01.org.example:lab"

func (q quick) config() *Config {
	cfg := &Config{LogLevel: q.logLevel}
	for i, address := range q.listen {
		l := Listener{Listener: target.Listener{
			Name: defaultName(i), Address: address,
			Discovery: target.Discovery{Type: target.DiscoveryType(q.kind), NQN: q.nqn},
		}}
		if q.announce != "" {
			l.Announce.Name = q.announce
			if i > 0 { // names have to differ
				l.Announce.Name = fmt.Sprintf("%s %d", q.announce, i+1)
			}
		}
		cfg.Listeners = append(cfg.Listeners, l)
	}
	for i := range q.subsystems {
		cfg.Subsystems = append(cfg.Subsystems, target.Subsystem{
			NQN: fmt.Sprint(quickNQN, i+1), Namespaces: []target.Namespace{{Size: q.size}},
		})
	}
	return cfg
}

func (t *tool) serve() *cobra.Command {
	q := quick{size: 64 << 20}
	cmd := &cobra.Command{
		Use:   "serve [FILE]",
		Short: "Run a lab until it is stopped",
		Long: `Run a lab until it is stopped by Ctrl-C, SIGTERM or "stas-lab ctl stop".

FILE says what it consists of; see stas-lab.yaml(5), and "stas-lab example" for
one. Without it the options do: one discovery controller for each address to
listen at, all with the same subsystems.

When everything is there, "stas-lab is ready" is printed, and systemd is told.`,
		Example: `  stas-lab serve --subsystems 3
  stas-lab serve --type cdc --listen 192.0.2.1:8009 --announce "lab CDC"
  stas-lab serve lab.yaml`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg := q.config()
			if len(args) > 0 {
				for _, name := range []string{"listen", "type", "nqn", "subsystems", "size", "announce"} {
					if cmd.Flags().Changed(name) {
						return fmt.Errorf("--%s and a file exclude each other; write it into the file", name)
					}
				}
				loaded, err := Load(args[0])
				if err != nil {
					return failure{err}
				}
				cfg = loaded
				if cmd.Flags().Changed("log-level") {
					cfg.LogLevel = q.logLevel
				}
			}
			var err error
			if cfg.Control, err = t.controlPath(cfg.Control); err != nil {
				return failure{err}
			}
			if err := t.run(cfg); err != nil {
				return failure{err}
			}
			return nil
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().StringSliceVar(&q.listen, "listen", []string{"127.0.0.1:8009"}, "`ADDRESS:PORT` to listen at; may be repeated; port 0 takes a free one")
	cmd.Flags().StringVar(&q.kind, "type", string(target.DDC), "of the discovery controllers: ddc, cdc, untyped or none")
	cmd.Flags().StringVar(&q.nqn, "nqn", "", "unique `NQN` of the discovery service")
	cmd.Flags().IntVar(&q.subsystems, "subsystems", 1, "how many subsystems, with one namespace each")
	cmd.Flags().TextVar(&q.size, "size", q.size, "`SIZE` of a namespace: 64MiB, 1GiB or bytes")
	cmd.Flags().StringVar(&q.announce, "announce", "", "announce the discovery service by mDNS under this `NAME`")
	cmd.Flags().TextVar(&q.logLevel, "log-level", q.logLevel, "debug, info, warn or error")
	t.addControl(cmd)
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"ddc", "cdc", "untyped", "none"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// controlPath is the socket that the command line names, or else that of the
// file, or else the default.
func (t *tool) controlPath(file string) (string, error) {
	switch {
	case t.control != "":
		return t.control, nil
	case file != "":
		return file, nil
	}
	return DefaultControl()
}

// run runs a lab until somebody stops it.
func (t *tool) run(cfg *Config) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	// Once it is stopping, a second signal ends the process at once.
	context.AfterFunc(ctx, stop)

	level := new(slog.LevelVar)
	level.Set(cfg.LogLevel)
	log := daemon.NewLogger(t.stderr, false, level)
	slog.SetDefault(log) // the mDNS library writes to the default
	lab, err := Start(cfg, log)
	if err != nil {
		return err
	}
	defer lab.Close()
	if err := t.welcome(lab, cfg.Control); err != nil {
		return err
	}
	supervisor := daemon.Supervisor{Log: log}
	supervisor.Ready("the lab is open")
	select {
	case <-ctx.Done():
	case <-lab.Stopped():
	}
	supervisor.Stopping()
	return nil
}

// welcome says where the lab is and what to type next.
func (t *tool) welcome(lab *Lab, control string) error {
	fmt.Fprintf(t.stdout, "%s %s\n\n", version.Product, version.Version)
	if err := output.PrintTable(t.stdout, listenerColumns, lab.Listeners()); err != nil {
		return err
	}
	fmt.Fprintf(t.stdout, "\nSubsystems: %d\n\nOn a host:\n", len(lab.Subsystems()))
	for _, l := range lab.Listeners() {
		if l.Discovery == target.NoDiscovery {
			continue
		}
		address, err := netip.ParseAddrPort(l.Address)
		if err != nil {
			return err
		}
		where := address.Addr().String()
		if address.Addr().IsUnspecified() {
			where = "ADDRESS" // any of this machine's
		}
		for _, verb := range []string{"discover", "connect-all"} {
			fmt.Fprintf(t.stdout, "  nvme %s -t tcp -a %s -s %d%s\n", verb, where, address.Port(), nqnOption(l.NQN))
		}
		break
	}
	ctl := "stas-lab ctl"
	if usual, err := DefaultControl(); err != nil || usual != control {
		ctl += " --control " + control
	}
	fmt.Fprintf(t.stdout, "\nHere:\n  %[1]s show connections\n  %[1]s fault add reset times=1\n  %[1]s --help\n\n"+
		"Ctrl-C or \"%[1]s stop\" ends it.\nstas-lab is ready\n", ctl)
	return nil
}

// nqnOption names the discovery service on the command line of nvme, if it is
// not that of the well-known name.
func nqnOption(nqn string) string {
	if nqn == nvme.WellKnownDiscoveryNQN {
		return ""
	}
	return " -n " + nqn
}

func (t *tool) check() *cobra.Command {
	return &cobra.Command{
		Use:   "check FILE",
		Short: "Tell what is wrong with a configuration file",
		Long: `Tell what is wrong with a configuration file: each mistake with its line, and
with what is allowed. Nothing is opened or changed.`,
		Example: "  stas-lab check lab.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			cfg, err := Load(args[0])
			if err != nil {
				return failure{err}
			}
			fmt.Fprintf(t.stdout, "%s is valid: listeners %d, subsystems %d, hosts %d, zone groups %d, faults %d\n", args[0],
				len(cfg.Listeners), len(cfg.Subsystems), len(cfg.Hosts), len(cfg.Zoning.Groups), len(cfg.Faults))
			return nil
		},
	}
}

func (t *tool) example() *cobra.Command {
	return &cobra.Command{
		Use:     "example",
		Short:   "Print a configuration file that explains every key",
		Example: "  stas-lab example >lab.yaml\n  stas-lab serve lab.yaml",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if _, err := io.WriteString(t.stdout, Example); err != nil {
				return failure{err}
			}
			return nil
		},
	}
}

func (t *tool) faults() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "faults",
		Short: "List the kinds of faults",
		Long: `List the kinds of faults: where in the life of a connection they strike, which
values they take, what the target does, and what a Linux host makes of it. They
are listed in the order of a connection's life.`,
		Example: "  stas-lab faults\n  stas-lab ctl fault add --help",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			kinds := target.Kinds()
			if t.output == output.Table {
				return failed(output.PrintTable(t.stdout, kindColumns, kinds))
			}
			var list []kindInfo
			for _, k := range kinds {
				list = append(list, kindInfo{k.Name, k.At, k.Takes, k.About})
			}
			return failed(output.PrintJSON(t.stdout, list))
		},
	}
	t.addOutput(cmd)
	return cmd
}

// kindInfo is a kind of fault in JSON.
type kindInfo struct {
	Name  string `json:"name"`
	At    string `json:"at"`
	Takes string `json:"takes"`
	About string `json:"about"`
}

// failed marks an error as one of what a command did.
func failed(err error) error {
	if err != nil {
		return failure{err}
	}
	return nil
}

// indent is a list as lines of a help text.
func indent(lines []string) string { return "  " + strings.Join(lines, "\n  ") }
