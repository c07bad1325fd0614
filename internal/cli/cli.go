// Package cli is the tools that people type to look at the daemons: stafctl
// and stacctl.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/spf13/cobra"

	"github.com/nvme-stas/stas/internal/cmdline/tree"
	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/version"
)

// Exit codes, as in the manual pages.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// answerTimeout is how long a daemon may take to answer.
const answerTimeout = 25 * time.Second

// tool is one of the two tools.
type tool struct {
	name, daemon, what string
	names              stasbus.Names
	discovery          bool // stafctl
	columns            []column
	stdout             io.Writer
	output             string // format
	timeout            time.Duration
}

// Stafctl runs stafctl with the arguments behind its name and returns the exit code.
func Stafctl(args []string, stdout, stderr io.Writer) int {
	return newStafctl(stdout).main(args, stderr)
}

// Stacctl runs stacctl with the arguments behind its name and returns the exit code.
func Stacctl(args []string, stdout, stderr io.Writer) int {
	return newStacctl(stdout).main(args, stderr)
}

func newStafctl(stdout io.Writer) *tool {
	return &tool{
		name: "stafctl", daemon: "stafd", names: stasbus.Staf, discovery: true, columns: dcColumns, stdout: stdout, timeout: answerTimeout,
		what: "Look at the NVMe-oF discovery controllers that stafd looks after",
	}
}

func newStacctl(stdout io.Writer) *tool {
	return &tool{
		name: "stacctl", daemon: "stacd", names: stasbus.Stac, columns: iocColumns, stdout: stdout, timeout: answerTimeout,
		what: "Look at the NVMe-oF I/O controllers that stacd looks after",
	}
}

// failure is an error of what a command did; all others are of its arguments.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// errNoCommand ends a call without a command. It was told all it needs.
var errNoCommand = errors.New("no command")

func (t *tool) main(args []string, stderr io.Writer) int {
	cmd := t.command()
	cmd.SetOut(t.stdout)
	cmd.SetErr(stderr)
	args, err := tree.Expand(cmd, args)
	if err == nil {
		cmd.SetArgs(args)
		err = cmd.Execute()
	}
	switch _, failed := errors.AsType[failure](err); {
	case err == nil:
		return exitOK
	case errors.Is(err, errNoCommand):
		return exitFailed
	case failed:
		fmt.Fprintf(stderr, "%s: %v\n", t.name, err)
		return exitFailed
	}
	fmt.Fprintf(stderr, "%s: %v\nTry: %[1]s --help\n", t.name, err)
	return exitUsage
}

func (t *tool) command() *cobra.Command {
	root := &cobra.Command{
		Use:   t.name,
		Short: t.what,
		Long: t.what + `.

Tables are for people; programs ask for "-o json". When the output is not a
terminal, and nothing is asked for, it is what nvme-stas 2.x prints.`,
		Example:           fmt.Sprintf("  %[1]s ls\n  %[1]s explain nvme3\n  %[1]s status -o json", t.name),
		Version:           version.Version,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRunE: func(*cobra.Command, []string) error { return t.checkOutput() },
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmd.Help(); err != nil {
				return failure{err}
			}
			return errNoCommand
		},
	}
	root.SetVersionTemplate(version.Product + " {{.Version}}\n")
	root.PersistentFlags().BoolP("version", "v", false, "print the version and do nothing else")
	root.PersistentFlags().StringVarP(&t.output, "output", "o", "", "format: "+formatNames()+" (default: table on a terminal, else python)")
	complete(root, "output", func() []string { return formats })
	root.AddCommand(t.ls(), t.status(), t.explain(), t.plan(), t.trace("tron", true), t.trace("troff", false))
	if t.discovery {
		root.AddCommand(t.dlp(), t.adlp(), t.browse())
	} else {
		root.AddCommand(t.disconnect(), t.hold(), t.release())
	}
	for _, cmd := range root.Commands() {
		cmd.Version = root.Version // "--version ls" is about the version
	}
	return root
}

func (t *tool) ls() *cobra.Command {
	var detailed, asTree bool
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List the controllers",
		Example: fmt.Sprintf("  %[1]s ls\n  %[1]s ls -o wide", t.name),
		Args:    cobra.NoArgs,
		PreRun: func(cmd *cobra.Command, _ []string) {
			if asTree && !cmd.Flags().Changed("output") {
				t.output = output.Table // nvme-stas 2.x has no trees
			}
		},
		RunE: t.ask(func(ctx context.Context, client *stasbus.Client) error {
			if t.output == output.Python {
				list, err := client.ListControllers(ctx, detailed)
				if err != nil {
					return err
				}
				return t.printPython(list)
			}
			r, err := t.report(ctx, client)
			if err != nil {
				return err
			}
			if t.isTable() && asTree && len(r.Controllers) > 0 {
				return t.printTree(r)
			}
			if t.isTable() {
				return t.printControllers(r, detailed)
			}
			return t.printData(struct {
				Version     int                  `json:"version"`
				Controllers []stasbus.Controller `json:"controllers"`
			}{r.Version, r.Controllers})
		}),
	}
	cmd.Flags().BoolVarP(&detailed, "detailed", "d", false, "all that is known of each")
	if t.discovery {
		cmd.Flags().BoolVar(&asTree, "tree", false, "show who refers to whom")
	}
	return cmd
}

func (t *tool) status() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show the state of the daemon and of its controllers",
		Example: fmt.Sprintf("  %s status", t.name),
		Args:    cobra.NoArgs,
		RunE: t.ask(func(ctx context.Context, client *stasbus.Client) error {
			if t.output == output.Python {
				info, err := t.oldStatus(ctx, client)
				if err != nil {
					return err
				}
				return t.printPython(info)
			}
			r, err := t.report(ctx, client)
			if err != nil {
				return err
			}
			if t.isTable() {
				return t.printStatus(r)
			}
			return t.printData(r)
		}),
	}
}

func (t *tool) trace(use string, on bool) *cobra.Command {
	what := "Stop tracing: have the daemon log at level info again (root only)"
	if on {
		what = "Start tracing: have the daemon log at level debug (root only)"
	}
	return &cobra.Command{
		Use:   use,
		Short: what,
		Args:  cobra.NoArgs,
		RunE: t.ask(func(ctx context.Context, client *stasbus.Client) error {
			if err := client.SetTron(ctx, on); err != nil {
				return err
			}
			now, err := client.Tron(ctx)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(t.stdout, "tron = %s\n", stasbus.Bool(now))
			return err
		}),
	}
}

// ask makes a command of a conversation with the daemon.
func (t *tool) ask(talk func(context.Context, *stasbus.Client) error) func(*cobra.Command, []string) error {
	return t.askAbout(func(ctx context.Context, client *stasbus.Client, _ []string) error { return talk(ctx, client) })
}

// askAbout is ask for commands with arguments.
func (t *tool) askAbout(talk func(context.Context, *stasbus.Client, []string) error) func(*cobra.Command, []string) error {
	return func(_ *cobra.Command, args []string) error {
		client, err := stasbus.Dial(t.names)
		if err != nil {
			return failure{err}
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), t.timeout)
		defer cancel()
		if err := talk(ctx, client, args); err != nil {
			return failure{t.advise(err)}
		}
		return nil
	}
}

// advise says what to do about an error.
func (t *tool) advise(err error) error {
	busError, ok := errors.AsType[dbus.Error](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer within %v; what it is doing: systemctl status %[1]s; if it hangs: systemctl restart %[1]s "+
			"(connections stay)", t.daemon, t.timeout)
	case !ok:
		return err
	}
	switch busError.Name {
	case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner":
		return fmt.Errorf("%s does not run; start it with: systemctl start %[1]s", t.daemon)
	case "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Disconnected":
		return fmt.Errorf("%s ended before it answered; why: systemctl status %[1]s", t.daemon)
	case "org.freedesktop.DBus.Error.AccessDenied":
		return fmt.Errorf("%w; that is for root only", err)
	}
	return fmt.Errorf("%s: %w", t.daemon, err)
}
