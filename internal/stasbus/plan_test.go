package stasbus_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"

	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
)

// planner plans what it is told.
type planner struct{ stasbus.Backend }

func (*planner) Plan(_ context.Context, text string) (stasbus.Plan, error) {
	if text == "bad" {
		return stasbus.Plan{}, errors.New("out of order")
	}
	return stasbus.Plan{Version: stasbus.ReportVersion, Refused: text}, nil
}

func TestPlan(t *testing.T) {
	stastest.NewSystemBus(t, stastest.AllowAll)
	serve(t, stasbus.Stac, &planner{&stacd{}})
	client, _ := dial(t, stasbus.Stac)
	for _, text := range []string{"", "[Controllers]\n"} {
		if p, err := client.Plan(t.Context(), text); err != nil || p.Refused != text || p.Version != stasbus.ReportVersion {
			t.Errorf("%q: %+v, %v", text, p, err)
		}
	}
	if _, err := client.Plan(t.Context(), "bad"); err == nil || !strings.Contains(err.Error(), "out of order") {
		t.Errorf("a failure is told as %v", err)
	}
	_, err := client.Plan(t.Context(), strings.Repeat("#", 1<<20+1))
	if e, ok := errors.AsType[dbus.Error](err); !ok || e.Name != "org.freedesktop.DBus.Error.InvalidArgs" {
		t.Errorf("a text that is too long: %v", err)
	}
}
