package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/godbus/dbus/v5"
	"github.com/spf13/cobra"

	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nvme"
)

var transports = []string{tid.TCP, tid.RDMA, tid.FC, tid.Loop}

func (t *tool) dlp() *cobra.Command {
	var id tid.TID
	cmd := &cobra.Command{
		Use:     "dlp",
		Short:   "Show the log page of one discovery controller",
		Example: fmt.Sprintf("  %s dlp -a 192.0.2.10 -s 8009", t.name),
		Args:    cobra.NoArgs,
		PreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains(transports, id.Transport) {
				return fmt.Errorf("there is no transport %q, only %s", id.Transport, strings.Join(transports, ", "))
			}
			return nil
		},
		RunE: t.ask(func(ctx context.Context, client *stasbus.Client) error {
			id, err := completeID(ctx, client, id)
			if err != nil {
				return err
			}
			if t.output == output.Python {
				entries, err := client.GetLogPages(ctx, id)
				if err != nil {
					return err
				}
				return t.printPython(entries)
			}
			return t.printPage(ctx, client, id)
		}),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&id.Transport, "transport", "t", tid.TCP, strings.Join(transports, ", "))
	f.StringVarP(&id.TrAddr, "traddr", "a", "", "address of the controller")
	f.StringVarP(&id.TrSvcID, "trsvcid", "s", "", "port of the controller")
	f.StringVarP(&id.HostTrAddr, "host-traddr", "w", "", "source address it is reached from")
	f.StringVarP(&id.HostIface, "host-iface", "f", "", "interface it is reached through")
	f.StringVarP(&id.HostNQN, "host-nqn", "q", "", "host NQN it is reached with (default: the host's)")
	f.StringVarP(&id.SubsysNQN, "nqn", "n", nvme.WellKnownDiscoveryNQN, "NQN of the controller")
	for _, name := range []string{"traddr", "trsvcid"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic(err) // there is no such flag
		}
	}
	complete(cmd, "transport", func() []string { return transports })
	for _, name := range []string{"traddr", "trsvcid", "host-traddr", "host-iface", "host-nqn"} {
		complete(cmd, name, func() []string { return t.live(name) })
	}
	complete(cmd, "nqn", func() []string { return t.live("subsysnqn") })
	return cmd
}

// printPage prints one log page. One that is not known is none.
func (t *tool) printPage(ctx context.Context, client *stasbus.Client, id tid.TID) error {
	page, err := client.LogPage(ctx, id)
	if busError, ok := errors.AsType[dbus.Error](err); ok && busError.Name == stasbus.UnknownController {
		if t.isTable() {
			return fmt.Errorf("stafd has no discovery controller %s of host NQN %s; stafctl ls -o wide shows those that it has", id, id.HostNQN)
		}
		return t.printPages([]stasbus.LogPage{})
	}
	if errors.Is(err, stasbus.ErrOldDaemon) {
		var pages []stasbus.LogPage
		pages, err = t.oldPages(ctx, client)
		pages = slices.DeleteFunc(pages, func(p stasbus.LogPage) bool { return tid.TID(p.ID) != id })
		if err != nil {
			return err
		}
		return t.printPages(pages)
	}
	if err != nil {
		return err
	}
	return t.printPages([]stasbus.LogPage{page})
}

func (t *tool) adlp() *cobra.Command {
	var detailed bool
	cmd := &cobra.Command{
		Use:     "adlp",
		Short:   "Show the log pages of all discovery controllers",
		Example: fmt.Sprintf("  %s adlp", t.name),
		Args:    cobra.NoArgs,
		RunE: t.ask(func(ctx context.Context, client *stasbus.Client) error {
			if t.output == output.Python {
				text, err := client.AllLogPagesText(ctx, detailed)
				if err != nil {
					return err
				}
				var pages any
				if err := decode(text, &pages); err != nil {
					return fmt.Errorf("get_all_log_pages: %w", err)
				}
				return t.printPython(pages)
			}
			pages, err := t.pages(ctx, client)
			if err != nil {
				return err
			}
			return t.printPages(pages)
		}),
	}
	cmd.Flags().BoolVarP(&detailed, "detailed", "d", false, "in the notation of nvme-stas 2.x: all that is known of each controller")
	return cmd
}

var entryColumns = []output.Column[logpage.Entry]{
	output.Col("SUBTYPE", func(e logpage.Entry) string { return e.SubType }),
	output.Col("ADDRESS", func(e logpage.Entry) string { return address(e.TrType, e.TrAddr, e.TrSvcID) }),
	output.Col("NQN", func(e logpage.Entry) string { return e.SubNQN }).Shrink(),
	output.Col("PORT", func(e logpage.Entry) string { return e.PortID }),
	output.Col("SECURITY", security),
	output.Col("FLAGS", entryFlags),
	output.Col("FAMILY", func(e logpage.Entry) string { return e.AdrFam }).Wide(),
	output.Col("CNTLID", func(e logpage.Entry) string { return e.CntlID }).Wide(),
	output.Col("ASQSZ", func(e logpage.Entry) string { return e.ASQSz }).Wide(),
}

// security is whether the entry demands a secure channel, and of which kind.
func security(e logpage.Entry) string {
	kind := strings.Trim(strings.TrimPrefix(e.TSAS, "{'sectype': "), "'{}")
	if (kind == "" || kind == "none") && e.TReq != "required" || e.TReq == "not required" {
		return ""
	}
	return strings.TrimSpace(kind + " " + e.TReq)
}

// The bits of EFLAGS (Base, Discovery Log Page Entry).
var flagNames = []string{"duplicate", "persistent", "not-connected"}

func entryFlags(e logpage.Entry) string {
	n := number(e.EFlags)
	var names []string
	for bit, name := range flagNames {
		if n&(1<<bit) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ",")
}

// printPages prints log pages, each below the line of its controller.
func (t *tool) printPages(pages []stasbus.LogPage) error {
	if !t.isTable() {
		return t.printData(struct {
			Version  int               `json:"version"`
			LogPages []stasbus.LogPage `json:"log-pages"`
		}{stasbus.ReportVersion, pages})
	}
	if len(pages) == 0 {
		_, err := fmt.Fprintf(t.stdout, "%s looks after no controllers.\n", t.daemon)
		return err
	}
	for i, p := range pages {
		if i > 0 {
			fmt.Fprintln(t.stdout)
		}
		fmt.Fprintf(t.stdout, "%s: %s\n", output.Clean(describeID(p.ID)), pageSummary(p.Known, len(p.Entries)))
		if len(p.Entries) == 0 {
			continue
		}
		if err := printTable(t, entryColumns, p.Entries); err != nil {
			return err
		}
	}
	return nil
}

// pageSummary says how many entries a page has, and whether these are all.
func pageSummary(known bool, n int) string {
	switch {
	case known:
		return count(n, "entry", "entries")
	case n == 0:
		return "not read yet"
	}
	return count(n, "entry", "entries") + ", perhaps not all"
}
