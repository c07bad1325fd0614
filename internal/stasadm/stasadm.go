// Package stasadm is the command stasadm: it gives the host its identity, that
// is, it writes sys.conf and the files that sys.conf refers to; and it shows the
// tables of the firmware that booted the host.
package stasadm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/nvme-stas/stas/internal/cmdline/tree"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/version"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// Run runs stasadm with the arguments behind its name, and returns the exit
// code: 0, 1 if something could not be done, 2 if the arguments make no sense.
func Run(args []string, stdout, stderr io.Writer) int {
	return run(args, stdout, stderr, hostid.DefaultSources, bootTables)
}

func run(args []string, stdout, stderr io.Writer, sources hostid.Sources, bootTables string) int {
	a := &admin{sources: sources, bootTables: bootTables, stderr: stderr}
	cmd := a.command()
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	args, err := tree.Expand(cmd, args)
	if err == nil {
		cmd.SetArgs(args)
		err = cmd.Execute()
	}
	switch _, failed := errors.AsType[failure](err); {
	case err == nil:
		return exitOK
	case errors.Is(err, errTold):
		return exitFailed
	case failed:
		fmt.Fprintf(stderr, "stasadm: %v\n", err)
		return exitFailed
	}
	fmt.Fprintf(stderr, "stasadm: %v\nTry: stasadm --help\n", err)
	return exitUsage
}

// failure is an error of what a command did; all others are of its arguments.
type failure struct{ error }

// errTold ends a call that failed and has told all about it, or one without a
// command, which got help.
var errTold = errors.New("told")

// admin holds what the commands have in common.
type admin struct {
	sources    hostid.Sources
	bootTables string // pattern of file names
	stderr     io.Writer
	sysConf    string
	file       string
	force      bool
}

func (a *admin) command() *cobra.Command {
	root := &cobra.Command{
		Use:   "stasadm",
		Short: "Give this host its NVMe-oF identity",
		Long: `Give this host its NVMe-oF identity: the host NQN and the host ID by which
storage knows it, and a symbolic name for people.

The identity is kept in sys.conf, or in files of their own that sys.conf refers
to. Other tools look for the host NQN and ID in /etc/nvme, so that is the best
place for them. It is meant to last as long as the host: storage gives access
to a host by its NQN.

The daemons read the identity when they start and when they are reloaded.

A host that was booted from NVMe over Fabrics got its storage under the identity
that its firmware has; "stasadm nbft show" shows it.`,
		Example: `  stasadm hostnqn -f /etc/nvme/hostnqn
  stasadm hostid -f /etc/nvme/hostid
  stasadm set-symname "Database server 1"
  stasadm nbft show`,
		Version:           version.Version,
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE:              help,
	}
	root.SetVersionTemplate(version.Product + " {{.Version}}\n")
	root.Flags().BoolP("version", "v", false, "print the version")
	root.PersistentFlags().StringVarP(&a.sysConf, "conf-file", "c", hostid.DefaultPaths.SysConf, `the sys.conf to edit; "" for none`)
	root.AddCommand(
		a.newHostNQN(),
		a.newHostID(),
		a.setSymName(),
		a.clearSymName(),
		a.nbft(),
	)
	return root
}

// help is what a command does that wants another one behind it.
func help(cmd *cobra.Command, _ []string) error {
	if err := cmd.Help(); err != nil {
		return failure{err}
	}
	return errTold
}

func (a *admin) newHostNQN() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hostnqn",
		Short: "Create the host NQN",
		Long: `Create the host NQN, and note in sys.conf where it is.

The NQN is derived from /etc/machine-id, or else from the UUID that the firmware
has for the machine or its partition: the same host always gets the same one.
Only if there is nothing to derive it from, it is a random one.`,
		Example: "  stasadm hostnqn -f /etc/nvme/hostnqn",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			nqn, random, err := hostid.NewNQN(a.sources)
			if err != nil {
				return failure{err}
			}
			if random {
				fmt.Fprintln(a.stderr, "stasadm: this machine has no ID to derive a host NQN from, so it is a random one")
			}
			return a.store(hostid.KeyNQN, "host NQN", nqn, true)
		},
	}
	a.addFile(cmd, "NQN")
	a.addForce(cmd)
	return cmd
}

func (a *admin) newHostID() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "hostid",
		Short:   "Create the host ID",
		Long:    "Create the host ID, a random UUID, and note in sys.conf where it is.",
		Example: "  stasadm hostid -f /etc/nvme/hostid",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return a.store(hostid.KeyID, "host ID", hostid.NewID(), true)
		},
	}
	a.addFile(cmd, "ID")
	a.addForce(cmd)
	return cmd
}

func (a *admin) setSymName() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set-symname SYMNAME",
		Short: "Set the symbolic name",
		Long: `Set the symbolic name of this host, a text for people to read in the register of
a discovery controller.`,
		Example: `  stasadm set-symname "Database server 1"`,
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := strings.TrimSpace(args[0])
			if strings.ContainsFunc(name, unicode.IsControl) || strings.HasPrefix(name, hostid.FilePrefix) {
				return fmt.Errorf("%q cannot be a symbolic name: it has to be one line of text, and no %s reference", name, hostid.FilePrefix)
			}
			return a.store(hostid.KeySymName, "symbolic name", name, false)
		},
	}
	a.addFile(cmd, "name")
	return cmd
}

func (a *admin) clearSymName() *cobra.Command {
	return &cobra.Command{
		Use:   "clear-symname",
		Short: "Remove the symbolic name",
		Long:  "Remove the symbolic name from sys.conf. A file that it was in stays as it is.",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := a.clear(hostid.KeySymName); err != nil {
				return failure{err}
			}
			return nil
		},
	}
}

func (a *admin) addFile(cmd *cobra.Command, what string) {
	cmd.Flags().StringVarP(&a.file, "file", "f", "", "write the "+what+" to this file, and its path to sys.conf")
}

func (a *admin) addForce(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.force, "force", false, "replace another value that is there")
}

// store writes a value where the command line wants it. A lasting one does not
// take the place of another, unless forced. Nothing is written before it is
// certain that all can be.
func (a *admin) store(key, what, value string, lasting bool) error {
	if err := a.tryStore(key, what, value, lasting); err != nil {
		return failure{err}
	}
	return nil
}

func (a *admin) tryStore(key, what, value string, lasting bool) error {
	sys, err := openSysConf(a.sysConf)
	if err != nil {
		return err
	}
	reference := value
	if a.file != "" {
		if reference, err = referenceTo(a.file); err != nil {
			return err
		}
	}
	if lasting && !a.force {
		if err := a.checkOthers(sys, key, what, value); err != nil {
			return err
		}
	}
	if a.file != "" {
		if err := writeFile(a.file, value+"\n"); err != nil {
			return fmt.Errorf("writing the %s: %w", what, err)
		}
	}
	return sys.save(sys.with(key, reference))
}

// checkOthers finds a different value in the file to be written, or in use.
func (a *admin) checkOthers(sys *sysConf, key, what, value string) error {
	places := []string{sys.value(key)}
	if a.file != "" {
		places = append(places, hostid.FilePrefix+a.file)
	}
	for _, place := range places {
		old, where := place, sys.path
		if path, ok := strings.CutPrefix(place, hostid.FilePrefix); ok {
			text, err := readWord(path)
			if err != nil {
				return err
			}
			old, where = text, path
		}
		if old != "" && old != value {
			return fmt.Errorf("%s has a %s already: %s; storage knows the host by it, so it is kept (--force replaces it)", where, what, old)
		}
	}
	return nil
}

func (a *admin) clear(key string) error {
	sys, err := openSysConf(a.sysConf)
	if err != nil {
		return err
	}
	return sys.save(sys.without(key))
}

// explain adds what to do about an error.
func explain(err error) error {
	if errors.Is(err, os.ErrPermission) && os.Geteuid() != 0 {
		return fmt.Errorf("%w; run this as root", err)
	}
	return err
}
