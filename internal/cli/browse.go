package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/stasbus"
)

// followPause is how often "browse --follow" looks for changes.
const followPause = time.Second

func (t *tool) browse() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "browse",
		Short: "Show what is announced by mDNS, and what becomes of it",
		Long: `Show what is announced by mDNS: by whom, where it is seen, whether it answers,
and why it is connected, or is not.`,
		Example: "  stafctl browse\n  stafctl browse --follow",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if follow {
				return t.follow()
			}
			return t.ask(func(ctx context.Context, client *stasbus.Client) error {
				b, err := askBrowse(ctx, client)
				if err != nil {
					return err
				}
				if t.output == output.JSON || t.output == output.YAML {
					return t.printData(b)
				}
				return t.printBrowse(b)
			})(cmd, args)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on, and print what changes")
	return cmd
}

func askBrowse(ctx context.Context, client *stasbus.Client) (stasbus.Browse, error) {
	b, err := client.Browse(ctx)
	if errors.Is(err, stasbus.ErrOldDaemon) {
		err = errors.New("stafd is that of nvme-stas 2.x, which does not tell; what it knows is behind \"avahi\" in: stafctl status -o json")
	}
	return b, err
}

// seen is a row of a table: an address of a service on an interface.
type seen struct {
	*stasbus.Announcement
	*stasbus.AnnouncedAddress // nil: it has none
	via                       string
	now                       time.Time
}

// rows are what is announced, what comes by both protocols together.
func rows(b stasbus.Browse) []seen {
	var all []seen
	for i := range b.Services {
		s := &b.Services[i]
		add := func(a *stasbus.AnnouncedAddress) {
			at := slices.IndexFunc(all, func(o seen) bool {
				return o.Instance == s.Instance && o.Type == s.Type && o.Iface == s.Iface && o.Port == s.Port && o.Confirmed == s.Confirmed &&
					o.Wrong == s.Wrong && slices.Equal(o.TXT, s.TXT) && (a == nil) == (o.AnnouncedAddress == nil) && (a == nil || o.Address == a.Address)
			})
			if at >= 0 {
				all[at].via += ", " + s.Family
				return
			}
			all = append(all, seen{s, a, s.Family, b.Time})
		}
		for j := range s.Addresses {
			add(&s.Addresses[j])
		}
		if len(s.Addresses) == 0 {
			add(nil)
		}
	}
	return all
}

var browseColumns = []output.Column[seen]{
	output.Col("INSTANCE", func(s seen) string { return s.Instance }).Shrink(),
	output.Col("IFACE", func(s seen) string { return s.Iface }),
	output.Col("VIA", func(s seen) string { return s.via }).Rank(3),
	output.Col("ADDRESS", seenAddress),
	output.Col("NQN", seenNQN).Shrink().Rank(2),
	output.Col("ANSWERS", seenAnswers),
	output.Col("STATE", seenState).Shrink(),
	output.Col("HOST", func(s seen) string { return s.Host }).Wide(),
	output.Col("TYPE", func(s seen) string { return s.Type }).Wide(),
	output.Col("TXT", func(s seen) string { return strings.Join(s.TXT, " ") }).Wide(),
	output.Col("SINCE", func(s seen) string { return duration(s.now.Sub(s.Since)) }).Wide(),
}

func seenAddress(s seen) string {
	if s.AnnouncedAddress == nil {
		return ""
	}
	transport := ""
	if s.ID != nil {
		transport = s.ID.Transport
	}
	return address(transport, s.Address, fmt.Sprint(s.Port))
}

func seenNQN(s seen) string {
	if s.AnnouncedAddress == nil || s.ID == nil {
		return ""
	}
	return s.ID.SubsysNQN
}

// seenAnswers is whether a target answered when it was last asked. Nothing is
// asked that is not wanted.
func seenAnswers(s seen) string {
	if s.AnnouncedAddress == nil || s.Controller == nil {
		return ""
	}
	switch c := s.Controller; {
	case c.Device != "" && (c.State == "live" || c.State == "connected"):
		return "yes"
	case c.Device != "":
		return "no"
	case c.Probe == nil:
		return ""
	case c.Probe.Answered:
		return "yes"
	}
	return "no"
}

// seenState is why it is connected, or is not.
func seenState(s seen) string {
	var text string
	switch {
	case s.Wrong != "":
		text = "of no use: " + s.Wrong
	case s.AnnouncedAddress == nil:
		text = "it has no address"
	case s.Controller != nil:
		text = connection(row{s.Controller, s.now})
	case s.Refused != "":
		text = "not connected: " + s.Refused
	default:
		text = "about to be connected"
	}
	if !s.Confirmed {
		text += " (not heard of at present)"
	}
	return text
}

// connection is what there is of the connection to a controller.
func connection(r row) string {
	switch {
	case r.Device != "" && (r.State == "live" || r.State == "connected"):
		return "connected as " + r.Device
	case r.Device != "":
		return r.Device + " is " + r.State
	case r.State == "connecting":
		return "connecting"
	}
	text := "not connected"
	if why := lastError(r); why != "" {
		text += ": " + why
	}
	if next := nextTry(r); next != "" {
		text += ", next try " + next
	}
	return text
}

func (t *tool) printBrowse(b stasbus.Browse) error {
	if note := listening(b); note != "" {
		fmt.Fprintln(t.stdout, note)
	}
	all := rows(b)
	if len(all) == 0 {
		if b.Listening {
			fmt.Fprintln(t.stdout, "Nothing is announced on the links of this host.")
		}
		return nil
	}
	return printTable(t, browseColumns, all)
}

// listening says why there may be more than is known.
func listening(b stasbus.Browse) string {
	switch {
	case b.Mode == stasbus.Disabled:
		return "stafd does not browse: zeroconf=disabled in stafd.conf."
	case !b.Listening && b.Mode == "avahi":
		return "Nobody listens: stafd is to browse by Avahi (mdns=avahi), which does not run; systemctl status avahi-daemon."
	case !b.Listening:
		return "Nobody listens at present; why: journalctl -u stafd."
	}
	return ""
}

// change is one that "browse --follow" tells of.
type change struct {
	Time    time.Time             `json:"time"`
	Change  string                `json:"change"`
	Service *stasbus.Announcement `json:"service,omitempty"`
	// Mode and Listening are told with the change "browsing".
	Mode      string `json:"mode,omitempty"`
	Listening *bool  `json:"listening,omitempty"`
}

const (
	appeared = "added"
	changed  = "changed"
	vanished = "removed"
	browsing = "browsing"
)

// follow prints what changes until it is interrupted.
func (t *tool) follow() error {
	client, err := stasbus.Dial(t.names)
	if err != nil {
		return failure{err}
	}
	defer client.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	for last := (stasbus.Browse{}); ; {
		asking, cancel := context.WithTimeout(ctx, t.timeout)
		b, err := askBrowse(asking, client)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return failure{t.advise(err)}
		}
		for _, c := range changes(last, b) {
			if err := t.printChange(c); err != nil {
				return failure{err}
			}
		}
		last = b
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followPause):
		}
	}
}

// changes are what is in one answer and was not in the one before.
func changes(before, now stasbus.Browse) []change {
	var all []change
	if before.Mode != now.Mode || before.Listening != now.Listening {
		all = append(all, change{Time: now.Time, Change: browsing, Mode: now.Mode, Listening: &now.Listening})
	}
	type key struct{ iface, family, kind, instance string }
	keyOf := func(s *stasbus.Announcement) key { return key{s.Iface, s.Family, s.Type, s.Instance} }
	was := make(map[key]*stasbus.Announcement)
	for i := range before.Services {
		was[keyOf(&before.Services[i])] = &before.Services[i]
	}
	for i := range now.Services {
		s := &now.Services[i]
		old := was[keyOf(s)]
		delete(was, keyOf(s))
		switch {
		case old == nil:
			all = append(all, change{Time: now.Time, Change: appeared, Service: s})
		case !reflect.DeepEqual(essence(old), essence(s)):
			all = append(all, change{Time: now.Time, Change: changed, Service: s})
		}
	}
	for i := range before.Services {
		if s := &before.Services[i]; was[keyOf(s)] != nil {
			all = append(all, change{Time: now.Time, Change: vanished, Service: s})
		}
	}
	return all
}

// essence is what makes a change of a service worth telling: attempts come and
// go.
func essence(s *stasbus.Announcement) stasbus.Announcement {
	e := *s
	e.Addresses = slices.Clone(e.Addresses)
	for i := range e.Addresses {
		if c := e.Addresses[i].Controller; c != nil {
			kept := stasbus.Controller{ID: c.ID, Device: c.Device, State: c.State}
			if kept.State == "connecting" && kept.Device == "" {
				kept.State = "waiting"
			}
			if c.Connect != nil {
				kept.Connect = &stasbus.Failure{Error: c.Connect.Error}
			}
			e.Addresses[i].Controller = &kept
		}
	}
	return e
}

func (t *tool) printChange(c change) error {
	switch t.output {
	case output.JSON:
		text, err := json.Marshal(c)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(t.stdout, "%s\n", text)
		return err
	case output.YAML:
		fmt.Fprintln(t.stdout, "---")
		return t.printData(c)
	}
	at := c.Time.Local().Format(time.TimeOnly)
	if c.Service == nil {
		note := listening(stasbus.Browse{Mode: c.Mode, Listening: *c.Listening})
		if note == "" {
			note = "stafd browses (mdns=" + c.Mode + ")."
		}
		_, err := fmt.Fprintf(t.stdout, "%s %s\n", at, output.Clean(note))
		return err
	}
	for _, r := range rows(stasbus.Browse{Time: c.Time, Services: []stasbus.Announcement{*c.Service}}) {
		text := fmt.Sprintf("%-7s %q on %s by %s", c.Change, r.Instance, r.Iface, r.via)
		if where := seenAddress(r); where != "" {
			text += " at " + where
		}
		if c.Change != vanished {
			text += ": " + seenState(r)
		}
		if _, err := fmt.Fprintf(t.stdout, "%s %s\n", at, output.Clean(text)); err != nil {
			return err
		}
	}
	return nil
}
