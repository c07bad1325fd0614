package stasbus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/nvme-stas/stas/internal/tid"
)

// Backend answers the methods that both daemons have. Its methods are called
// from many goroutines at once. The dictionaries that they return are given
// away.
type Backend interface {
	ListControllers(ctx context.Context, detailed bool) ([]Dict, error)
	// ControllerInfo and ProcessInfo return JSON objects.
	ControllerInfo(ctx context.Context, id tid.TID) (string, error)
	ProcessInfo(ctx context.Context) (string, error)
	Tron() bool
	SetTron(bool)
}

// LogPages answers the methods that only stafd has.
type LogPages interface {
	GetLogPages(ctx context.Context, id tid.TID) ([]Dict, error)
	// GetAllLogPages returns a JSON array of [DCPage].
	GetAllLogPages(ctx context.Context, detailed bool) (string, error)
}

// Reporter answers the methods of the interface [Names.Report]. A backend that
// is none stands for nvme-stas 2.x.
type Reporter interface {
	Report(ctx context.Context) (Report, error)
	// Controller returns nil for one that is not known.
	Controller(ctx context.Context, id tid.TID) (*Controller, error)
}

// LogPager answers those of them that only stafd has.
type LogPager interface {
	LogPages(ctx context.Context) ([]LogPage, error)
	// LogPage returns nil for a controller that is not known.
	LogPage(ctx context.Context, id tid.TID) (*LogPage, error)
}

// Lister answers one more of stafd's.
type Lister interface {
	Listing(ctx context.Context) (Listing, error)
}

// Browsing answers the one that only a stafd has that browses by mDNS.
type Browsing interface {
	Browse(ctx context.Context) (Browse, error)
}

// Operator answers what only root may ask for (stacd only): the policy of the
// bus sees to that.
type Operator interface {
	// Disconnect disconnects a device and holds its controller. What is in use
	// it leaves alone, unless forced.
	Disconnect(ctx context.Context, device string, force bool) (Disconnected, error)
	// Hold leaves the controllers of an NQN or address as they are, for a while
	// or, with no duration, until Release.
	Hold(ctx context.Context, name string, duration time.Duration) (Hold, error)
	Release(ctx context.Context, name string) ([]Hold, error)
}

// maxHold is the longest hold, in seconds: ten years.
const maxHold = uint32(10 * 366 * 24 * time.Hour / time.Second)

// ErrNameOwned says that another process has the daemon's name.
var ErrNameOwned = errors.New("the name is already owned on the system bus")

const (
	// answerTimeout bounds a method call; it is shorter than the time that
	// callers wait by default (25 s).
	answerTimeout = 20 * time.Second
	// busRetry is the pause before a lost bus is tried again.
	busRetry = time.Second
	// signalBacklog bounds the signals that wait for the bus. One that is
	// dropped costs its receiver only time: it looks by itself now and then.
	signalBacklog = 1024
	// maxReply bounds the body of a reply, in bytes. Whoever sends a message of
	// more than 32 MiB is thrown off the system bus (max_message_size in
	// dbus-daemon(1)).
	maxReply = 30 << 20
)

// UnknownController is the name of the D-Bus error that says so.
const UnknownController = "org.nvmexpress.Error.UnknownController"

// Names of other D-Bus errors.
const (
	errLimitsExceeded  = "org.freedesktop.DBus.Error.LimitsExceeded"
	errInvalidArgs     = "org.freedesktop.DBus.Error.InvalidArgs"
	errReadOnly        = "org.freedesktop.DBus.Error.PropertyReadOnly"
	errUnknownProperty = "org.freedesktop.DBus.Error.UnknownProperty"
)

// Server serves a daemon's object.
type Server struct {
	names   Names
	backend Backend // since Run
	log     *slog.Logger
	signals chan signal
	unsent  *signal // of Run: the bus has gone before it took this one
}

type signal struct {
	member string
	args   []any
}

// NewServer returns a server for the daemon with these names.
func NewServer(names Names, log *slog.Logger) *Server {
	return &Server{names: names, log: log, signals: make(chan signal, signalBacklog)}
}

// LogPagesChanged emits the signal of that name. It does not block.
func (s *Server) LogPagesChanged(id tid.TID, device string) {
	s.emit(signal{sigLogPagesChanged, append(IDArgs(id), device)})
}

// DCRemoved emits the signal of that name. It does not block.
func (s *Server) DCRemoved() { s.emit(signal{member: sigDCRemoved}) }

func (s *Server) emit(sig signal) {
	select {
	case s.signals <- sig:
	default: // nobody has been listening for long
	}
}

// Run serves the backend, and its LogPages if it has them, until ctx ends, over
// as many connections to the bus as it takes: a bus that goes away is waited
// for, and storage stays as it is meanwhile. ready is called once, when the
// name is owned for the first time. Until then any failure is final.
func (s *Server) Run(ctx context.Context, backend Backend, ready func()) error {
	s.backend = backend
	owned := func() {
		if ready != nil {
			ready()
			ready = nil
			return
		}
		s.log.Info("back on the system bus")
	}
	for {
		err := s.serve(ctx, owned)
		if ctx.Err() != nil {
			return nil
		}
		if ready != nil {
			return err
		}
		s.log.Warn("not on the system bus, trying again; connections are not affected", "error", err)
		if !sleep(ctx, busRetry) {
			return nil
		}
	}
}

// serve is one connection's life.
func (s *Server) serve(ctx context.Context, owned func()) error {
	conn, err := connect()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := s.export(ctx, conn); err != nil {
		return err
	}
	reply, err := conn.RequestName(s.names.Bus, dbus.NameFlagDoNotQueue)
	if err != nil {
		return fmt.Errorf("cannot own the name %s: %w (is the D-Bus policy installed, and the bus reloaded since?)", s.names.Bus, err)
	}
	if reply != dbus.RequestNameReplyPrimaryOwner {
		return fmt.Errorf("%s: %w (is another instance running?)", s.names.Bus, ErrNameOwned)
	}
	owned()
	for {
		if sig := s.unsent; sig != nil {
			if err := conn.Emit(s.names.Path, s.names.Bus+"."+sig.member, sig.args...); err != nil {
				return fmt.Errorf("cannot emit %s: %w", sig.member, err)
			}
			s.unsent = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-conn.Context().Done():
			return errors.New("the connection to the system bus was closed")
		case sig := <-s.signals:
			s.unsent = &sig
		}
	}
}

// connect opens an own connection to the system bus.
func connect() (*dbus.Conn, error) {
	conn, err := dbus.ConnectSystemBus(dbus.WithSignalHandler(dbus.NewSequentialSignalHandler()))
	if err != nil {
		return nil, fmt.Errorf("cannot reach the system bus: %w (is dbus running?)", err)
	}
	return conn, nil
}

func (s *Server) export(ctx context.Context, conn *dbus.Conn) error {
	main := map[string]any{
		"list_controllers": func(detailed bool) ([]Dict, *dbus.Error) {
			instead := "list_controllers(false), and controller_info for each controller"
			if !detailed {
				instead = "the method controller for each controller that is of interest"
			}
			return answerText(ctx, instead, func(ctx context.Context) ([]Dict, error) { return s.backend.ListControllers(ctx, detailed) })
		},
	}
	if pages, ok := s.backend.(LogPages); ok {
		main["get_log_pages"] = func(a, b, c, d, e, f, g string) ([]Dict, *dbus.Error) {
			return answerText(ctx, "the method log_page", func(ctx context.Context) ([]Dict, error) {
				return pages.GetLogPages(ctx, argsID(a, b, c, d, e, f, g))
			})
		}
		main["get_all_log_pages"] = func(detailed bool) (string, *dbus.Error) {
			return answer(ctx, "list_controllers, and get_log_pages for each controller", func(ctx context.Context) (string, error) {
				return pages.GetAllLogPages(ctx, detailed)
			})
		}
	}
	debug := map[string]any{
		"process_info": func() (string, *dbus.Error) { return answer(ctx, "nothing", s.backend.ProcessInfo) },
		"controller_info": func(a, b, c, d, e, f, g string) (string, *dbus.Error) {
			return answer(ctx, "nothing", func(ctx context.Context) (string, error) {
				return s.backend.ControllerInfo(ctx, argsID(a, b, c, d, e, f, g))
			})
		},
	}
	props := map[string]any{"Get": s.getProperty, "GetAll": s.getProperties, "Set": s.setProperty}
	intro := map[string]any{"Introspect": func() (string, *dbus.Error) { return s.names.xml, nil }}
	err := errors.Join(
		conn.ExportMethodTable(main, s.names.Path, s.names.Bus),
		conn.ExportMethodTable(debug, s.names.Path, s.names.Debug),
		conn.ExportMethodTable(props, s.names.Path, properties),
		conn.ExportMethodTable(intro, s.names.Path, introspectable),
	)
	if report := s.reportMethods(ctx); len(report) > 0 {
		err = errors.Join(err, conn.ExportMethodTable(report, s.names.Path, s.names.Report))
	}
	return err
}

// reportMethods are those of the interface that nvme-stas 2.x does not have.
func (s *Server) reportMethods(ctx context.Context) map[string]any {
	methods := make(map[string]any)
	if r, ok := s.backend.(Reporter); ok {
		methods["report"] = func() (string, *dbus.Error) {
			return answerJSON(ctx, "list_controllers(false), and the method controller for each controller", r.Report)
		}
		methods["controller"] = ofOne(ctx, r.Controller)
	}
	if l, ok := s.backend.(LogPager); ok {
		methods["log_pages"] = func() (string, *dbus.Error) {
			return answerJSON(ctx, "list_controllers(false), and the method log_page for each controller", l.LogPages)
		}
		methods["log_page"] = ofOne(ctx, l.LogPage)
	}
	if p, ok := s.backend.(Planner); ok {
		methods["plan"] = func(text string) (string, *dbus.Error) {
			if len(text) > maxCandidate {
				return "", dbus.NewError(errInvalidArgs, []any{fmt.Sprintf("a configuration of more than %d bytes", maxCandidate)})
			}
			return answerJSON(ctx, "nothing", func(ctx context.Context) (Plan, error) { return p.Plan(ctx, text) })
		}
	}
	if l, ok := s.backend.(Lister); ok {
		methods["listing"] = func() (string, *dbus.Error) { return answerJSON(ctx, "nothing", l.Listing) }
	}
	if b, ok := s.backend.(Browsing); ok {
		methods["browse"] = func() (string, *dbus.Error) { return answerJSON(ctx, "nothing", b.Browse) }
	}
	if o, ok := s.backend.(Operator); ok {
		methods["disconnect"] = func(device string, force bool) (string, *dbus.Error) {
			return answerJSON(ctx, "nothing", func(ctx context.Context) (Disconnected, error) { return o.Disconnect(ctx, device, force) })
		}
		methods["hold"] = func(name string, seconds uint32) (string, *dbus.Error) {
			return answerJSON(ctx, "nothing", func(ctx context.Context) (Hold, error) {
				return o.Hold(ctx, name, time.Duration(min(seconds, maxHold))*time.Second)
			})
		}
		methods["release"] = func(name string) (string, *dbus.Error) {
			return answerJSON(ctx, "nothing", func(ctx context.Context) ([]Hold, error) { return o.Release(ctx, name) })
		}
	}
	return methods
}

// ofOne makes a D-Bus method of one that tells of one controller.
func ofOne[T any](ctx context.Context, method func(context.Context, tid.TID) (*T, error)) any {
	return func(a, b, c, d, e, f, g string) (string, *dbus.Error) {
		id := argsID(a, b, c, d, e, f, g)
		return answerJSON(ctx, "nothing", func(ctx context.Context) (*T, error) {
			v, err := method(ctx, id)
			if err == nil && v == nil {
				return nil, dbus.NewError(UnknownController, []any{
					fmt.Sprintf("no controller %s of host NQN %q; list_controllers tells which there are", id, id.HostNQN),
				})
			}
			return v, err
		})
	}
}

// answer runs a method with its time limit. A failure becomes a D-Bus error,
// and so does a reply that the bus would not take; instead says what to call
// then.
func answer(ctx context.Context, instead string, method func(context.Context) (string, error)) (string, *dbus.Error) {
	text, err := limited(ctx, method)
	if err == nil {
		err = checkSize(len(text), instead)
	}
	if err != nil {
		return "", err
	}
	return text, nil
}

// answerJSON is answer for values.
func answerJSON[T any](ctx context.Context, instead string, method func(context.Context) (T, error)) (string, *dbus.Error) {
	return answer(ctx, instead, func(ctx context.Context) (string, error) {
		v, err := method(ctx)
		if err != nil {
			return "", err
		}
		text, err := json.Marshal(v)
		return string(text), err
	})
}

// answerText is answer for dictionaries. What sysfs shows of a target need not
// be text, and of anything else the bus takes nothing at all.
func answerText(ctx context.Context, instead string, method func(context.Context) ([]Dict, error)) ([]Dict, *dbus.Error) {
	list, err := limited(ctx, method)
	if err != nil {
		return nil, err
	}
	size := 0
	for _, d := range list {
		size += 2 * wordSize
		for key, value := range d {
			value = strings.ToValidUTF8(strings.ReplaceAll(value, "\x00", ""), "\uFFFD")
			d[key] = value
			size += len(key) + len(value) + 5*wordSize
		}
	}
	return list, checkSize(size, instead)
}

// wordSize is what lengths, ends and alignment add to a text on the bus, at
// most (D-Bus Specification, Marshaling).
const wordSize = 8

func limited[T any](ctx context.Context, method func(context.Context) (T, error)) (v T, _ *dbus.Error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	v, err := method(ctx)
	if busError, ok := errors.AsType[*dbus.Error](err); ok {
		return v, busError
	}
	if err != nil {
		return v, dbus.MakeFailedError(err)
	}
	return v, nil
}

func checkSize(size int, instead string) *dbus.Error {
	if size <= maxReply {
		return nil
	}
	return dbus.NewError(errLimitsExceeded, []any{
		fmt.Sprintf("the reply has %d MiB, more than the bus may carry; call instead: %s", size>>20, instead),
	})
}

func argsID(transport, traddr, trsvcid, subsysnqn, hostTraddr, hostIface, hostNQN string) tid.TID {
	return tid.New(tid.TID{
		Transport: transport, TrAddr: traddr, TrSvcID: trsvcid, SubsysNQN: subsysnqn,
		HostTrAddr: hostTraddr, HostIface: hostIface, HostNQN: hostNQN,
	})
}

// The properties of the debug interface. The bus policy lets only root set
// one (dbus-daemon(1), /usr/share/dbus-1/system.d).

const (
	propTron     = "tron"
	propLogLevel = "log_level"
)

func (s *Server) getProperties(iface string) (map[string]dbus.Variant, *dbus.Error) {
	if iface != s.names.Debug {
		return map[string]dbus.Variant{}, nil
	}
	level := "INFO"
	if s.backend.Tron() {
		level = "DEBUG"
	}
	return map[string]dbus.Variant{
		propTron:     dbus.MakeVariant(s.backend.Tron()),
		propLogLevel: dbus.MakeVariant(level),
	}, nil
}

func (s *Server) getProperty(iface, name string) (dbus.Variant, *dbus.Error) {
	all, _ := s.getProperties(iface)
	v, ok := all[name]
	if !ok {
		return v, unknownProperty(iface, name)
	}
	return v, nil
}

func (s *Server) setProperty(iface, name string, value dbus.Variant) *dbus.Error {
	all, _ := s.getProperties(iface)
	if _, ok := all[name]; !ok {
		return unknownProperty(iface, name)
	}
	if name != propTron {
		return dbus.NewError(errReadOnly, []any{name + " is read-only"})
	}
	tron, ok := value.Value().(bool)
	if !ok {
		return dbus.NewError(errInvalidArgs, []any{name + " is a boolean"})
	}
	s.backend.SetTron(tron)
	return nil
}

func unknownProperty(iface, name string) *dbus.Error {
	return dbus.NewError(errUnknownProperty,
		[]any{fmt.Sprintf("interface %q has no property %q", iface, name)})
}

// sleep waits, and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
