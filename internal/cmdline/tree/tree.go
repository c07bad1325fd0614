// Package tree is cmdline for programs with commands. It is apart from it
// because the daemons have none, and get along without the library for them.
package tree

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nvme-stas/stas/internal/cmdline"
)

// Expand spells out the options among the arguments, each by those of the
// command that it stands behind.
func Expand(root *cobra.Command, args []string) ([]string, error) {
	cmd := enter(root)
	return cmdline.Expand(args, func(name string) *pflag.Flag {
		if f := cmd.Flags().Lookup(name); f != nil {
			return f
		}
		return cmd.InheritedFlags().Lookup(name)
	}, func(visit func(*pflag.Flag)) {
		cmd.Flags().VisitAll(visit)
		cmd.InheritedFlags().VisitAll(visit)
	}, func(word string) {
		for _, sub := range cmd.Commands() {
			if sub.Name() == word || sub.HasAlias(word) {
				cmd = enter(sub)
				return
			}
		}
	})
}

// enter makes a command's own options complete, which cobra does late.
func enter(cmd *cobra.Command) *cobra.Command {
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	return cmd
}
