package linux

import (
	"slices"
	"strings"
	"testing"
)

func TestDistribution(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\nID=debian\n", "Debian GNU/Linux 13"},
		{"ID=arch\r\nNAME='Arch Linux'\r\n", "Arch Linux"},
		{"NAME=x", "x"},
		{"", ""},
		{"VERSION_ID\n=\nNAME", ""},
	} {
		if got := distribution(c.file); !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%q: %q, want %q", c.file, got, c.want)
		}
	}
}

func TestSystem(t *testing.T) {
	name, version := new(Kernel).System()
	if name == "" || !strings.HasPrefix(version, "Linux ") {
		t.Errorf("%q, %q", name, version)
	}
}
