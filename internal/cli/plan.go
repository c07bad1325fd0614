package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/stasbus"
)

// maxPlanFile is what a daemon takes of a configuration, in bytes.
const maxPlanFile = 1 << 20

func (t *tool) plan() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show what a reload would connect, disconnect and change, and why (root only)",
		Long: fmt.Sprintf(`Show what a reload of %s would connect, disconnect and change, and why.
Nothing is changed. What discovery would find afterwards is not foreseen.`, t.daemon),
		Example: fmt.Sprintf("  %[1]s plan\n  %[1]s plan -f new.conf", t.name),
		Args:    cobra.NoArgs,
		RunE: t.ask(func(ctx context.Context, client *stasbus.Client) error {
			text, err := candidate(file)
			if err != nil {
				return err
			}
			p, err := client.Plan(ctx, text)
			if errors.Is(err, stasbus.ErrOldDaemon) {
				return fmt.Errorf("%s is one that cannot plan", t.daemon)
			}
			if err != nil {
				return err
			}
			if t.isTable() {
				return t.printPlan(p)
			}
			return t.printData(p)
		}),
	}
	cmd.Flags().StringVarP(&file, "conf-file", "f", "", "a configuration `FILE` to be tried in place of the daemon's")
	return cmd
}

// candidate reads a file. One that says nothing is told apart from none.
func candidate(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPlanFile+1))
	switch {
	case err != nil:
		return "", err
	case len(text) > maxPlanFile:
		return "", fmt.Errorf("%s has more than %d bytes", file, maxPlanFile)
	case len(text) == 0:
		return "\n", nil
	}
	return string(text), nil
}

var planColumns = []output.Column[stasbus.Step]{
	output.Col("ACTION", func(s stasbus.Step) string { return s.Action }),
	output.Col("DEVICE", func(s stasbus.Step) string { return s.Device }),
	output.Col("ADDRESS", func(s stasbus.Step) string { return address(s.Transport, s.TrAddr, s.TrSvcID) }),
	output.Col("IFACE", func(s stasbus.Step) string { return s.HostIface }).Rank(5),
	output.Col("NQN", func(s stasbus.Step) string { return s.SubsysNQN }).Shrink(),
	output.Col("CHANGES", planChanges).Shrink(),
	output.Col("WHY", func(s stasbus.Step) string { return s.Why }).Shrink(),
	output.Col("HOST NQN", func(s stasbus.Step) string { return s.HostNQN }).Wide(),
}

// planChanges are the parameters that change, and when that counts.
func planChanges(s stasbus.Step) string {
	var all []string
	for _, c := range s.Changes {
		text := c.Parameter
		if c.Was != "" || c.Becomes != "" {
			text += " " + orDefault(c.Was) + " -> " + orDefault(c.Becomes)
		}
		if !c.AtOnce {
			text += " (next connect)"
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

func orDefault(value string) string {
	if value == "" {
		return "default"
	}
	return value
}

func (t *tool) printPlan(p stasbus.Plan) error {
	var b strings.Builder
	for _, i := range p.Issues {
		fmt.Fprintln(&b, output.Clean(i))
	}
	switch {
	case p.Refused != "":
		fmt.Fprintf(&b, "A reload would change nothing: %s.\n", output.Clean(strings.TrimSuffix(p.Refused, ".")))
	case len(p.Steps) == 0:
		fmt.Fprintf(&b, "A reload would change nothing for %s.\n", count(p.Unchanged, "controller", "controllers"))
	default:
		if p.Doubtful {
			fmt.Fprintln(&b, "Something of the configuration is ignored or not known, so it takes no connection away.")
		}
		if b.Len() > 0 {
			fmt.Fprintln(&b)
		}
		if _, err := io.WriteString(t.stdout, b.String()); err != nil {
			return err
		}
		if err := printTable(t, planColumns, p.Steps); err != nil {
			return err
		}
		b.Reset()
		fmt.Fprintf(&b, "\nNothing changes for %s.\n", count(p.Unchanged, "controller", "controllers"))
	}
	_, err := io.WriteString(t.stdout, b.String())
	return err
}
