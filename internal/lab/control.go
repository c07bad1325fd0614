package lab

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/nvme-stas/stas/pkg/dhchap"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/target"
)

// A conversation on the control socket is one call and one answer, each a JSON
// object. The caller shuts down its side behind the call, or ends it by a line
// break.
type (
	call struct {
		Do   string          `json:"do"`             // one of calls
		With json.RawMessage `json:"with,omitempty"` // what it takes
	}
	answer struct {
		Error  string          `json:"error,omitempty"`
		Result json.RawMessage `json:"result,omitempty"`
	}
)

const (
	maxCall     = 1 << 20 // bytes
	callTimeout = 10 * time.Second
)

// What calls take that is more than one value.
type (
	offerArgs struct {
		NQN       string   `json:"nqn"`
		Listeners []string `json:"listeners"`
	}
	allowArgs struct {
		NQN   string   `json:"nqn"`
		Hosts []string `json:"hosts"`
	}
	nccArgs struct {
		NQN string `json:"nqn"`
		NCC bool   `json:"ncc"`
	}
	namespaceArgs struct {
		NQN string `json:"nqn"`
		target.Namespace
	}
	anaArgs struct {
		NQN string `json:"nqn"`
		target.ANA
	}
	// hostArgs has the keys as texts: they are to be told here.
	hostArgs struct {
		NQN     string       `json:"nqn"`
		Key     string       `json:"dhchap-key,omitempty"`
		CtrlKey string       `json:"dhchap-ctrl-key,omitempty"`
		Hash    dhchap.Hash  `json:"dhchap-hash,omitempty"`
		Group   dhchap.Group `json:"dhchap-group,omitempty"`
	}
	restartArgs struct {
		Listener string          `json:"listener,omitempty"` // all if empty
		Pause    target.Duration `json:"pause,omitempty"`
	}
	aenArgs struct {
		Listener string `json:"listener,omitempty"` // all if empty
		Host     string `json:"host,omitempty"`     // all if empty
		AEN      uint32 `json:"aen"`
	}
	zoningArgs struct { // what is missing stays as it is
		Enabled    *bool `json:"enabled,omitempty"`
		Registered *bool `json:"registered,omitempty"`
	}
	aenResult struct {
		Told int `json:"told"` // controllers
	}
	faultResult struct {
		ID int `json:"id"`
	}
)

// calls are what can be asked of a lab.
var calls = map[string]func(*Lab, json.RawMessage) (any, error){
	"listeners":   show(func(l *Lab) any { return l.Listeners() }),
	"subsystems":  show(func(l *Lab) any { return fullSubsystems(l.Subsystems()) }),
	"hosts":       show(func(l *Lab) any { return fullHosts(l.Hosts()) }),
	"connections": show(func(l *Lab) any { return full(l.Connections()) }),
	"zones":       show(func(l *Lab) any { return fullZoning(l.Zoning()) }),
	"faults":      show(func(l *Lab) any { return full(l.Faults()) }),

	"add-listener":       change((*Lab).AddListener),
	"remove-listener":    change(func(l *Lab, name string) error { return l.RemoveListener(name) }),
	"add-subsystem":      change(func(l *Lab, s target.Subsystem) error { return l.AddSubsystem(s) }),
	"remove-subsystem":   change(func(l *Lab, nqn string) error { return l.RemoveSubsystem(nqn) }),
	"offer-subsystem":    change(func(l *Lab, a offerArgs) error { return l.Offer(a.NQN, a.Listeners...) }),
	"withdraw-subsystem": change(func(l *Lab, nqn string) error { return l.Withdraw(nqn) }),
	"allow-hosts":        change(func(l *Lab, a allowArgs) error { return l.Allow(a.NQN, a.Hosts...) }),
	"set-ncc":            change(func(l *Lab, a nccArgs) error { return l.SetNCC(a.NQN, a.NCC) }),
	"add-namespace":      change(func(l *Lab, a namespaceArgs) error { return l.AddNamespace(a.NQN, a.Namespace) }),
	"remove-namespace":   change(func(l *Lab, a namespaceArgs) error { return l.RemoveNamespace(a.NQN, a.ID) }),
	"set-ana":            change(func(l *Lab, a anaArgs) error { return l.SetANA(a.NQN, a.ANA) }),
	"set-host":           change((*Lab).setHost),
	"remove-host":        change(func(l *Lab, nqn string) error { return l.RemoveHost(nqn) }),
	"set-zoning":         change((*Lab).setZoning),
	"set-zone":           change(func(l *Lab, g target.ZoneGroup) error { return l.SetZoneGroup(g) }),
	"remove-zone":        change(func(l *Lab, name string) error { return l.RemoveZoneGroup(name) }),
	"remove-fault":       change(func(l *Lab, id int) error { return l.RemoveFault(id) }),
	"clear-faults":       change(func(l *Lab, _ struct{}) error { return l.ClearFaults() }),
	"restart":            change(func(l *Lab, a restartArgs) error { return l.Restart(a.Listener, time.Duration(a.Pause)) }),
	"stop":               change(func(l *Lab, _ struct{}) error { l.Stop(); return nil }),

	"add-fault": ask(func(l *Lab, f target.Fault) (faultResult, error) {
		id, err := l.AddFault(f)
		return faultResult{id}, err
	}),
	"send-aen": ask(func(l *Lab, a aenArgs) (aenResult, error) {
		return aenResult{l.SendAEN(a.Listener, a.Host, nvme.AEN(a.AEN))}, nil
	}),
}

// ask makes a call of a function with an argument and a result.
func ask[A, R any](do func(*Lab, A) (R, error)) func(*Lab, json.RawMessage) (any, error) {
	return func(l *Lab, with json.RawMessage) (any, error) {
		var args A
		if len(with) > 0 {
			dec := json.NewDecoder(bytes.NewReader(with))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&args); err != nil {
				return nil, fmt.Errorf("with: %w", err)
			}
		}
		return do(l, args)
	}
}

// change makes a call of a function without a result.
func change[A any](do func(*Lab, A) error) func(*Lab, json.RawMessage) (any, error) {
	return ask(func(l *Lab, args A) (any, error) {
		defer l.announcer.wake()
		return nil, do(l, args)
	})
}

// show makes a call of a function without an argument.
func show(do func(*Lab) any) func(*Lab, json.RawMessage) (any, error) {
	return ask(func(l *Lab, _ struct{}) (any, error) { return do(l), nil })
}

// full makes an empty list of none: programs want to go through it.
func full[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func fullSubsystems(list []target.SubsystemInfo) []target.SubsystemInfo {
	for i := range list {
		s := &list[i]
		s.Listeners, s.Hosts, s.Namespaces = full(s.Listeners), full(s.Hosts), full(s.Namespaces)
		for j := range s.Namespaces {
			s.Namespaces[j].ANA = full(s.Namespaces[j].ANA)
		}
	}
	return full(list)
}

func fullHosts(list []target.HostInfo) []target.HostInfo {
	for i := range list {
		list[i].Zones = full(list[i].Zones)
	}
	return full(list)
}

// zoningInfo is target.Zoning with all its keys.
type (
	zoningInfo struct {
		Enabled    bool       `json:"enabled"`
		Registered bool       `json:"registered"`
		Groups     []zoneInfo `json:"groups"`
	}
	zoneInfo struct {
		Name       string   `json:"name"`
		Hosts      []string `json:"hosts"`
		Subsystems []string `json:"subsystems"`
	}
)

func fullZoning(z target.Zoning) zoningInfo {
	info := zoningInfo{z.Enabled, z.Registered, []zoneInfo{}}
	for _, g := range z.Groups {
		info.Groups = append(info.Groups, zoneInfo{g.Name, full(g.Hosts), full(g.Subsystems)})
	}
	return info
}

func (l *Lab) setZoning(a zoningArgs) error {
	z := l.Zoning()
	if a.Enabled != nil {
		z.Enabled = *a.Enabled
	}
	if a.Registered != nil {
		z.Registered = *a.Registered
	}
	return l.SetZoning(z)
}

func (l *Lab) setHost(a hostArgs) (err error) {
	h := target.Host{NQN: a.NQN, Hash: a.Hash, Group: a.Group}
	if a.Key != "" {
		if h.Key, err = dhchap.ParseKey(a.Key); err != nil {
			return err
		}
	}
	if a.CtrlKey != "" {
		if h.CtrlKey, err = dhchap.ParseKey(a.CtrlKey); err != nil {
			return err
		}
	}
	return l.SetHost(h)
}

// DefaultControl is where a lab takes commands unless told otherwise.
func DefaultControl() (string, error) {
	const name = "stas-lab.sock"
	if os.Geteuid() == 0 {
		return filepath.Join("/run", name), nil
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return filepath.Join(dir, name), nil
	}
	return "", errors.New("XDG_RUNTIME_DIR is not set, so there is no place for the control socket; name one with --control")
}

// server takes calls.
type server struct {
	socket  net.Listener
	log     *slog.Logger
	running sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool // nil once it is closed
}

// listenControl makes the control socket, in place of one that nobody listens
// on any more.
func listenControl(path string, log *slog.Logger) (*server, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("control socket: %w", err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("control socket: %s is something else already; name another one with --control", path)
	default:
		if conn, err := net.DialTimeout("unix", path, callTimeout); err == nil {
			conn.Close()
			return nil, fmt.Errorf("a lab runs already at %s; end it by: stas-lab ctl stop; or have a socket of your own with --control", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("control socket: %w", err)
		}
	}
	socket, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		socket.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return &server{socket: socket, log: log, conns: make(map[net.Conn]bool)}, nil
}

// start answers calls about a lab.
func (s *server) start(l *Lab) {
	s.running.Go(func() {
		for {
			conn, err := s.socket.Accept()
			if err != nil {
				if errors.Is(err, net.ErrClosed) {
					return
				}
				s.log.Error("control socket", "error", err)
				time.Sleep(100 * time.Millisecond) // out of file descriptors, most likely
				continue
			}
			if !s.keep(conn) {
				conn.Close()
				return
			}
			s.running.Go(func() {
				s.serve(l, conn)
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.conns, conn)
				conn.Close()
			})
		}
	})
}

func (s *server) keep(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		return false
	}
	s.conns[conn] = true
	return true
}

func (s *server) serve(l *Lab, conn net.Conn) {
	_ = conn.SetDeadline(time.Now().Add(callTimeout)) // it is a socket
	var c call
	var a answer
	err := json.NewDecoder(io.LimitReader(conn, maxCall)).Decode(&c)
	if err != nil {
		err = fmt.Errorf("this is no call: %w", err)
	} else {
		a.Result, err = c.run(l)
	}
	if err != nil {
		a.Error = err.Error()
	}
	// Who has gone does not want to know.
	_ = json.NewEncoder(conn).Encode(a)
}

func (c call) run(l *Lab) (json.RawMessage, error) {
	do, ok := calls[c.Do]
	if !ok {
		return nil, fmt.Errorf("there is no call %q", c.Do)
	}
	result, err := do(l, c.With)
	if err != nil || result == nil {
		return nil, err
	}
	return json.Marshal(result)
}

// close ends the conversations but for those that are being answered, and
// removes the socket.
func (s *server) close() {
	s.socket.Close()
	s.mu.Lock()
	for conn := range s.conns {
		// No further calls; an answer may still go out.
		if half, ok := conn.(*net.UnixConn); ok {
			_ = half.CloseRead()
		}
	}
	s.conns = nil
	s.mu.Unlock()
	s.running.Wait()
}

// client asks a lab.
type client struct{ path string }

// do makes a call. Result is a pointer, or nil if there is none. Its errors are
// failures of the command, not of its arguments.
func (c client) do(name string, with, result any) error { return failed(c.ask(name, with, result)) }

func (c client) ask(name string, with, result any) error {
	conn, err := net.DialTimeout("unix", c.path, callTimeout)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("%w; only who runs the lab may drive it", err)
		}
		return fmt.Errorf("no lab runs at %s; start one: stas-lab serve; or name its socket with --control", c.path)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(callTimeout)) // it is a socket
	args, err := json.Marshal(with)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(conn).Encode(call{name, args}); err != nil {
		return fmt.Errorf("the lab at %s does not listen: %w", c.path, err)
	}
	var a answer
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return fmt.Errorf("the lab at %s does not answer: %w", c.path, err)
	}
	if a.Error != "" {
		return errors.New(a.Error + remedy(a.Error))
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(a.Result, result)
}

// remedies say what to look at if something does not exist.
var remedies = map[string]string{
	"listener": "listeners", "subsystem": "subsystems", "namespace": "subsystems", "host": "hosts", "zone": "zones", "fault": "faults",
}

// remedy adds to an error what lists that which exists. Such an error ends in
// what does not: "subsystem nqn.a: namespace 3: no such thing".
func remedy(text string) string {
	text, notFound := strings.CutSuffix(text, ": "+target.ErrNotFound.Error())
	what, _, _ := strings.Cut(strings.TrimSpace(text[strings.LastIndex(text, ": ")+1:]), " ")
	if notFound && remedies[what] != "" {
		return "; what there is tells: stas-lab ctl show " + remedies[what]
	}
	return ""
}
