package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/nvme-stas/stas/internal/output"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/tid"
)

// dcs makes discovery controllers: "2 by 1 3" is one at port 2 to which those at
// 1 and 3 refer, "1 configured" one that is configured.
func dcs(all ...string) (r stasbus.Report) {
	id := func(port string) stasbus.ID { return stasbus.ID{Transport: "tcp", TrAddr: "10.0.0.1", TrSvcID: port} }
	for _, text := range all {
		words := strings.Fields(text)
		c := stasbus.Controller{ID: id(words[0]), State: "live", Wanted: true}
		for _, w := range words[1:] {
			switch w {
			case "by":
			case stasbus.Configured:
				c.Origins = append(c.Origins, stasbus.Origin{Kind: w})
			default:
				c.Origins = append(c.Origins, stasbus.Origin{Kind: stasbus.Referral, By: new(id(w))})
			}
		}
		r.Controllers = append(r.Controllers, c)
	}
	return r
}

func TestTree(t *testing.T) {
	for _, c := range []struct {
		name string
		r    stasbus.Report
		want []string
	}{
		{"chain", dcs("1 configured", "2 by 1", "3 by 2"), []string{"1", "└─ 2", "   └─ 3"}},
		{"two", dcs("1 configured", "2 by 1", "3 by 2", "4 by 1"), []string{"1", "├─ 2", "│  └─ 3", "└─ 4"}},
		{"circle", dcs("1 configured by 3", "2 by 1", "3 by 2"), []string{"1", "└─ 2", "   └─ 3", "      └─ 1 (see above)"}},
		{"shared", dcs("1 configured", "2 configured", "3 by 1 2", "4 by 3"), []string{"1", "└─ 3", "   └─ 4", "2", "└─ 3 (see above)"}},
		{"on its way out", dcs("1 configured", "2 by 3", "3 by 2"), []string{"1", "2", "└─ 3", "   └─ 2 (see above)"}},
		{"nobody is left", dcs("2 by 1"), []string{"2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			tool := newStafctl(&out)
			tool.output = output.Table
			if err := tool.printTree(c.r); err != nil {
				t.Fatal(err)
			}
			var got []string
			for line := range strings.Lines(out.String()) {
				text, _, _ := strings.Cut(strings.ReplaceAll(line, "tcp 10.0.0.1:", ""), "  live")
				got = append(got, strings.TrimRight(text, " \n"))
			}
			if g, w := strings.Join(got[1:], "\n"), strings.Join(c.want, "\n"); g != w {
				t.Errorf("got\n%s\nwant\n%s", g, w)
			}
		})
	}
}

// What "status" tells of registrations and of times.
func TestStatusOfDiscoveryControllers(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	id := stasbus.ID(tid.New(tid.TID{Transport: "tcp", TrAddr: "10.0.0.1", SubsysNQN: "nqn.dc"}))
	for _, c := range []struct {
		name string
		c    stasbus.Controller
		want string
	}{
		{"registered", stasbus.Controller{Registration: &stasbus.Registration{State: stasbus.Registered, Since: now.Add(-time.Minute), SymName: "rack"}},
			`tcp 10.0.0.1:8009 nqn.dc: this host registered as "rack" 1m00s ago`},
		{"not registered", stasbus.Controller{Registration: &stasbus.Registration{State: stasbus.RegFailed, Since: now.Add(-time.Second), Failure: &stasbus.Failure{Error: "locked", Next: now.Add(9 * time.Second)}}},
			"this host is not registered, tried 1s ago: locked; next try in 9s"},
		{"times", stasbus.Controller{Timing: &stasbus.Timing{KATO: 5, KAS: 10_000, RTD3E: 1500, KATOTooShort: true}},
			"KATO                   KAS  RTD3E\nnvme1   tcp 10.0.0.1:8009  5s (shorter than KAS)  10s  1.5s"},
		{"nothing", stasbus.Controller{}, "nvme1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			tool := newStafctl(&out)
			tool.output = output.Table
			c.c.ID, c.c.Device, c.c.State, c.c.Wanted = id, "nvme1", "live", true
			if err := tool.printStatus(stasbus.Report{Time: now, Controllers: []stasbus.Controller{c.c}}); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(out.String(), c.want) || c.name == "nothing" && strings.Contains(out.String(), "registered") {
				t.Errorf("got\n%s\nwant\n%s", out.String(), c.want)
			}
		})
	}
}
