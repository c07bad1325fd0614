package stasbus

import (
	"context"

	"github.com/godbus/dbus/v5"
)

// RestartUnit has systemd restart a unit, and does not wait until it has.
func RestartUnit(ctx context.Context, unit string) error {
	conn, err := connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	var job dbus.ObjectPath
	return conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1").
		CallWithContext(ctx, "org.freedesktop.systemd1.Manager.RestartUnit", 0, unit, "replace").Store(&job)
}
