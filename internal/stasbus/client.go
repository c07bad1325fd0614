package stasbus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/tid"
)

// Client calls a daemon.
type Client struct {
	names Names
	conn  *dbus.Conn
}

// Dial connects to the system bus in order to call the daemon with these
// names. The daemon need not be there yet.
func Dial(names Names) (*Client, error) {
	conn, err := connect()
	if err != nil {
		return nil, err
	}
	return &Client{names: names, conn: conn}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// call calls a method. result is nil if it returns nothing.
func (c *Client) call(ctx context.Context, result any, iface, method string, args ...any) error {
	// A daemon that is not there must not be started by a question.
	call := c.conn.Object(c.names.Bus, c.names.Path).CallWithContext(ctx, iface+"."+method, dbus.FlagNoAutoStart, args...)
	err := call.Err
	if result != nil {
		err = call.Store(result)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

// ListControllers calls the method of that name.
func (c *Client) ListControllers(ctx context.Context, detailed bool) (list []Dict, err error) {
	return list, c.call(ctx, &list, c.names.Bus, "list_controllers", detailed)
}

// GetLogPages calls the method of that name (stafd only).
func (c *Client) GetLogPages(ctx context.Context, id tid.TID) (entries []Dict, err error) {
	return entries, c.call(ctx, &entries, c.names.Bus, "get_log_pages", IDArgs(id)...)
}

// GetAllLogPages calls the method of that name (stafd only). The result is nil
// only after an error.
func (c *Client) GetAllLogPages(ctx context.Context, detailed bool) ([]DCPage[logpage.Entry], error) {
	text, err := c.AllLogPagesText(ctx, detailed)
	if err != nil {
		return nil, err
	}
	var pages []DCPage[logpage.Entry]
	if err := json.Unmarshal([]byte(text), &pages); err != nil {
		return nil, fmt.Errorf("get_all_log_pages: %w", err)
	}
	if pages == nil {
		return nil, fmt.Errorf("get_all_log_pages: %q is not a list", text)
	}
	return pages, nil
}

// AllLogPagesText is GetAllLogPages, as JSON.
func (c *Client) AllLogPagesText(ctx context.Context, detailed bool) (text string, err error) {
	return text, c.call(ctx, &text, c.names.Bus, "get_all_log_pages", detailed)
}

// ProcessInfo calls the method of that name. The result is a JSON object.
func (c *Client) ProcessInfo(ctx context.Context) (info string, err error) {
	return info, c.call(ctx, &info, c.names.Debug, "process_info")
}

// ControllerInfo calls the method of that name. The result is a JSON object.
func (c *Client) ControllerInfo(ctx context.Context, id tid.TID) (info string, err error) {
	return info, c.call(ctx, &info, c.names.Debug, "controller_info", IDArgs(id)...)
}

// ErrOldDaemon says that the daemon is one of nvme-stas 2.x, which does not
// have the method.
var ErrOldDaemon = errors.New("the daemon does not tell that")

// callReport calls a method of the interface [Names.Report].
func (c *Client) callReport(ctx context.Context, result any, method string, args ...any) error {
	var text string
	err := c.call(ctx, &text, c.names.Report, method, args...)
	switch errorName(err) {
	case "org.freedesktop.DBus.Error.UnknownMethod", "org.freedesktop.DBus.Error.UnknownInterface":
		return fmt.Errorf("%s: %w", method, ErrOldDaemon)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(text), result); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

func errorName(err error) string {
	e, _ := errors.AsType[dbus.Error](err)
	return e.Name
}

// Report asks for all that the daemon knows; of one controller after the
// other, if that is too long for the bus.
func (c *Client) Report(ctx context.Context) (r Report, err error) {
	err = c.callReport(ctx, &r, "report")
	if errorName(err) != errLimitsExceeded {
		return r, err
	}
	list, err := c.ListControllers(ctx, false)
	if err != nil {
		return r, err
	}
	r = Report{Version: ReportVersion, Time: time.Now()}
	for _, d := range list {
		one, err := c.Controller(ctx, ParseID(d))
		switch {
		case errorName(err) == UnknownController:
			continue // gone in this moment
		case err != nil:
			return r, err
		}
		r.Controllers = append(r.Controllers, one)
	}
	return r, nil
}

// Controller calls the method of that name.
func (c *Client) Controller(ctx context.Context, id tid.TID) (one Controller, err error) {
	return one, c.callReport(ctx, &one, "controller", IDArgs(id)...)
}

// Browse calls the method of that name (stafd only).
func (c *Client) Browse(ctx context.Context) (b Browse, err error) {
	return b, c.callReport(ctx, &b, "browse")
}

// LogPage calls the method of that name (stafd only).
func (c *Client) LogPage(ctx context.Context, id tid.TID) (p LogPage, err error) {
	return p, c.callReport(ctx, &p, "log_page", IDArgs(id)...)
}

// LogPages asks for the log pages of all discovery controllers (stafd only);
// one after the other, if they are too long together. The result is nil only
// after an error.
func (c *Client) LogPages(ctx context.Context) ([]LogPage, error) {
	pages := []LogPage{}
	err := c.callReport(ctx, &pages, "log_pages")
	if errorName(err) != errLimitsExceeded {
		if pages == nil && err == nil {
			err = errors.New("log_pages: null is not a list")
		}
		if err != nil {
			return nil, err
		}
		return pages, nil
	}
	list, err := c.ListControllers(ctx, false)
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		id := ParseID(d)
		p, err := c.LogPage(ctx, id)
		switch {
		case errorName(err) == UnknownController:
			// Gone in this moment. What that means is seen when all are asked
			// for again; until then nothing is known of it.
			p = LogPage{ID: ID(id)}
		case err != nil:
			return nil, err
		}
		pages = append(pages, p)
	}
	return pages, nil
}

// Listing calls the method of that name (stafd only). A stafd that does not
// have it knows of nothing that its list might lack.
func (c *Client) Listing(ctx context.Context) (l Listing, err error) {
	err = c.callReport(ctx, &l, "listing")
	if errors.Is(err, ErrOldDaemon) {
		return Listing{}, nil
	}
	return l, err
}

// Ask asks stafd for the pages of all discovery controllers, in the form of
// nvme-stas 2.x, with the [KnownKey] and the [PartialKey].
func Ask(ctx context.Context, s interface {
	LogPages(context.Context) ([]LogPage, error)
	Lister
}) ([]DCPage[logpage.Entry], error) {
	before, err := s.Listing(ctx)
	if err != nil {
		return nil, err
	}
	told, err := s.LogPages(ctx)
	if err != nil {
		return nil, err
	}
	after, err := s.Listing(ctx)
	if err != nil {
		return nil, err
	}
	pages := make([]DCPage[logpage.Entry], 0, len(told))
	for _, p := range told {
		pages = append(pages, p.DCPage())
	}
	return withListing(pages, before, after), nil
}

// pages are those of any stafd, in the form of nvme-stas 2.x. Where stafd tells
// which of them are complete, they have the [KnownKey].
func (c *Client) pages(ctx context.Context) ([]DCPage[logpage.Entry], error) {
	pages, err := Ask(ctx, c)
	if errors.Is(err, ErrOldDaemon) {
		return c.GetAllLogPages(ctx, true)
	}
	return pages, err
}

// Disconnect calls the method of that name (stacd only, for root).
func (c *Client) Disconnect(ctx context.Context, device string, force bool) (d Disconnected, err error) {
	return d, c.callReport(ctx, &d, "disconnect", device, force)
}

// Hold calls the method of that name (stacd only, for root); 0 is until
// somebody calls Release.
func (c *Client) Hold(ctx context.Context, name string, duration time.Duration) (h Hold, err error) {
	seconds := min((duration+time.Second-1)/time.Second, time.Duration(maxHold))
	return h, c.callReport(ctx, &h, "hold", name, uint32(seconds))
}

// Release calls the method of that name (stacd only, for root).
func (c *Client) Release(ctx context.Context, name string) (released []Hold, err error) {
	return released, c.callReport(ctx, &released, "release", name)
}

// Tron reads the property of that name.
func (c *Client) Tron(ctx context.Context) (bool, error) {
	var v dbus.Variant
	if err := c.call(ctx, &v, properties, "Get", c.names.Debug, propTron); err != nil {
		return false, err
	}
	tron, ok := v.Value().(bool)
	if !ok {
		return false, errors.New("tron is not a boolean")
	}
	return tron, nil
}

// SetTron writes the property of that name.
func (c *Client) SetTron(ctx context.Context, tron bool) error {
	return c.call(ctx, nil, properties, "Set", c.names.Debug, propTron, dbus.MakeVariant(tron))
}

const (
	// fetchTimeout bounds one question to stafd. A silent stafd is unknown.
	fetchTimeout = 15 * time.Second
	// fetchInterval is the pause between questions that no signal asked for.
	fetchInterval = 60 * time.Second
	// fetchRetry is the pause after a question that was not answered.
	fetchRetry = 2 * time.Second
)

// Feed follows the log pages of stafd.
type Feed struct {
	Log     *slog.Logger
	timeout time.Duration // of one question, if not fetchTimeout
	slowest time.Duration // see soak, if not soakMost
}

// Follow calls deliver with all pages whenever they may have changed, until
// ctx ends. While stafd does not answer nothing is delivered: that it is
// silent says nothing about its pages. deliver gets a nil slice when stafd
// stops answering, once.
func (f Feed) Follow(ctx context.Context, deliver func([]DCPage[logpage.Entry])) {
	up := true // so that the first failure is told
	failed := func(err error) {
		if up {
			f.Log.Info("stafd does not answer; what it listed before stays wanted", "reason", err)
			deliver(nil)
		}
		up = false
	}
	for ctx.Err() == nil {
		err := f.follow(ctx, func(pages []DCPage[logpage.Entry]) {
			if !up {
				f.Log.Info("stafd answers")
			}
			up = true
			deliver(pages)
		}, failed)
		if ctx.Err() == nil {
			failed(err)
			sleep(ctx, busRetry)
		}
	}
}

// follow is one connection's life.
func (f Feed) follow(ctx context.Context, deliver func([]DCPage[logpage.Entry]), failed func(error)) error {
	client, err := Dial(Staf)
	if err != nil {
		return err
	}
	defer client.Close()
	// Listen first, ask then: what changes in between is not lost.
	signals := make(chan *dbus.Signal, signalBacklog)
	client.conn.Signal(signals)
	err = errors.Join(
		client.conn.AddMatchSignalContext(ctx, dbus.WithMatchSender(Staf.Bus), dbus.WithMatchInterface(Staf.Bus)),
		client.conn.AddMatchSignalContext(ctx, dbus.WithMatchInterface("org.freedesktop.DBus"),
			dbus.WithMatchMember("NameOwnerChanged"), dbus.WithMatchArg(0, Staf.Bus)),
	)
	if err != nil {
		return fmt.Errorf("cannot subscribe to stafd: %w", err)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	changes := soak{most: cmp.Or(f.slowest, soakMost)}
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-signals:
			if !ok {
				return errors.New("the connection to the system bus was closed")
			}
			for len(signals) > 0 {
				<-signals // one question answers them all
			}
			if wait := time.Until(changes.due()); wait > 0 {
				timer.Reset(wait)
				continue
			}
		case <-timer.C:
		}
		changes.asked(time.Now())
		asking, cancel := context.WithTimeout(ctx, cmp.Or(f.timeout, fetchTimeout))
		pages, err := client.pages(asking)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			failed(err)
			timer.Reset(fetchRetry)
		default:
			deliver(pages)
			timer.Reset(fetchInterval)
		}
	}
}
