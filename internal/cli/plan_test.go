package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
)

// planner is a daemon that plans; it tells of the text in an issue.
type planner struct {
	stacd
	plan stasbus.Plan
}

func (p *planner) Plan(_ context.Context, text string) (stasbus.Plan, error) {
	plan := p.plan
	if text != "" {
		plan.Issues = []string{"candidate:1: " + strings.TrimSpace(text)}
	}
	return plan, nil
}

func TestPlan(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	empty := filepath.Join(t.TempDir(), "empty.conf")
	huge := filepath.Join(t.TempDir(), "huge.conf")
	odd := filepath.Join(t.TempDir(), "odd.conf")
	for name, text := range map[string]string{empty: "", huge: strings.Repeat("#", maxPlanFile+1), odd: "\x1b[31mred"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	none := stasbus.Plan{Version: 1, Daemon: "stacd", Issues: []string{}, Steps: []stasbus.Step{}, Unchanged: 2}
	refused := none
	refused.Refused = "stacd.conf:1: nonsense."
	steps := none
	steps.Doubtful, steps.Unchanged = true, 1
	steps.Issues = []string{"stacd.conf:3: odd"}
	steps.Steps = []stasbus.Step{
		{ID: id("10.0.0.1", "4420", example+"a", ""), Action: stasbus.PlanConnect, Why: "stacd.conf:7 asks for it"},
		{ID: id("10.0.0.2", "4420", example+"b", ""), Device: "nvme2", Action: stasbus.PlanAdjust, Why: "stacd.conf:8 asks for it", Changes: []stasbus.Change{
			{Parameter: "ctrl-loss-tmo", Was: "600", Becomes: "-1", AtOnce: true}, {Parameter: "kato", Was: "30"}, {Parameter: "dhchap-secret"},
		}},
	}
	const table = `stacd.conf:3: odd
Something of the configuration is ignored or not known, so it takes no connection away.

ACTION   DEVICE  ADDRESS            NQN                            CHANGES                                                                                        WHY
connect  -       tcp 10.0.0.1:4420  nqn.2014-08.org.example:a  -                                                                                              stacd.conf:7 asks for it
adjust   nvme2   tcp 10.0.0.2:4420  nqn.2014-08.org.example:b  ctrl-loss-tmo 600 -> -1, kato 30 -> default (next connect), dhchap-secret (next connect)  stacd.conf:8 asks for it

Nothing changes for 1 controller.
`
	for _, test := range []struct {
		name   string
		plan   stasbus.Plan
		args   string
		code   int
		stdout string // blanks as one
		stderr string
	}{
		{name: "nothing", plan: none, args: "-o table", stdout: "A reload would change nothing for 2 controllers.\n"},
		{name: "refused", plan: refused, args: "-o table", stdout: "A reload would change nothing: stacd.conf:1: nonsense.\n"},
		{name: "steps", plan: steps, args: "-o table", stdout: table},
		{name: "empty file", plan: none, args: "-o table -f " + empty, stdout: "candidate:1:\nA reload would change nothing for 2 controllers.\n"},
		{name: "hostile file", plan: none, args: "-o table -f " + odd, stdout: "candidate:1: ?[31mred\nA reload would change nothing for 2 controllers.\n"},
		{name: "huge file", plan: none, args: "-f " + huge, code: exitFailed, stderr: "has more than"},
		{name: "no file", plan: none, args: "-f /nonexistent", code: exitFailed, stderr: "no such file"},
		{name: "arguments", plan: none, args: "x", code: exitUsage, stderr: "unknown command"},
	} {
		t.Run(test.name, func(t *testing.T) {
			serve(t, stasbus.Stac, &planner{plan: test.plan})
			code, stdout, stderr := call(Stacctl, append([]string{"plan"}, strings.Fields(test.args)...)...)
			fields := func(s string) string {
				var lines []string
				for line := range strings.Lines(s) {
					lines = append(lines, strings.Join(strings.Fields(line), " "))
				}
				return strings.Join(lines, "\n")
			}
			if diff := cmp.Diff(fields(test.stdout), fields(stdout)); diff != "" || code != test.code || !strings.Contains(stderr, test.stderr) {
				t.Errorf("exit code %d, %s\n%s", code, stderr, diff)
			}
		})
	}
	t.Run("JSON", func(t *testing.T) {
		serve(t, stasbus.Stac, &planner{plan: steps})
		_, stdout, stderr := call(Stacctl, "plan", "-o", "json")
		var got stasbus.Plan
		if err := json.Unmarshal([]byte(stdout), &got); err != nil || !cmp.Equal(got, steps) {
			t.Errorf("%v, %s, %s", err, stderr, stdout)
		}
	})
	t.Run("a daemon that cannot", func(t *testing.T) {
		serve(t, stasbus.Stac, &stacd{})
		if code, _, stderr := call(Stacctl, "plan"); code != exitFailed || !strings.Contains(stderr, "cannot plan") {
			t.Errorf("exit code %d, %s", code, stderr)
		}
	})
}
