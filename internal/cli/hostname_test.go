package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
)

// A controller that the configuration has by a host name answers to that, and
// tells where its address comes from.
func TestHostName(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	r := host("stacd")
	origin := func(h stasbus.HostName) []stasbus.Origin {
		return []stasbus.Origin{{Kind: stasbus.Configured, Place: "stacd.conf:7", Host: &h}}
	}
	answered := now.Add(-3 * time.Minute)
	r.Controllers = []stasbus.Controller{
		{ID: id("10.0.0.2", "4420", example+"a", ""), Device: "nvme2", State: "live", Wanted: true, Origins: origin(stasbus.HostName{Name: "dc1.example.org", Answered: answered})},
		{ID: id("10.0.0.1", "4420", example+"a", ""), Device: "nvme1", State: "live", Wanted: true, Origins: origin(stasbus.HostName{
			Name: "dc1.example.org", Answered: answered, Former: true, Failure: &stasbus.Failure{Attempts: 2, Error: "no such host"},
		})},
	}
	r.Refused = []stasbus.Refusal{{
		ID: id("dc2.example.org", "4420", example+"b", ""), Origins: origin(stasbus.HostName{Name: "dc2.example.org"}),
		Why: "the host name dc2.example.org cannot be looked up: no such host",
	}}
	serve(t, stasbus.Stac, &stacd{reporter: reporter{r}})
	for name, wants := range map[string][]string{
		"DC1.example.org": {
			"nvme2: tcp 10.0.0.2:4420", "stacd.conf:7 asks for it", "The configuration has the host name dc1.example.org; the last answer came 3m00s ago.",
			"nvme1: tcp 10.0.0.1:4420", "which stands for another address now", "since then there was none: no such host",
		},
		"dc2.example.org": {"It is not connected: the host name dc2.example.org cannot be looked up: no such host."},
	} {
		code, stdout, stderr := call(Stacctl, "explain", "-o", "table", name)
		text := strings.Join(strings.Fields(stdout), " ")
		for _, want := range wants {
			if !strings.Contains(text, want) || code != exitOK {
				t.Errorf("%s: exit code %d, %s, nothing of %q in\n%s", name, code, stderr, want, text)
			}
		}
	}
	if _, stdout, _ := call(Stacctl, "ls", "-o", "wide"); !strings.Contains(stdout, "configured as dc1.example.org") {
		t.Errorf("ls: %s", stdout)
	}
}
