package tree

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

func program() *cobra.Command {
	root := &cobra.Command{Use: "x", Version: "1"}
	root.PersistentFlags().StringP("output", "o", "", "")
	root.PersistentFlags().BoolP("version", "v", false, "")
	dlp := &cobra.Command{Use: "dlp", Run: func(*cobra.Command, []string) {}}
	dlp.Flags().StringP("traddr", "a", "", "")
	dlp.Flags().StringP("transport", "t", "", "")
	dlp.Flags().String("host-traddr", "", "")
	dlp.Flags().BoolP("detailed", "d", false, "")
	secret := dlp.Flags()
	secret.String("traffic", "", "")
	_ = secret.MarkHidden("traffic")
	root.AddCommand(dlp)
	return root
}

func TestExpand(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--vers", "--version"},
		{"--help", "--help"},
		{"--hel dlp", "--help dlp"},
		{"--det", "--det"}, // only the command has it
		{"dlp --det", "dlp --detailed"},
		{"dlp --trad 1 --trans=tcp", "dlp --traddr 1 --transport=tcp"},
		{"dlp --trad=a=b", "dlp --traddr=a=b"},
		{"dlp --tr 1", "ambiguous option: --tr could be --traddr, --transport"},
		{"dlp --h 1", "ambiguous option: --h could be --help, --host-traddr"},
		{"dlp --ho 1", "dlp --host-traddr 1"},
		{"dlp --ou json --det", "dlp --output json --detailed"},
		{"--out json dlp --det", "--output json dlp --detailed"},
		{"-o dlp --det", "-o dlp --det"}, // no command was given
		{"-o json dlp --det", "-o json dlp --detailed"},
		{"dlp -da --det --det", "dlp -da --det --detailed"},
		{"dlp -a1 --det", "dlp -a1 --detailed"},
		{"dlp -- --det", "dlp -- --det"},
		{"dlp --traddr -- --det", "dlp --traddr -- --detailed"},
		{"dlp - --det", "dlp - --detailed"},
		{"dlp --nonsense --det", "dlp --nonsense --detailed"},
		{"dlp --traf 1", "dlp --traf 1"}, // not for users
		{"nonsense --vers", "nonsense --version"},
	} {
		args, err := Expand(program(), strings.Fields(c.args))
		got := strings.Join(args, " ")
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.args, got, c.want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("dlp\n--trad\n1\n-da")
	f.Fuzz(func(t *testing.T, text string) {
		args := strings.Split(text, "\n")
		out, err := Expand(program(), args)
		if err == nil && len(out) != len(args) {
			t.Errorf("%q has become %q", args, out)
		}
	})
}
