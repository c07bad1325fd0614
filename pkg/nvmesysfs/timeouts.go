package nvmesysfs

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// Timeouts are what a host may change of a connection that exists, in seconds.
// Nil is the kernel's default.
type Timeouts struct {
	ReconnectDelay *int
	CtrlLoss       *int // -1: never
	FastIOFail     *int // -1: off
}

// The kernel's defaults, in seconds (drivers/nvme/host/fabrics.h).
const (
	defaultReconnectDelay = 10
	defaultCtrlLoss       = 600
	defaultFastIOFail     = -1
)

// SetTimeouts gives a controller the time-outs that it would have if it had
// been connected with now and not with was. What is the same in both is not
// written. They take effect at once, also while the kernel tries to get a lost
// connection back. A controller that is not there is an error that is
// [fs.ErrNotExist].
func (f *FS) SetTimeouts(name string, was, now Timeouts) error {
	dir, err := f.openController(name)
	if err != nil {
		return err
	}
	defer dir.close()
	number := func(p *int, def int) int {
		if p == nil {
			return def
		}
		return *p
	}
	delay, formerDelay := number(now.ReconnectDelay, defaultReconnectDelay), number(was.ReconnectDelay, defaultReconnectDelay)
	loss, formerLoss := number(now.CtrlLoss, defaultCtrlLoss), number(was.CtrlLoss, defaultCtrlLoss)
	fail, formerFail := number(now.FastIOFail, defaultFastIOFail), number(was.FastIOFail, defaultFastIOFail)
	if delay < 1 {
		// The kernel does not check, and divides by it (sysfs.c,
		// nvme_ctrl_reconnect_delay_store).
		return fmt.Errorf("%s: a reconnect delay of %d s cannot be", name, delay)
	}
	if delay != formerDelay {
		err = dir.set("reconnect_delay", delay)
	}
	// The kernel counts attempts: another delay changes the time that they
	// take, so that it has to be told again.
	if err == nil && (loss != formerLoss || delay != formerDelay) {
		err = dir.set("ctrl_loss_tmo", loss)
	}
	if err == nil && fail != formerFail {
		err = dir.set("fast_io_fail_tmo", fail)
	}
	return err
}

func (d controllerDir) set(attribute string, value int) error {
	fd, err := d.open(attribute, unix.O_WRONLY)
	if absent(err) {
		if _, err := d.attr("state"); err != nil {
			return err
		}
		return fmt.Errorf("%s of %s: %w", attribute, d.name, ErrNoAttr)
	}
	if err != nil {
		return fmt.Errorf("opening %s of %s: %w", attribute, d.name, err)
	}
	defer unix.Close(fd)
	if _, err := ignoringEINTR(func() (int, error) { return unix.Write(fd, strconv.AppendInt(nil, int64(value), 10)) }); err != nil {
		return fmt.Errorf("setting %s of %s to %d: %w", attribute, d.name, value, err)
	}
	return nil
}
