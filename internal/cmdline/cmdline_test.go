package cmdline

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestExpandFlags(t *testing.T) {
	flags := pflag.NewFlagSet("x", pflag.ContinueOnError)
	flags.StringP("conf-file", "f", "", "")
	flags.Bool("check-config", false, "")
	flags.Bool("tron", false, "")
	for args, want := range map[string]string{
		"--tr --conf x":  "--tron --conf-file x",
		"--c":            "ambiguous option: --c could be --check-config, --conf-file",
		"-f --tr --tr":   "-f --tr --tron",
		"--conf-file --": "--conf-file --",
	} {
		out, err := ExpandFlags(flags, strings.Fields(args))
		got := strings.Join(out, " ")
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}
