package docs

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/initiator"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/target"
)

// TestBusyTarget: a target that is busy is asked again, and has it all.
func TestBusyTarget(t *testing.T) {
	lab, err := target.Open(target.Config{
		Listeners:  []target.Listener{{Address: "127.0.0.1:0"}},
		Subsystems: []target.Subsystem{{NQN: "nqn.2026-01.org.example:a"}},
		Faults:     []target.Fault{{Do: "busy", Times: 1}},
	}, target.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()

	host := initiator.Options{
		Address: lab.Listeners()[0].Address,
		HostNQN: "nqn.2026-01.org.example:host1",
		HostID:  nvme.HostID{1},
	}
	if _, err := initiator.Dial(t.Context(), host); !errors.Is(err, nvme.StatusConnectControllerBusy) {
		t.Fatalf("while it is busy: %v", err)
	}
	c, err := initiator.Dial(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	log, err := fabrics.ReadDiscoveryLog(t.Context(), c, 0)
	if err != nil || len(log.Entries) != 2 {
		t.Errorf("the log is %v, %v", log, err)
	}
	if done := lab.Faults()[0].Done; done != 1 {
		t.Errorf("it was busy %d times", done)
	}
}

// TestLabCode: the test that lab.md shows is the one above.
func TestLabCode(t *testing.T) {
	text, err := os.ReadFile("lab.md")
	if err != nil {
		t.Fatal(err)
	}
	code, err := os.ReadFile("lab_test.go")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, _ := strings.Cut(string(text), "```go\n")
	shown, _, _ = strings.Cut(shown, "```\n")
	if shown == "" || !strings.Contains(string(code), shown) {
		t.Error("lab.md shows other code than lab_test.go has")
	}
}
