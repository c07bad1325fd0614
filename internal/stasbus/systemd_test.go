package stasbus_test

import (
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"

	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/internal/stastest"
)

// systemd is its manager, as far as it restarts units.
type systemd struct{ calls chan string }

func (s *systemd) RestartUnit(unit, mode string) (dbus.ObjectPath, *dbus.Error) {
	s.calls <- unit + " " + mode
	if strings.HasPrefix(unit, "masked") {
		return "", dbus.NewError("org.freedesktop.systemd1.UnitMasked", []any{"Unit is masked."})
	}
	return "/org/freedesktop/systemd1/job/1", nil
}

func TestRestartUnit(t *testing.T) {
	bus := stastest.NewSystemBus(t, stastest.AllowAll)
	const unit = `nvmf-connect@--device\x3dnvme3.service`
	if err := stasbus.RestartUnit(t.Context(), unit); err == nil {
		t.Error("nobody restarts units, and it is no error")
	}
	conn, err := dbus.Connect(bus.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	manager := &systemd{calls: make(chan string, 2)}
	if err := conn.Export(manager, "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName("org.freedesktop.systemd1", 0); err != nil {
		t.Fatal(err)
	}
	if err := stasbus.RestartUnit(t.Context(), unit); err != nil {
		t.Error(err)
	}
	if err := stasbus.RestartUnit(t.Context(), "masked.service"); err == nil || !strings.Contains(err.Error(), "masked") {
		t.Errorf("a masked unit: %v", err)
	}
	if got := <-manager.calls + ", " + <-manager.calls; got != unit+" replace, masked.service replace" {
		t.Errorf("called: %s", got)
	}
}
