package stasadm

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/pkg/nbft"
)

// bootTables are the tables of the host.
const bootTables = boot.DefaultDir + "/NBFT*"

func (a *admin) nbft() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nbft",
		Short: "Look at the boot tables (NBFT)",
		Long: `Look at the NVMe Boot Firmware Tables (NBFT), in which the firmware of a host
that boots from NVMe over Fabrics says who it was to the storage, and what it
connected, through which interfaces.`,
		Args: cobra.NoArgs,
		RunE: help,
	}
	cmd.AddCommand(a.nbftShow())
	return cmd
}

func (a *admin) nbftShow() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "show [FILE...]",
		Short: "Show boot tables",
		Long: `Show the boot tables of this host, or those in the files. A host that was not
booted from NVMe over Fabrics has none, which is no error.

What a table says that makes no sense is reported, and the rest of it shown.
Only root may read the tables of the host.

Tables are for people. Programs ask for "-o json", and get it without asking
when the output is not a terminal.`,
		Example: `  stasadm nbft show
  stasadm nbft show -o json
  stasadm nbft show copy-of-a-table.bin`,
		RunE: func(cmd *cobra.Command, files []string) error {
			stdout := cmd.OutOrStdout()
			switch output {
			case "table", "json":
			case "":
				output = "json"
				if isTerminal(stdout) {
					output = "table"
				}
			default:
				return fmt.Errorf("there is no output %q, only table and json", output)
			}
			return a.showTables(stdout, files, output == "json")
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", `"table" or "json" (default: table on a terminal, else json)`)
	return cmd
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != ""
}

// bootTable is a table and the file it is in.
type bootTable struct {
	Filename string `json:"filename"`
	*nbft.Table
}

// showTables shows all tables that can be read, and fails if one cannot.
func (a *admin) showTables(w io.Writer, files []string, asJSON bool) error {
	if len(files) == 0 {
		var err error
		if files, err = filepath.Glob(a.bootTables); err != nil {
			return failure{err}
		}
		if len(files) == 0 {
			fmt.Fprintf(a.stderr, "stasadm: this host has no NBFT (no %s): it was not booted from NVMe over Fabrics, or its firmware does not tell\n", a.bootTables)
		}
	}
	tables, result := []bootTable{}, error(nil)
	for _, name := range files {
		t, err := boot.ReadTable(name)
		if err != nil {
			fmt.Fprintf(a.stderr, "stasadm: %v\n", explain(err))
			result = errTold
			continue
		}
		for _, p := range t.Problems {
			fmt.Fprintf(a.stderr, "stasadm: %s: %v\n", name, p)
		}
		tables = append(tables, bootTable{name, t})
	}
	var text bytes.Buffer
	if asJSON {
		enc := json.NewEncoder(&text)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(tables); err != nil {
			return failure{err}
		}
	} else {
		for i, t := range tables {
			if i > 0 {
				text.WriteByte('\n')
			}
			t.print(&text)
		}
	}
	if _, err := w.Write(text.Bytes()); err != nil {
		return failure{err}
	}
	return result
}

// cell is what a table shows below a title.
type cell struct{ title, text string }

// print is the form for people.
func (t bootTable) print(w io.Writer) {
	h := t.Header
	fmt.Fprintf(w, "%s: NBFT %d.%d by %s\n\n", t.Filename, h.Major, h.Minor, cmp.Or(strings.TrimSpace(h.OEMID+" "+h.OEMTableID), "nobody"))
	t.printHost(w)
	printList(w, t.HFIs, t.hfiCells)
	printList(w, t.Discovery, t.discoveryCells)
	printList(w, t.Subsystems, t.subsystemCells)
	printList(w, t.Security, securityCells)
	if len(t.HFIs)+len(t.Discovery)+len(t.Subsystems)+len(t.Security) == 0 {
		fmt.Fprintln(w, "\nThe table names no interfaces and no controllers.")
	}
}

func (t bootTable) printHost(w io.Writer) {
	configured := map[bool]string{true: " (configured)", false: " (default of the firmware)"}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	id := t.Identity()
	if id.NQN != "" {
		fmt.Fprintf(tw, "Host NQN:\t%s%s\n", id.NQN, configured[id.NQNConfigured])
	}
	for i, spelling := range id.IDs {
		switch i {
		case 0:
			fmt.Fprintf(tw, "Host ID:\t%s%s\n", spelling, configured[id.IDConfigured])
		default:
			fmt.Fprintf(tw, "\t%s (in the other byte order)\n", spelling)
		}
	}
	if p := t.Host.Primary; p != nbft.PrimaryNotIndicated {
		fmt.Fprintf(tw, "As identity:\t%v\n", p)
	}
	_ = tw.Flush() // to memory
}

func (t bootTable) hfiCells(h nbft.HFI) []cell {
	ip := ""
	if set(h.IP) != "" {
		ip = fmt.Sprintf("%v/%d", h.IP, h.Prefix)
	}
	return []cell{
		{"HFI", strconv.Itoa(int(h.Index))},
		{"PCI", h.PCI.String()},
		{"MAC", h.MAC.String()},
		{"VLAN", unlessZero(h.VLAN)},
		{"ADDRESS", ip},
		{"ORIGIN", h.IPOrigin.String()},
		{"GATEWAY", set(h.Gateway)},
		{"METRIC", unlessZero(h.RouteMetric)},
		{"DNS", joined(set(h.PrimaryDNS), set(h.SecondaryDNS))},
		{"DHCP", set(h.DHCPServer)},
		{"HOST NAME", h.HostName},
		{"FLAGS", flags(
			flag{"default-route", h.DefaultRoute}, flag{"dhcp", h.DHCP}, flag{"autoconf", h.Autoconf},
		)},
	}
}

func (t bootTable) discoveryCells(d nbft.Discovery) []cell {
	return []cell{
		{"DISCOVERY", strconv.Itoa(int(d.Index))},
		{"URI", d.URI},
		{"HFI", t.hfis(d.HFI)},
		{"SECURITY", t.security(d.Security)},
		{"NQN", d.NQN},
	}
}

func (t bootTable) subsystemCells(s nbft.Subsystem) []cell {
	dc := ""
	if s.Discovery != 0 {
		dc = strconv.Itoa(int(t.Discovery[s.Discovery-1].Index))
	}
	return []cell{
		{"NAMESPACE", strconv.Itoa(int(s.Index))},
		{"ADDRESS", s.TrType.String() + " " + net.JoinHostPort(s.TrAddr.String(), s.TrSvcID)},
		{"HFI", t.hfis(s.HFIs...)},
		{"DISCOVERY", dc},
		{"SECURITY", t.security(s.Security)},
		{"CNTLID", unlessZero(s.CntlID)},
		{"NSID", unlessZero(s.NSID)},
		{"NID", s.NID},
		{"FLAGS", flags(
			flag{"non-bootable", s.NonBootable}, flag{"discovered", s.Discovered}, flag{s.Availability.String(), s.Availability != 0},
			flag{"header-digest", s.HdrDigest}, flag{"data-digest", s.DataDigest}, flag{"dhcp-root-path", s.FromRootPath},
		)},
		{"NQN", s.NQN},
	}
}

func securityCells(s nbft.Security) []cell {
	return []cell{
		{"SECURITY", strconv.Itoa(int(s.Index))},
		{"AUTHENTICATION", s.InBandAuth.String()},
		{"PROTOCOLS", list(s.AuthProtocols)},
		{"HASHES", list(s.HashFunctions)},
		{"DH GROUPS", list(s.DHGroups)},
		{"SECURE CHANNEL", s.SecureChannel.String()},
		{"SECTYPES", list(s.ChannelAlgorithms)},
		{"CIPHERS", list(s.CipherSuites)},
		{"KEY PATH", s.KeyPath},
	}
}

// hfis names interfaces by the indexes that the firmware gave them.
func (t bootTable) hfis(refs ...nbft.Ref) string {
	var all []string
	for _, r := range refs {
		if h := t.HFI(r); h != nil {
			all = append(all, strconv.Itoa(int(h.Index)))
		}
	}
	return joined(all...)
}

func (t bootTable) security(r nbft.Ref) string {
	if r == 0 {
		return ""
	}
	return strconv.Itoa(int(t.Table.Security[r-1].Index))
}

// set is an address that is one; firmwares write zeros for none.
func set(ip netip.Addr) string {
	if !ip.IsValid() || ip.IsUnspecified() {
		return ""
	}
	return ip.String()
}

func unlessZero[T uint16 | uint32](n T) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}

type flag struct {
	name string
	set  bool
}

func flags(all ...flag) string {
	var names []string
	for _, f := range all {
		if f.set {
			names = append(names, f.name)
		}
	}
	return joined(names...)
}

func list(ids nbft.IDs) string {
	var all []string
	for _, id := range ids {
		all = append(all, strconv.Itoa(int(id)))
	}
	return joined(all...)
}

// joined is the words that are there, with commas between them.
func joined(words ...string) string {
	var b strings.Builder
	for _, word := range words {
		if word != "" && b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(word)
	}
	return b.String()
}

// printList shows a list as a table. A column that no line has anything for
// only takes room. All texts can be printed: decoding sees to that.
func printList[T any](w io.Writer, list []T, cells func(T) []cell) {
	if len(list) == 0 {
		return
	}
	lines := make([][]cell, len(list))
	var used []bool
	for i, entry := range list {
		lines[i] = cells(entry)
		used = append(used, make([]bool, len(lines[i])-len(used))...)
		for j, c := range lines[i] {
			used[j] = used[j] || c.text != ""
		}
	}
	fmt.Fprintln(w)
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	print := func(cells []cell, text func(cell) string) {
		var row []string
		for j, c := range cells {
			if used[j] {
				row = append(row, text(c))
			}
		}
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	print(lines[0], func(c cell) string { return c.title })
	for _, l := range lines {
		print(l, func(c cell) string { return cmp.Or(c.text, "-") })
	}
	_ = tw.Flush() // to memory
}
