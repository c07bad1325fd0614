package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/stasbus"
)

// This file has the commands with which operators take controllers into their
// own hands.

func (t *tool) disconnect() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "disconnect DEVICE",
		Short: "Disconnect a controller, and hold it (root only)",
		Long: `Disconnect a controller and hold it: without that it would come back at once.
It comes back with "release".

What is in use stays connected, unless --force is given: I/O that is under way
fails then, and file systems are lost until the storage is back.`,
		Example: fmt.Sprintf("  %[1]s disconnect nvme3\n  %[1]s release nvme3", t.name),
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return t.live("device"), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: t.askAbout(func(ctx context.Context, client *stasbus.Client, args []string) error {
			d, err := client.Disconnect(ctx, args[0], force)
			if err != nil {
				return err
			}
			if t.isData() {
				return t.printData(d)
			}
			done := "is disconnected"
			if d.Pending {
				done = "is being disconnected; its target does not answer, so that takes the kernel a while"
			}
			return t.say("%s (%s) %s, and held until: %s release %[1]s", d.Device, describeID(d.ID), done, t.name)
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "also what is in use, or what the host was booted from")
	return cmd
}

func (t *tool) hold() *cobra.Command {
	var duration time.Duration
	cmd := &cobra.Command{
		Use:   "hold NQN|ADDRESS",
		Short: "Neither connect nor disconnect some controllers (root only)",
		Long: `Leave all controllers of a subsystem, or those at an address, as they are:
nothing connects or disconnects them until they are released. An address may
have a port. A hold outlasts restarts of the daemon; "status" lists all.`,
		Example: fmt.Sprintf("  %[1]s hold nqn.2014-08.org.example:a --for 2h\n  %[1]s hold 192.0.2.1:4420\n  %[1]s hold '[2001:db8::1]:4420'", t.name),
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return t.live("subsysnqn", "traddr"), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: t.askAbout(func(ctx context.Context, client *stasbus.Client, args []string) error {
			h, err := client.Hold(ctx, args[0], duration)
			if err != nil {
				return err
			}
			if t.isData() {
				return t.printData(h)
			}
			return t.say("%s is held %s.", h.Name, heldUntil(h, time.Now()))
		}),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("for") && duration < time.Second {
				return fmt.Errorf("--for %v: a second or more is needed", duration)
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&duration, "for", 0, `how long, such as "2h" or "30m" (default: until released)`)
	return cmd
}

func (t *tool) release() *cobra.Command {
	return &cobra.Command{
		Use:     "release NQN|ADDRESS|DEVICE",
		Short:   "End a hold (root only)",
		Long:    `End a hold, by the name that it was given, or by that of a controller that "disconnect" holds.`,
		Example: fmt.Sprintf("  %[1]s release nqn.2014-08.org.example:a\n  %[1]s release nvme3", t.name),
		Args:    cobra.ExactArgs(1),
		RunE: t.askAbout(func(ctx context.Context, client *stasbus.Client, args []string) error {
			released, err := client.Release(ctx, args[0])
			if err != nil {
				return err
			}
			if t.isData() {
				return t.printData(struct {
					Version  int            `json:"version"`
					Released []stasbus.Hold `json:"released"`
				}{stasbus.ReportVersion, released})
			}
			for _, h := range released {
				if err := t.say("%s is released.", holdName(h)); err != nil {
					return err
				}
			}
			return nil
		}),
	}
}

func (t *tool) isData() bool { return t.output == output.JSON || t.output == output.YAML }

func (t *tool) say(format string, args ...any) error {
	_, err := fmt.Fprintln(t.stdout, output.Clean(fmt.Sprintf(format, args...)))
	return err
}

// holdName is what a hold holds.
func holdName(h stasbus.Hold) string {
	if h.Controller == nil {
		return h.Name
	}
	return describeID(*h.Controller) + " (" + h.Name + ")"
}

// heldUntil is how long a hold lasts.
func heldUntil(h stasbus.Hold, now time.Time) string {
	if h.Until.IsZero() {
		return "until it is released"
	}
	return fmt.Sprintf("until %s (%s)", h.Until.Local().Format(time.DateTime), until(h.Until, now))
}

// standing says in sentences what keeps a controller as it is.
func (t *tool) standing(c *stasbus.Controller, now time.Time) (sentences []string) {
	if w := c.Withheld; w != nil {
		text := "It stays connected because " + w.Why + "."
		if len(w.InUse) == 0 {
			text += " What cannot be seen is not taken away."
		}
		sentences = append(sentences, text, fmt.Sprintf("That has been so for %s. When it is released, it is disconnected (disconnect-in-use). "+
			"To disconnect it now: %s disconnect %s --force.", duration(now.Sub(w.Since)), t.name, c.Device))
	}
	for _, h := range c.HeldBy {
		sentences = append(sentences, fmt.Sprintf("It is held by an operator (%s), %s: %s neither connects nor disconnects it. To end that: %s release %s.",
			h.Name, heldUntil(h, now), t.daemon, t.name, h.Name))
	}
	if c.Booted != "" {
		sentences = append(sentences, fmt.Sprintf("The boot table %s of the firmware names it. The host may run from it, so it is never disconnected, "+
			"nor are its time-outs changed but by a line of its own.", c.Booted))
	}
	if f := c.GivenUp; f != nil {
		sentences = append(sentences, fmt.Sprintf("%s at connecting it failed (%s), and there are no more while the log page says that the central "+
			"discovery controller has no connection to it (connect-attempts-on-ncc). It is tried again when that changes, and with: systemctl reload %s.",
			count(f.Attempts, "attempt", "attempts"), f.Error, t.daemon))
	}
	return sentences
}
