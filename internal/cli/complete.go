package cli

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/stasbus"
)

// completionTimeout is how long somebody waits who has pressed the tab key.
const completionTimeout = 2 * time.Second

// complete says what an option of a command may be.
func complete(cmd *cobra.Command, option string, values func() []string) {
	err := cmd.RegisterFlagCompletionFunc(option, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values(), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // there is no such option
	}
}

// live asks the daemon what its controllers have under some keys. No answer is
// no value: nobody wants to read errors while typing.
func (t *tool) live(keys ...string) []string {
	client, err := stasbus.Dial(t.names)
	if err != nil {
		return nil
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
	defer cancel()
	dicts, err := client.ListControllers(ctx, false)
	if err != nil {
		return nil
	}
	var values []string
	for _, d := range dicts {
		for _, key := range keys {
			if v := d[key]; v != "" && v != noDevice && output.Clean(v) == v {
				values = append(values, v)
			}
		}
	}
	slices.Sort(values)
	return slices.Compact(values)
}
