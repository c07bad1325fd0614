package lab

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/pkg/dhchap"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/target"
)

func (t *tool) ctl() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ctl",
		Short: "Look at a lab that runs, and change it",
		Long: `Look at a lab that runs, and change it. What is changed here lasts as long as
the lab runs; hosts are told by events, as the specification wants it.`,
		Example: `  stas-lab ctl show connections
  stas-lab ctl subsystem add nqn.2026-01.org.example:new --size 1GiB
  stas-lab ctl fault add status command=connect status=connect-invalid-host+dnr
  stas-lab ctl restart --pause 30s`,
		Args: cobra.ArbitraryArgs,
		RunE: help,
	}
	t.addOutput(cmd)
	t.addControl(cmd)
	cmd.AddCommand(
		t.show(), t.ctlListener(), t.ctlSubsystem(), t.ctlNamespace(), t.ana(), t.ctlZone(), t.ctlHost(), t.ctlFault(),
		t.restart(), t.aen(), t.stop(),
	)
	return cmd
}

// group makes a command that only has commands below it.
func group(use, short string, cmds ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, RunE: help}
	cmd.AddCommand(cmds...)
	return cmd
}

// leaf completes a command that makes a call. Its arguments are completed from
// lists, the last of which is for all that follow.
func (t *tool) leaf(cmd *cobra.Command, run func(c client, args []string) error, lists ...func() []string) *cobra.Command {
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		path, err := t.controlPath("")
		if err != nil {
			return failure{err}
		}
		return run(client{path}, args)
	}
	cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var words []string
		if len(lists) > 0 {
			if list := lists[min(len(args), len(lists)-1)]; list != nil {
				words = list()
			}
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// words is a list of fixed words for the completion.
func words(list ...string) func() []string { return func() []string { return list } }

// live lists what there is in the lab, for the completion: what asks for, by
// its names.
func live[T any](t *tool, what string, name func(T) string) func() []string {
	return func() []string {
		path, err := t.controlPath("")
		var all []T
		if err != nil || (client{path}).do(what, nil, &all) != nil {
			return nil // there is none that runs
		}
		var list []string
		for _, v := range all {
			list = append(list, name(v))
		}
		return list
	}
}

func (t *tool) listenerNames() []string {
	return live(t, "listeners", func(l ListenerInfo) string { return l.Name })()
}

func (t *tool) subsystemNQNs() []string {
	return live(t, "subsystems", func(s target.SubsystemInfo) string { return s.NQN })()
}

func (t *tool) hostNQNs() []string {
	return live(t, "hosts", func(h target.HostInfo) string { return h.NQN })()
}

func (t *tool) faultIDs() []string {
	return append(live(t, "faults", func(f target.FaultInfo) string { return strconv.Itoa(f.ID) })(), "all")
}

func (t *tool) zoneNames() []string {
	path, err := t.controlPath("")
	var zones zoningInfo
	if err != nil || (client{path}).do("zones", nil, &zones) != nil {
		return nil
	}
	var list []string
	for _, g := range zones.Groups {
		list = append(list, g.Name)
	}
	return list
}

// completeFlag completes the values of an option.
func completeFlag(cmd *cobra.Command, name string, list func() []string) {
	_ = cmd.RegisterFlagCompletionFunc(name, func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return list(), cobra.ShellCompDirectiveNoFileComp
	}) // fails only if there is no such option
}

// shows are what "ctl show" shows.
var shows = []struct {
	name, about string
	show        func(t *tool, c client) error
}{
	{"listeners", "where hosts connect", showList("listeners", listenerColumns)},
	{"subsystems", "the storage", showList("subsystems", subsystemColumns)},
	{"hosts", "that are connected, registered, configured or in a zone group", showList("hosts", hostColumns)},
	{"connections", "associations of hosts with controllers", showList("connections", connectionColumns)},
	{"zones", "who is told of what", (*tool).showZones},
	{"faults", "that are on", showList("faults", faultColumns)},
}

func showNames() []string {
	var list []string
	for _, s := range shows {
		list = append(list, s.name)
	}
	return list
}

func (t *tool) show() *cobra.Command {
	var lines []string
	for _, s := range shows {
		lines = append(lines, fmt.Sprintf("%-12s %s", s.name, s.about))
	}
	return t.leaf(&cobra.Command{
		Use:     "show WHAT",
		Short:   "Show what there is",
		Long:    "Show what there is:\n\n" + indent(lines),
		Example: "  stas-lab ctl show connections\n  stas-lab ctl show hosts -o json",
		Args:    cobra.ExactArgs(1),
	}, func(c client, args []string) error {
		for _, s := range shows {
			if s.name == args[0] {
				return s.show(t, c)
			}
		}
		return fmt.Errorf("there is no %q to show; there are %s", args[0], strings.Join(showNames(), ", "))
	}, words(showNames()...), nil)
}

// showList shows a list as it comes.
func showList[T any](what string, columns []output.Column[T]) func(*tool, client) error {
	return func(t *tool, c client) error {
		var list []T
		if err := c.do(what, nil, &list); err != nil {
			return err
		}
		if t.output == output.JSON {
			return failed(output.PrintJSON(t.stdout, list))
		}
		return t.printTable(what, len(list), func() error { return output.PrintTable(t.stdout, columns, list) })
	}
}

func (t *tool) printTable(what string, n int, print func() error) error {
	if n == 0 {
		_, err := fmt.Fprintf(t.stdout, "There are no %s.\n", what)
		return failed(err)
	}
	return failed(print())
}

func (t *tool) showZones(c client) error {
	var zones zoningInfo
	if err := c.do("zones", nil, &zones); err != nil {
		return err
	}
	if t.output == output.JSON {
		return failed(output.PrintJSON(t.stdout, zones))
	}
	switch {
	case !zones.Enabled:
		fmt.Fprintln(t.stdout, "Zoning is off: hosts are told of all subsystems.")
	default:
		fmt.Fprintln(t.stdout, "Zoning is on: hosts are told of what they share a zone with.")
	}
	if zones.Registered {
		fmt.Fprintln(t.stdout, "Hosts are told nothing before they have registered.")
	}
	fmt.Fprintln(t.stdout)
	return t.printTable("zones", len(zones.Groups), func() error { return output.PrintTable(t.stdout, zoneColumns, zones.Groups) })
}

func (t *tool) ctlListener() *cobra.Command {
	var l Listener
	var kind string
	add := t.leaf(&cobra.Command{
		Use:     "add ADDRESS:PORT",
		Short:   "Open a listener",
		Example: "  stas-lab ctl listener add 127.0.0.1:8010 --name second --type cdc",
		Args:    cobra.ExactArgs(1),
	}, func(c client, args []string) error {
		l.Address, l.Discovery.Type = args[0], target.DiscoveryType(kind)
		return c.do("add-listener", l, nil)
	}, nil)
	add.Flags().StringVar(&l.Name, "name", "", `of the listener (default "port1", "port2", ...)`)
	add.Flags().StringVar(&kind, "type", string(target.DDC), "of the discovery controllers: ddc, cdc, untyped or none")
	add.Flags().StringVar(&l.Discovery.NQN, "nqn", "", "unique `NQN` of the discovery service")
	add.Flags().StringVar(&l.Announce.Name, "announce", "", "announce it by mDNS under this `NAME`")
	add.Flags().StringVar(&l.Announce.Interface, "interface", "", "`INTERFACE` to announce it on (default: those that have the address)")
	remove := t.leaf(&cobra.Command{
		Use:     "remove NAME",
		Short:   "Close a listener and its connections",
		Example: "  stas-lab ctl listener remove second",
		Args:    cobra.ExactArgs(1),
	}, func(c client, args []string) error { return c.do("remove-listener", args[0], nil) }, t.listenerNames, nil)
	return group("listener", "Open and close listeners", add, remove)
}

func (t *tool) ctlSubsystem() *cobra.Command {
	var s target.Subsystem
	count, size := 1, target.Size(64<<20)
	var blockSize uint32
	add := t.leaf(&cobra.Command{
		Use:   "add NQN",
		Short: "Create a subsystem and offer it",
		Example: `  stas-lab ctl subsystem add nqn.2026-01.org.example:new --size 1GiB
  stas-lab ctl subsystem add nqn.2026-01.org.example:new --listener left --host nqn.2026-01.org.example:host1`,
		Args: cobra.ExactArgs(1),
	}, func(c client, args []string) error {
		s.NQN = args[0]
		for range count {
			s.Namespaces = append(s.Namespaces, target.Namespace{Size: size, BlockSize: blockSize})
		}
		return c.do("add-subsystem", s, nil)
	}, nil)
	add.Flags().StringSliceVar(&s.Listeners, "listener", nil, "listener `NAME` that offers it; may be repeated (default: all)")
	add.Flags().StringSliceVar(&s.Hosts, "host", nil, "host `NQN` that may connect; may be repeated (default: any)")
	add.Flags().IntVar(&count, "namespaces", count, "how many namespaces")
	add.Flags().TextVar(&size, "size", size, "`SIZE` of each")
	add.Flags().Uint32Var(&blockSize, "block-size", 512, "512 or 4096")
	add.Flags().StringVar(&s.Label, "label", "", "symbolic name in extended log page entries")
	add.Flags().BoolVar(&s.SinglePath, "single-path", false, "one controller, no multipath")
	add.Flags().IntVar(&s.Controllers, "controllers", 0, "how many may exist at a time; 0 is no limit")
	add.Flags().IntVar(&s.Queues, "queues", 8, "I/O queues that a controller grants")
	completeFlag(add, "listener", t.listenerNames)
	completeFlag(add, "host", t.hostNQNs)

	remove := t.leaf(&cobra.Command{
		Use:     "remove NQN",
		Short:   "Destroy a subsystem with its data; its controllers lose their connections",
		Example: "  stas-lab ctl subsystem remove nqn.2026-01.org.example:new",
		Args:    cobra.ExactArgs(1),
	}, func(c client, args []string) error { return c.do("remove-subsystem", args[0], nil) }, t.subsystemNQNs, nil)
	offer := t.leaf(&cobra.Command{
		Use:     "offer NQN [LISTENER]...",
		Short:   "Offer a subsystem on these listeners and no others, on all without any",
		Example: "  stas-lab ctl subsystem offer nqn.2026-01.org.example:new left",
		Args:    cobra.MinimumNArgs(1),
	}, func(c client, args []string) error { return c.do("offer-subsystem", offerArgs{args[0], args[1:]}, nil) }, t.subsystemNQNs, t.listenerNames)
	withdraw := t.leaf(&cobra.Command{
		Use:     "withdraw NQN",
		Short:   "Offer a subsystem nowhere; data and connections stay",
		Example: "  stas-lab ctl subsystem withdraw nqn.2026-01.org.example:new",
		Args:    cobra.ExactArgs(1),
	}, func(c client, args []string) error { return c.do("withdraw-subsystem", args[0], nil) }, t.subsystemNQNs, nil)
	allow := t.leaf(&cobra.Command{
		Use:     "allow NQN [HOST]...",
		Short:   "Let these hosts connect and no others, any without one",
		Example: "  stas-lab ctl subsystem allow nqn.2026-01.org.example:new nqn.2026-01.org.example:host1",
		Args:    cobra.MinimumNArgs(1),
	}, func(c client, args []string) error { return c.do("allow-hosts", allowArgs{args[0], args[1:]}, nil) }, t.subsystemNQNs, t.hostNQNs)
	ncc := t.leaf(&cobra.Command{
		Use:     "ncc NQN on|off",
		Short:   "Mark its log page entries: no connectivity to the CDC",
		Example: "  stas-lab ctl subsystem ncc nqn.2026-01.org.example:new on",
		Args:    cobra.ExactArgs(2),
	}, func(c client, args []string) error {
		on, err := parseSwitch(args[1])
		if err != nil {
			return err
		}
		return c.do("set-ncc", nccArgs{args[0], on}, nil)
	}, t.subsystemNQNs, words("on", "off"), nil)
	return group("subsystem", "Add, offer, withdraw and remove storage", add, offer, withdraw, allow, ncc, remove)
}

func parseSwitch(text string) (bool, error) {
	switch text {
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	return false, fmt.Errorf("%q is neither on nor off", text)
}

func (t *tool) ctlNamespace() *cobra.Command {
	n := target.Namespace{Size: 64 << 20}
	add := t.leaf(&cobra.Command{
		Use:     "add NQN",
		Short:   "Give a subsystem one more namespace",
		Example: "  stas-lab ctl namespace add nqn.2026-01.org.example:lab1 --size 1GiB",
		Args:    cobra.ExactArgs(1),
	}, func(c client, args []string) error {
		return c.do("add-namespace", namespaceArgs{args[0], n}, nil)
	}, t.subsystemNQNs, nil)
	add.Flags().Uint32Var(&n.ID, "id", 0, "namespace ID (default: the next)")
	add.Flags().TextVar(&n.Size, "size", n.Size, "`SIZE` of it")
	add.Flags().Uint32Var(&n.BlockSize, "block-size", 512, "512 or 4096")
	add.Flags().Uint32Var(&n.ANAGroup, "ana-group", 1, "ANA group")
	remove := t.leaf(&cobra.Command{
		Use:     "remove NQN ID",
		Short:   "Take a namespace away with its data",
		Example: "  stas-lab ctl namespace remove nqn.2026-01.org.example:lab1 2",
		Args:    cobra.ExactArgs(2),
	}, func(c client, args []string) error {
		id, err := parseUint[uint32](32)(args[1])
		if err != nil {
			return err
		}
		return c.do("remove-namespace", namespaceArgs{args[0], target.Namespace{ID: id}}, nil)
	}, t.subsystemNQNs, nil)
	return group("namespace", "Add and remove namespaces", add, remove)
}

func (t *tool) ana() *cobra.Command {
	var a target.ANA
	cmd := t.leaf(&cobra.Command{
		Use:   "ana NQN STATE",
		Short: "Set the ANA state of a group of namespaces",
		Long: `Set the ANA state of a group of namespaces as the controllers of one listener, or
of all, see it: optimized, non-optimized, inaccessible, persistent-loss or
change.`,
		Example: "  stas-lab ctl ana nqn.2026-01.org.example:lab1 inaccessible --listener port1",
		Args:    cobra.ExactArgs(2),
	}, func(c client, args []string) error {
		if err := a.State.UnmarshalText([]byte(args[1])); err != nil {
			return fmt.Errorf("%w; there are %s", err, strings.Join(anaStates, ", "))
		}
		return c.do("set-ana", anaArgs{args[0], a}, nil)
	}, t.subsystemNQNs, words(anaStates...), nil)
	cmd.Flags().StringVar(&a.Listener, "listener", "", "only at this listener (default: at all)")
	cmd.Flags().Uint32Var(&a.Group, "group", 1, "ANA group")
	completeFlag(cmd, "listener", t.listenerNames)
	return cmd
}

var anaStates = strings.Split(joined([]nvme.ANAState{
	nvme.ANAOptimized, nvme.ANANonOptimized, nvme.ANAInaccessible, nvme.ANAPersistentLoss, nvme.ANAChange,
}), ", ")

func (t *tool) ctlZone() *cobra.Command {
	var g target.ZoneGroup
	set := t.leaf(&cobra.Command{
		Use:     "set NAME",
		Short:   "Add a zone group, or replace the one of that name",
		Example: "  stas-lab ctl zone set production --host nqn.2026-01.org.example:host1 --subsystem nqn.2026-01.org.example:lab1",
		Args:    cobra.ExactArgs(1),
	}, func(c client, args []string) error {
		g.Name = args[0]
		return c.do("set-zone", g, nil)
	}, t.zoneNames, nil)
	set.Flags().StringSliceVar(&g.Hosts, "host", nil, "host `NQN` in it; may be repeated")
	set.Flags().StringSliceVar(&g.Subsystems, "subsystem", nil, "subsystem `NQN` in it; may be repeated")
	completeFlag(set, "host", t.hostNQNs)
	completeFlag(set, "subsystem", t.subsystemNQNs)
	remove := t.leaf(&cobra.Command{
		Use:     "remove NAME",
		Short:   "Remove a zone group",
		Example: "  stas-lab ctl zone remove production",
		Args:    cobra.ExactArgs(1),
	}, func(c client, args []string) error { return c.do("remove-zone", args[0], nil) }, t.zoneNames, nil)
	on := t.leaf(&cobra.Command{
		Use: "on", Short: "Tell hosts only of what they share a zone group with", Args: cobra.NoArgs,
	}, func(c client, _ []string) error { return c.do("set-zoning", zoningArgs{Enabled: new(true)}, nil) })
	off := t.leaf(&cobra.Command{
		Use: "off", Short: "Tell hosts of all subsystems", Args: cobra.NoArgs,
	}, func(c client, _ []string) error { return c.do("set-zoning", zoningArgs{Enabled: new(false)}, nil) })
	registered := t.leaf(&cobra.Command{
		Use:     "registered on|off",
		Short:   "Tell hosts of subsystems only after they have registered, or at once",
		Example: "  stas-lab ctl zone registered on",
		Args:    cobra.ExactArgs(1),
	}, func(c client, args []string) error {
		want, err := parseSwitch(args[0])
		if err != nil {
			return err
		}
		return c.do("set-zoning", zoningArgs{Registered: &want}, nil)
	}, words("on", "off"), nil)
	return group("zone", "Say who is told of what", set, remove, on, off, registered)
}

func (t *tool) ctlHost() *cobra.Command {
	var h hostArgs
	var keyFile, ctrlKeyFile string
	h.Hash = dhchap.SHA256
	set := t.leaf(&cobra.Command{
		Use:   "set NQN",
		Short: "Tell the target about a host, in place of what it knew",
		Long: `Tell the target about a host, in place of what it knew: its DH-HMAC-CHAP keys. A
host with a key has to authenticate itself to connect storage. Keys come from
files, of which the first line counts, or from standard input if the file is
"-"; never from the command line, which others can see.`,
		Example: `  nvme gen-dhchap-key | sed 's/.*: //' | stas-lab ctl host set nqn.2026-01.org.example:host1 --key-file -
  stas-lab ctl host set nqn.2026-01.org.example:host1 --key-file host1.key`,
		Args: cobra.ExactArgs(1),
	}, func(c client, args []string) (err error) {
		h.NQN = args[0]
		if keyFile == "-" && ctrlKeyFile == "-" {
			return errors.New("only one of the keys can come from standard input")
		}
		if h.Key, err = t.readKey(keyFile); err != nil {
			return failure{err}
		}
		if h.CtrlKey, err = t.readKey(ctrlKeyFile); err != nil {
			return failure{err}
		}
		return c.do("set-host", h, nil)
	}, t.hostNQNs, nil)
	set.Flags().StringVar(&keyFile, "key-file", "", "`FILE` with the key of the host")
	set.Flags().StringVar(&ctrlKeyFile, "ctrl-key-file", "", "`FILE` with the key of the controllers, for a host that wants to know them, too")
	set.Flags().TextVar(&h.Hash, "hash", h.Hash, joined(dhchap.Hashes()))
	set.Flags().TextVar(&h.Group, "group", h.Group, joined(dhchap.Groups()))
	remove := t.leaf(&cobra.Command{
		Use:     "remove NQN",
		Short:   "Forget a host: its keys, and what it has registered",
		Example: "  stas-lab ctl host remove nqn.2026-01.org.example:host1",
		Args:    cobra.ExactArgs(1),
	}, func(c client, args []string) error { return c.do("remove-host", args[0], nil) }, t.hostNQNs, nil)
	return group("host", "Give hosts keys, and forget them", set, remove)
}

// readKey reads a key from a file or from standard input, and checks it here,
// where the file can be named. It returns the text, which only the control
// socket is told.
func (t *tool) readKey(path string) (string, error) {
	var key dhchap.Key
	var err error
	switch path {
	case "":
	case "-":
		if key, err = readKey(t.stdin); err != nil {
			err = fmt.Errorf("standard input: %w", err)
		}
	default:
		key, err = readKeyFile(path)
	}
	if err != nil {
		return "", fmt.Errorf("%w; make a key with: nvme gen-dhchap-key", err)
	}
	return key.Reveal(), nil
}

func (t *tool) ctlFault() *cobra.Command {
	add := t.leaf(&cobra.Command{
		Use:   "add KIND [KEY=VALUE]...",
		Short: "Make the target do something wrong from now on",
		Long: `Make the target do something wrong from now on. "stas-lab faults" lists the kinds
and which of these values they take:

` + indent(faultKeyHelp()),
		Example: `  stas-lab ctl fault add reset times=1
  stas-lab ctl fault add status command=connect status=connect-invalid-host+dnr
  stas-lab ctl fault add delay delay=2s command=get-log-page lid=0x70
  stas-lab ctl fault add aen every=10ms times=1000`,
		Args: cobra.MinimumNArgs(1),
	}, func(c client, args []string) error {
		f, err := parseFault(args)
		if err != nil {
			return err
		}
		var result faultResult
		if err := c.do("add-fault", f, &result); err != nil {
			return err
		}
		if t.output == output.JSON {
			return failed(output.PrintJSON(t.stdout, result))
		}
		_, err = fmt.Fprintf(t.stdout, "Fault %d is on; end it by: stas-lab ctl fault remove %[1]d\n", result.ID)
		return failed(err)
	}, faultKinds, faultKeyWords)
	remove := t.leaf(&cobra.Command{
		Use:     "remove ID... | all",
		Short:   "End faults; what they did to connections stays done",
		Example: "  stas-lab ctl fault remove 1 2\n  stas-lab ctl fault remove all",
		Args:    cobra.MinimumNArgs(1),
	}, func(c client, args []string) error {
		if len(args) == 1 && args[0] == "all" {
			return c.do("clear-faults", nil, nil)
		}
		var ids []int
		for _, arg := range args {
			id, err := strconv.Atoi(arg)
			if err != nil {
				return fmt.Errorf("%q is neither the number of a fault nor all", arg)
			}
			ids = append(ids, id)
		}
		for _, id := range ids {
			if err := c.do("remove-fault", id, nil); err != nil {
				return err
			}
		}
		return nil
	}, t.faultIDs)
	return group("fault", "Make the target do something wrong, and end it", add, remove)
}

func faultKinds() []string {
	var list []string
	for _, k := range target.Kinds() {
		list = append(list, k.Name+"\t"+k.About)
	}
	return list
}

func faultKeyWords() []string {
	var list []string
	for _, k := range faultKeys {
		list = append(list, k.name+"=\t"+k.about)
	}
	return list
}

func (t *tool) restart() *cobra.Command {
	pause := 5 * time.Second
	cmd := t.leaf(&cobra.Command{
		Use:   "restart [LISTENER]",
		Short: "End all connections, and listen again after a pause",
		Long: `End all connections of a listener, or of all, and listen again after a pause. In
between connections are refused, as by a machine whose target has died, and the
listener is not announced.`,
		Example: "  stas-lab ctl restart --pause 30s\n  stas-lab ctl restart left",
		Args:    cobra.MaximumNArgs(1),
	}, func(c client, args []string) error {
		return c.do("restart", restartArgs{strings.Join(args, ""), target.Duration(pause)}, nil)
	}, t.listenerNames, nil)
	cmd.Flags().DurationVar(&pause, "pause", pause, "how long nobody listens")
	return cmd
}

func (t *tool) aen() *cobra.Command {
	var a aenArgs
	event := nvme.DiscoveryLogChanged.String()
	cmd := t.leaf(&cobra.Command{
		Use:   "aen",
		Short: "Send an asynchronous event, whether there is a reason or not",
		Long: fmt.Sprintf(`Send an asynchronous event, whether there is a reason or not. Events of the
discovery log go to discovery controllers, all others to I/O controllers. A host
that waits for none cannot be told.

  %s  the discovery log has changed
  %s  namespaces have changed
  %s  ANA states have changed`, nvme.DiscoveryLogChanged, nvme.NamespaceChanged, nvme.ANAChanged),
		Example: "  stas-lab ctl aen\n  stas-lab ctl aen --event " + nvme.NamespaceChanged.String(),
		Args:    cobra.NoArgs,
	}, func(c client, _ []string) error {
		parsed, err := nvme.ParseAEN(event)
		if err != nil {
			return err
		}
		a.AEN = uint32(parsed)
		var result aenResult
		if err := c.do("send-aen", a, &result); err != nil {
			return err
		}
		if t.output == output.JSON {
			return failed(output.PrintJSON(t.stdout, result))
		}
		_, err = fmt.Fprintf(t.stdout, "Controllers whose hosts were told: %d\n", result.Told)
		return failed(err)
	})
	cmd.Flags().StringVar(&a.Listener, "listener", "", "only at this listener (default: at all)")
	cmd.Flags().StringVar(&a.Host, "host", "", "only this host (default: all)")
	cmd.Flags().StringVar(&event, "event", event, "the event")
	completeFlag(cmd, "listener", t.listenerNames)
	completeFlag(cmd, "host", t.hostNQNs)
	return cmd
}

func (t *tool) stop() *cobra.Command {
	return t.leaf(&cobra.Command{
		Use:     "stop",
		Short:   "End the lab",
		Example: "  stas-lab ctl stop",
		Args:    cobra.NoArgs,
	}, func(c client, _ []string) error { return c.do("stop", nil, nil) })
}
