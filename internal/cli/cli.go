// Package cli is the tools that people type to look at the daemons: stafctl
// and stacctl.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/spf13/cobra"

	"github.com/nvme-stas/stas/internal/logpage"
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
	columns            []column // of ls and status
	stdout             io.Writer
	output             string
}

// Stafctl runs stafctl with the arguments behind its name and returns the exit code.
func Stafctl(args []string, stdout, stderr io.Writer) int {
	t := &tool{
		name: "stafctl", daemon: "stafd", names: stasbus.Staf, columns: dcColumns, stdout: stdout,
		what: "Look at the NVMe-oF discovery controllers that stafd looks after",
	}
	return t.main(args, stderr)
}

// Stacctl runs stacctl with the arguments behind its name and returns the exit code.
func Stacctl(args []string, stdout, stderr io.Writer) int {
	t := &tool{
		name: "stacctl", daemon: "stacd", names: stasbus.Stac, columns: iocColumns, stdout: stdout,
		what: "Look at the NVMe-oF I/O controllers that stacd looks after",
	}
	return t.main(args, stderr)
}

// failure is an error of what a command did; all others are of its arguments.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

// errNoCommand ends a call without a command. It was told all it needs.
var errNoCommand = errors.New("no command")

func (t *tool) main(args []string, stderr io.Writer) int {
	cmd := t.command()
	cmd.SetArgs(args)
	cmd.SetOut(t.stdout)
	cmd.SetErr(stderr)
	err := cmd.Execute()
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

Tables are for people. Programs ask for "-o json", and get it without asking
when the output is not a terminal.`,
		Example:           fmt.Sprintf("  %[1]s ls\n  %[1]s status\n  %[1]s ls --detailed -o json", t.name),
		Version:           version.Version,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRunE: func(*cobra.Command, []string) (err error) {
			t.output, err = output.Format(t.output, t.stdout)
			return err
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cmd.Help(); err != nil {
				return failure{err}
			}
			return errNoCommand
		},
	}
	root.SetVersionTemplate(version.Product + " {{.Version}}\n")
	root.PersistentFlags().BoolP("version", "v", false, "print the version and do nothing else")
	root.PersistentFlags().StringVarP(&t.output, "output", "o", "", `"table" or "json" (default: table on a terminal, else json)`)
	root.AddCommand(t.ls(), t.status(), t.trace("tron", true), t.trace("troff", false))
	for _, cmd := range root.Commands() {
		cmd.Version = root.Version // "--version ls" is about the version
	}
	return root
}

func (t *tool) ls() *cobra.Command {
	var detailed bool
	cmd := &cobra.Command{
		Use:     "ls",
		Short:   "List the controllers",
		Example: fmt.Sprintf("  %s ls", t.name),
		Args:    cobra.NoArgs,
		RunE: t.ask(func(ctx context.Context, client *stasbus.Client) error {
			// A table shows what only the detailed list has.
			list, err := client.ListControllers(ctx, detailed || t.output == output.Table)
			if err != nil {
				return err
			}
			if t.output == output.JSON {
				return output.PrintJSON(t.stdout, list)
			}
			return t.printTable(list)
		}),
	}
	cmd.Flags().BoolVarP(&detailed, "detailed", "d", false, "with all that is known of each")
	return cmd
}

func (t *tool) status() *cobra.Command {
	return &cobra.Command{
		Use:     "status",
		Short:   "Show the state of the daemon and of its controllers",
		Example: fmt.Sprintf("  %s status", t.name),
		Args:    cobra.NoArgs,
		RunE: t.ask(func(ctx context.Context, client *stasbus.Client) error {
			text, err := client.ProcessInfo(ctx)
			if err != nil {
				return err
			}
			info := map[string]any{}
			if err := json.Unmarshal([]byte(text), &info); err != nil {
				return err
			}
			list, pages, err := t.details(ctx, client)
			if err != nil {
				return err
			}
			if t.output == output.Table {
				return t.printStatus(info, list)
			}
			controllers := make([]map[string]any, len(list))
			for i, c := range list {
				controllers[i] = make(map[string]any, len(c)+1)
				for k, v := range c {
					controllers[i][k] = v
				}
				if pages != nil {
					controllers[i]["log_pages"] = pages[i]
				}
			}
			info["controllers"] = controllers
			return output.PrintJSON(t.stdout, info)
		}),
	}
}

// details lists the controllers, with the log pages of discovery controllers.
func (t *tool) details(ctx context.Context, client *stasbus.Client) (list []stasbus.Dict, pages [][]logpage.Entry, err error) {
	if t.names != stasbus.Staf {
		list, err = client.ListControllers(ctx, true)
		return list, nil, err
	}
	all, err := client.GetAllLogPages(ctx, true)
	for _, p := range all {
		list = append(list, p.DiscoveryController)
		pages = append(pages, p.LogPages)
	}
	return list, pages, err
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
	return func(*cobra.Command, []string) error {
		client, err := stasbus.Dial(t.names)
		if err != nil {
			return failure{err}
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
		defer cancel()
		if err := talk(ctx, client); err != nil {
			return failure{t.explain(err)}
		}
		return nil
	}
}

// explain says what to do about an error.
func (t *tool) explain(err error) error {
	busError, ok := errors.AsType[dbus.Error](err)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s does not answer within %v; what it is doing is in: journalctl -u %[1]s", t.daemon, answerTimeout)
	case !ok:
		return err
	}
	switch busError.Name {
	case "org.freedesktop.DBus.Error.ServiceUnknown", "org.freedesktop.DBus.Error.NameHasNoOwner":
		return fmt.Errorf("%s does not run; start it with: systemctl start %[1]s", t.daemon)
	case "org.freedesktop.DBus.Error.AccessDenied":
		return fmt.Errorf("%w; that is for root only", err)
	}
	return fmt.Errorf("%s: %w", t.daemon, err)
}
