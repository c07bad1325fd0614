//go:build linux

package scenario

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// The peer is nvme-stas, whose place STAS takes. In the suite trixie-peer it
// is installed beside STAS (test/vm/guest/image/peer.sh).
const (
	peerDir          = "/usr/lib/peer"
	peerStafd Daemon = "peer-stafd"
	peerStacd Daemon = "peer-stacd"
)

// needPeer skips the test where there is no peer.
func needPeer(t *testing.T) {
	t.Helper()
	if !InGuest() || !exists(peerDir) {
		t.Skip("go run ./test/vm test -suite trixie-peer -run ^TestPeer runs this in a guest")
	}
}

// side is the daemons of one of the two, and its tools.
type side struct {
	name         string
	stafd, stacd Daemon
	tools        string // their directory
}

var (
	ours   = side{"STAS", Stafd, Stacd, "/usr/bin"}
	theirs = side{"nvme-stas", peerStafd, peerStacd, peerDir}
)

// said is what a call of a tool gave.
type said struct {
	Status int
	Stdout string
	Stderr string
	Value  any // of Stdout, if that is Python's notation
}

// call is the tool, without its directory, and its arguments.
type call []string

func (c call) String() string { return strings.Join(c, " ") }

func (c call) in(s side) []string {
	return append([]string{filepath.Join(s.tools, c[0])}, c[1:]...)
}

// peerHostNQN is in /etc/nvme/hostnqn of the guest.
const peerHostNQN = "nqn.2014-08.org.nvmexpress:uuid:73746173-766d-4000-8000-000000000001"

// shows are the calls that show all there is.
var shows = []call{
	{"stafctl", "status"},
	{"stafctl", "ls"},
	{"stafctl", "ls", "-d"},
	{"stafctl", "adlp"},
	{"stafctl", "adlp", "-d"},
	{"stafctl", "dlp", "-a", "127.0.0.1", "-s", "8009"},
	{"stacctl", "status"},
	{"stacctl", "ls"},
	{"stacctl", "ls", "-d"},
}

// others are the calls with all other options, those that set something, and
// mistaken ones.
var others = []call{
	{"stafctl", "ls", "--detailed"},
	{"stafctl", "ls", "--det"}, // a long option may be cut short
	{"stafctl", "adlp", "--detailed"},
	{"stafctl", "dlp", "-t", "tcp", "-a127.0.0.1", "-s8009", "-w", "", "-f", "", "-q", peerHostNQN, "-n", nvme.WellKnownDiscoveryNQN},
	{
		"stafctl", "dlp", "--transport=tcp", "--traddr=127.0.0.1", "--trsvcid", "8009", "--host-traddr=", "--host-iface=",
		"--host-nqn", peerHostNQN, "--nqn", nvme.WellKnownDiscoveryNQN,
	},
	{"stafctl", "dlp", "--trad", "127.0.0.1", "--trsv", "8009"},
	{"stafctl", "dlp", "-a", "127.0.0.1", "-s", ""}, // the default port, 8009
	{"stafctl", "dlp", "-a", "127.0.0.1", "-s", "1"},
	{"stafctl", "dlp", "-a", "127.0.0.1", "-s", "8009", "-t", "rdma"},
	{"stafctl", "dlp", "-a", "127.0.0.1", "-s", "8009", "-f", "lo"},
	{"stafctl", "dlp", "-a", "127.0.0.1", "-s", "8010", "-f", "lo"},
	{"stafctl", "dlp", "-a", "127.0.0.1", "-s", "8009", "-w", "127.0.0.1"},
	{"stafctl", "dlp", "-a", "127.0.0.1", "-s", "8009", "-q", "nqn.2014-08.org.example:another"},
	{"stafctl", "dlp", "-a", "127.0.0.1", "-s", "8009", "-n", nqn(0)},
	{"stacctl", "ls", "--detailed"},
	{"stafctl", "tron"},
	{"stafctl", "status"},
	{"stafctl", "troff"},
	{"stacctl", "tron"},
	{"stacctl", "status"},
	{"stacctl", "troff"},
	{"stafctl", "dlp"},
	{"stafctl", "dlp", "-a", "127.0.0.1"},
	{"stafctl", "dlp", "-a", "127.0.0.1", "-s", "8009", "-t", "pcie"},
	{"stafctl", "dlp", "-a", "127.0.0.1", "-s", "8009", "more"},
	{"stafctl", "ls", "--nosuch"},
	{"stafctl", "nosuch"},
	{"stacctl", "ls", "-d", "more"},
	{"stacctl", "adlp"},
	{"stacctl", "dlp", "-a", "127.0.0.1", "-s", "8009"},
}

//go:embed peer.py
var peerScript string

// ask calls tools of a side, one after the other.
func (s side) ask(g *Guest, calls []call) []said {
	g.Helper()
	all := make([]said, len(calls))
	if s == theirs {
		lines := make([][]string, len(calls))
		for i, c := range calls {
			lines[i] = c.in(s)
		}
		in, err := json.Marshal(lines)
		if err != nil {
			g.Fatal(err)
		}
		cmd := exec.Command("python3", "-c", peerScript)
		cmd.Stdin = bytes.NewReader(in)
		var complaints bytes.Buffer
		cmd.Stderr = &complaints
		out, err := cmd.Output()
		if err == nil {
			err = json.Unmarshal(out, &all)
		}
		if err != nil {
			g.Fatalf("calling the tools of nvme-stas: %v\n%s%s", err, out, complaints.String())
		}
		return all
	}
	for i, c := range calls {
		line := c.in(s)
		cmd := exec.Command(line[0], line[1:]...)
		var out, complaints bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &complaints
		if err := cmd.Run(); err != nil {
			if _, ok := errors.AsType[*exec.ExitError](err); !ok {
				g.Fatal(err)
			}
		}
		all[i] = said{Status: cmd.ProcessState.ExitCode(), Stdout: out.String(), Stderr: complaints.String()}
	}
	return all
}

// peerState is a state of the world in which the tools are compared.
type peerState struct {
	name string
	come func(g *Guest, s side) // into the state
	more []call                 // besides shows
}

var peerStates = []peerState{
	{name: "Empty", come: func(g *Guest, s side) {
		g.Start(s.stafd, s.stacd)
	}},
	{name: "Connected", more: others, come: func(g *Guest, s side) {
		peerTarget(g)
		g.Configure(Stafd, peerStafdConf)
		g.Configure(Stacd, peerStacdConf)
		peerUp(g, s, []Port{portA, portB}, nqn(0), nqn(1), nqn(3))
	}},
	{name: "Down", come: func(g *Guest, s side) {
		peerTarget(g)
		// One that is lost, and one that was never there.
		g.Configure(Stafd, quick+stafdConf(portA, Port{Addr: "127.0.0.1", Svc: 8999}))
		peerUp(g, s, []Port{portA}, nqn(0), nqn(1), nqn(2))
		g.ClosePort(portA)
		eventually(g, soon, "the port was closed", liveIs(g))
	}},
	{name: "Reloaded", come: func(g *Guest, s side) {
		peerTarget(g)
		g.Configure(Stafd, peerStafdConf)
		g.Configure(Stacd, peerStacdConf)
		peerUp(g, s, []Port{portA, portB}, nqn(0), nqn(1), nqn(3))
		g.Configure(Stafd, quick+stafdConf(portA))
		g.Configure(Stacd, quick+controllersSection+"exclude = nqn="+nqn(2)+"\n")
		g.Reload(s.stafd, s.stacd)
		eventually(g, soon, "the reload", liveIs(g, nqn(0), nqn(1)))
		eventually(g, soon, "the reload", dcsAre(g, portA))
	}},
	{name: "Restarted", come: func(g *Guest, s side) {
		peerTarget(g)
		g.Configure(Stafd, peerStafdConf)
		g.Configure(Stacd, peerStacdConf)
		peerUp(g, s, []Port{portA, portB}, nqn(0), nqn(1), nqn(3))
		g.Stop(s.stafd, s.stacd)
		g.Start(s.stafd, s.stacd)
	}},
	{name: "Discovered", more: []call{{"stafctl", "dlp", "-a", "192.168.101.2", "-s", "8009", "-f", "link1"}}, come: func(g *Guest, s side) {
		l := newLink(g, 1)
		startAvahiDaemon(g)
		l.serve("the array")
		g.Configure(Stafd, quick)
		g.Configure(Stacd, quick)
		peerUp(g, s, []Port{{Svc: 8009}}, nqn(1))
	}},
}

const peerStafdConf = quick + `kato = 60
[Controllers]
controller = transport=tcp;traddr=127.0.0.1;trsvcid=8009
controller = transport = tcp ; traddr = 127.0.0.1 ; trsvcid = 8010 ; host-iface = lo ; kato = 20 ; ctrl-loss-tmo = 300
`

const peerStacdConf = quick + `[Controllers]
controller = transport=tcp;traddr=127.0.0.1;trsvcid=8009;nqn=nqn.2026-11.org.example:subsys0;nr-io-queues=1;hdr-digest=true;data-digest=false
exclude = nqn=nqn.2026-11.org.example:subsys2
`

// peerTarget sets up a target with three subsystems here and one there.
func peerTarget(g *Guest) {
	g.Helper()
	g.OpenPort(portA)
	g.OpenPort(portB)
	for i := range 3 {
		g.AddSubsystem(nqn(i), portA)
	}
	g.AddSubsystem(nqn(3), portB)
}

// peerUp starts the daemons of a side, and waits for discovery controllers and
// subsystems.
func peerUp(g *Guest, s side, dcs []Port, want ...string) {
	g.Helper()
	g.Start(s.stafd, s.stacd)
	eventually(g, 2*soon, s.name+" connects", liveIs(g, want...))
	eventually(g, soon, s.name+" connects", dcsAre(g, dcs...))
}

// dcsAre complains unless the discovery controllers are those of the ports.
func dcsAre(g *Guest, want ...Port) func() string {
	return func() string {
		var got []string
		for _, c := range g.Controllers() {
			if c.Kind == nvmesysfs.Discovery && c.State == nvmesysfs.Live {
				got = append(got, c.TrSvcID)
			}
		}
		slices.Sort(got)
		services := make([]string, len(want))
		for i, p := range want {
			services[i] = strconv.Itoa(p.Svc)
		}
		if !slices.Equal(got, services) {
			return fmt.Sprintf("the discovery controllers are %v, want %v", got, services)
		}
		return ""
	}
}

// onlyAre complains unless the subsystems are live and no other is there.
func onlyAre(g *Guest, want ...string) func() string {
	return func() string {
		if all := instances(g); len(all) != len(want) {
			return fmt.Sprintf("the controllers are %v", all)
		}
		return liveIs(g, want...)()
	}
}

// settled is how long a state is left alone before it is looked at. nvme-stas
// reads log pages and configuration late.
const settled = 5 * time.Second

// TestPeerTools compares, in each state, what the tools say.
func TestPeerTools(t *testing.T) {
	needPeer(t)
	for _, state := range peerStates {
		t.Run(state.name, func(t *testing.T) {
			byPeer := make(map[side][]said) // what its tools say of the daemons of a side
			calls := slices.Concat(shows, state.more)
			for _, s := range []side{theirs, ours} {
				t.Run("DaemonsOf"+s.name, func(t *testing.T) {
					g := NewGuest(t)
					state.come(g, s)
					g.Sleep(settled)
					byPeer[s] = theirs.ask(g, calls)
					sameText(t, calls, byPeer[s], ours.ask(g, calls))
				})
			}
			if len(byPeer) == 2 {
				t.Run("Values", func(t *testing.T) { sameValues(t, state.name, calls, byPeer[theirs], byPeer[ours]) })
			}
		})
	}
}

// passing and running are what goes on while two tools look at the same daemon:
// timers, attempts, and one that one of them happens to see.
var (
	passing = regexp.MustCompile(`\[\d+(\.\d+)?s\]|'connect attempts': '[1-9]\d*'`)
	running = regexp.MustCompile(`\n *'connect operation': "[^"]*",`)
)

// still is what a tool printed, without what goes on meanwhile.
func still(text string) string {
	return passing.ReplaceAllString(running.ReplaceAllString(text, ""), "[s]")
}

// sameText compares what the tools of both say of the same daemons.
func sameText(t *testing.T, calls []call, want, got []said) {
	t.Helper()
	for i, c := range calls {
		if still(got[i].Stdout) != still(want[i].Stdout) || got[i].Status != want[i].Status || (got[i].Stderr == "") != (want[i].Stderr == "") {
			t.Errorf("%s: exit status %d, it printed\n%s%s\nthat of nvme-stas: exit status %d, it printed\n%s%s",
				c, got[i].Status, got[i].Stdout, got[i].Stderr, want[i].Status, want[i].Stdout, want[i].Stderr)
		}
	}
}

// sameValues compares what the tools of nvme-stas say of the daemons of both.
func sameValues(t *testing.T, state string, calls []call, want, got []said) {
	t.Helper()
	for i, c := range calls {
		if got[i].Status != want[i].Status {
			t.Errorf("%s: exit status %d, want %d\n%s", c, got[i].Status, want[i].Status, got[i].Stderr)
			continue
		}
		wantValues, gotValues := flat(want[i].Value), flat(got[i].Value)
		keys := slices.Sorted(maps.Keys(wantValues))
		for key := range gotValues {
			if _, ok := wantValues[key]; !ok {
				keys = append(keys, key)
			}
		}
		for _, key := range keys {
			a, b := or(wantValues[key], "absent"), or(gotValues[key], "absent")
			explained := func(d difference) bool { return d.explains(state, key, a, b) }
			if a != b && !slices.ContainsFunc(differences, explained) {
				t.Errorf("%s: %s is %s, want %s", c, key, b, a)
			}
		}
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// difference is one that is meant to be.
type difference struct {
	key         *regexp.Regexp // of the flat value
	peer, stas  *regexp.Regexp // the values of nvme-stas, and of STAS
	state       string         // where it occurs; everywhere if empty
	explanation string
}

// differences are all of them. Without stas or peer, any value is meant.
var differences = []difference{
	{
		key: regexp.MustCompile(`/last known config file$`), stas: regexp.MustCompile(`state\.json$`),
		explanation: "a file that is no pickle has another name",
	},
	{
		key:  regexp.MustCompile(`^/avahi/avahi wake up timer$`),
		peer: regexp.MustCompile(`^string 60\.0s \[s\]$`), stas: regexp.MustCompile(`^string 60\.0s \[off\]$`),
		explanation: "without Avahi, stafd browses by itself",
	},
	{
		key:         regexp.MustCompile(`^/avahi/service types\[\d\]$`),
		peer:        regexp.MustCompile(`^string _nvme-disc\._(tcp|udp)$`),
		stas:        regexp.MustCompile(`^string _nvme-disc\._(tcp|udp)$`),
		explanation: "nvme-stas has them in no order",
	},
	{
		key:  regexp.MustCompile(`/connect attempts$`),
		peer: regexp.MustCompile(` [1-9]\d*$`), stas: regexp.MustCompile(` [1-9]\d*$`),
		explanation: "how often depends on when, and STAS tries more often at first",
	},
	{
		key:         regexp.MustCompile(`/connect operation$`),
		explanation: "is there while an attempt runs",
	},
	{
		key:  regexp.MustCompile(`/retry connect timer$`),
		peer: regexp.MustCompile(`\[off\]$`), stas: regexp.MustCompile(`\[off\]$`),
		explanation: "an interval of a timer that does not run",
	},
	{
		key:  regexp.MustCompile(`/(hdr-digest|data-digest|nr-io-queues)$`),
		peer: regexp.MustCompile(`.`), stas: regexp.MustCompile(`^absent$`), state: "Reloaded",
		explanation: "what a line said that has gone; nvme-stas shows it as long as the controller stays",
	},
}

func (d difference) explains(state, key, peer, stas string) bool {
	return (d.state == "" || d.state == state) && d.key.MatchString(key) &&
		(d.peer == nil || d.peer.MatchString(peer)) && (d.stas == nil || d.stas.MatchString(stas))
}

// flat makes a flat map of a value: the keys are paths, in which elements of a
// list are named by their identity, if they have one. What is another one in
// every run is replaced.
func flat(v any) map[string]string {
	all := make(map[string]string)
	flatten(all, "", v)
	return all
}

var (
	deviceName = regexp.MustCompile(`\bnvme\d+`)
	serial     = regexp.MustCompile(`^serial$`)
)

func flatten(all map[string]string, path string, v any) {
	switch v := v.(type) {
	case map[string]any:
		all[path+"{}"] = "dict"
		for key, e := range v {
			if serial.MatchString(key) {
				e = "serial"
			}
			flatten(all, path+"/"+key, e)
		}
	case []any:
		all[path+"[]"] = fmt.Sprintf("list of %d", len(v))
		for i, e := range v {
			name := identity(e)
			if name == "" {
				name = strconv.Itoa(i)
			}
			flatten(all, path+"["+name+"]", e)
		}
	default:
		text := fmt.Sprintf("%T %[1]v", v)
		text = deviceName.ReplaceAllString(text, "nvmeN")
		all[path] = passing.ReplaceAllString(text, "[s]")
	}
}

// identity names what is one of many.
func identity(v any) string {
	d, ok := v.(map[string]any)
	if !ok {
		return ""
	}
	if dc, ok := d["discovery-controller"]; ok {
		return identity(dc)
	}
	var parts []string
	for _, key := range []string{"traddr", "trsvcid", "subsysnqn", "subnqn"} {
		if part, ok := d[key]; ok {
			parts = append(parts, fmt.Sprint(part))
		}
	}
	return strings.Join(parts, " ")
}

// TestPeerMixed has one daemon of each: storage is connected, changes are
// followed, and whichever restarts, nothing is lost.
func TestPeerMixed(t *testing.T) {
	needPeer(t)
	for _, s := range []side{
		{name: "StafdOfPeer", stafd: peerStafd, stacd: Stacd},
		{name: "StacdOfPeer", stafd: Stafd, stacd: peerStacd},
	} {
		t.Run(s.name, func(t *testing.T) {
			g := NewGuest(t)
			offer(g, portA, 2)
			g.Configure(Stafd, quick+stafdConf(portA))
			g.Configure(Stacd, quick)
			peerUp(g, s, []Port{portA}, nqn(0), nqn(1))
			g.AddSubsystem(nqn(2), portA)
			eventually(g, 2*soon, "a subsystem was added", liveIs(g, nqn(0), nqn(1), nqn(2)))
			g.RemoveSubsystem(nqn(0), portA)
			eventually(g, 2*soon, "a subsystem was removed", onlyAre(g, nqn(1), nqn(2)))
			verified := fio(g, g.BlockDevice(nqn(1)))
			before := instances(g)
			for _, d := range []Daemon{s.stafd, s.stacd} {
				g.Stop(d)
				throughout(g, 3*time.Second, string(d)+" has stopped", instancesAre(g, before))
				g.Start(d)
				throughout(g, 8*time.Second, string(d)+" was started", instancesAre(g, before))
			}
			verified()
			g.AddSubsystem(nqn(0), portA)
			eventually(g, 2*soon, "a subsystem was added", liveIs(g, nqn(0), nqn(1), nqn(2)))
			g.RemoveSubsystem(nqn(2), portA)
			eventually(g, 2*soon, "a subsystem was removed", onlyAre(g, nqn(0), nqn(1)))
		})
	}
}

// peerMemory is what nvme-stas leaves in /run: a pickle, of no use to others.
const peerMemory = "last-known-config.pickle"

// TestPeerReplaced installs one in the place of the other, with the same
// configuration, while the storage is used.
func TestPeerReplaced(t *testing.T) {
	needPeer(t)
	for _, c := range []struct {
		name       string
		first, new side
	}{{"ByOurs", theirs, ours}, {"Back", ours, theirs}} {
		t.Run(c.name, func(t *testing.T) {
			g := NewGuest(t)
			peerTarget(g)
			g.Configure(Stafd, peerStafdConf)
			g.Configure(Stacd, peerStacdConf)
			want := []string{nqn(0), nqn(1), nqn(3)}
			peerUp(g, c.first, []Port{portA, portB}, want...)
			before := instances(g)
			controllers := (&victim{World: g}).controllers()
			verified := fio(g, g.BlockDevice(nqn(1)))
			g.Stop(c.first.stafd, c.first.stacd)
			if c.first == theirs {
				for _, dir := range stateDirs {
					if file := filepath.Join(dir, peerMemory); !exists(file) {
						t.Errorf("nvme-stas has left no %s", file)
					}
				}
			}
			g.Start(c.new.stafd, c.new.stacd)
			throughout(g, 10*time.Second, c.new.name+" was started", instancesAre(g, before))
			if now := (&victim{World: g}).controllers(); !maps.Equal(now, controllers) {
				t.Errorf("the controllers are %v, were %v", now, controllers)
			}
			verified()
			eventually(g, soon, c.new.name+" has taken over", dcsAre(g, portA, portB))
			g.RemoveSubsystem(nqn(1), portA)
			g.AddSubsystem("nqn.2026-11.org.example:new", portB)
			eventually(g, 2*soon, c.new.name+" follows", onlyAre(g, nqn(0), nqn(3), "nqn.2026-11.org.example:new"))
		})
	}
}

// introspection is what a daemon tells of its interfaces.
type introspection struct {
	Interfaces []struct {
		Name    string `xml:"name,attr"`
		Methods []struct {
			Name string    `xml:"name,attr"`
			Args []busArgs `xml:"arg"`
		} `xml:"method"`
		Signals []struct {
			Name string    `xml:"name,attr"`
			Args []busArgs `xml:"arg"`
		} `xml:"signal"`
		Properties []struct {
			Name   string `xml:"name,attr"`
			Type   string `xml:"type,attr"`
			Access string `xml:"access,attr"`
		} `xml:"property"`
	} `xml:"interface"`
}

type busArgs struct {
	Name      string `xml:"name,attr"`
	Type      string `xml:"type,attr"`
	Direction string `xml:"direction,attr"`
}

// members are the methods, signals and properties of the daemon on the bus,
// with their arguments.
func members(g *Guest, name string) map[string]string {
	g.Helper()
	path := "/" + strings.ReplaceAll(name, ".", "/")
	text := run(g, "busctl", "--json=short", "call", name, path, "org.freedesktop.DBus.Introspectable", "Introspect")
	var reply struct{ Data []string }
	if err := json.Unmarshal([]byte(text), &reply); err != nil || len(reply.Data) != 1 {
		g.Fatalf("busctl: %v: %s", err, text)
	}
	var in introspection
	if err := xml.Unmarshal([]byte(reply.Data[0]), &in); err != nil {
		g.Fatalf("%v: %s", err, reply.Data[0])
	}
	all := make(map[string]string)
	for _, i := range in.Interfaces {
		if !strings.HasPrefix(i.Name, name) {
			continue
		}
		for _, m := range i.Methods {
			all[i.Name+"."+m.Name] = fmt.Sprint("method", m.Args)
		}
		for _, s := range i.Signals {
			for k := range s.Args {
				s.Args[k].Direction = "out" // the only one there is, and implied
			}
			all[i.Name+"."+s.Name] = fmt.Sprint("signal", s.Args)
		}
		for _, p := range i.Properties {
			all[i.Name+"."+p.Name] = fmt.Sprint("property", p)
		}
	}
	return all
}

// TestPeerInterfaces compares what is on the bus.
func TestPeerInterfaces(t *testing.T) {
	needPeer(t)
	seen := make(map[side]map[string]string)
	for _, s := range []side{theirs, ours} {
		g := NewGuest(t)
		g.Start(s.stafd, s.stacd)
		seen[s] = members(g, "org.nvmexpress.staf")
		maps.Copy(seen[s], members(g, "org.nvmexpress.stac"))
	}
	if len(seen[theirs]) != 14 {
		t.Errorf("nvme-stas has %d members, want 14", len(seen[theirs]))
	}
	for name, want := range seen[theirs] {
		if got := seen[ours][name]; got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

// randomID is a UUID that stasadm makes, alone on its line.
var randomID = regexp.MustCompile(`(?m)^(id = )?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// TestPeerStasadm compares what stasadm writes for a host without identity. Of
// one that has an identity, STAS keeps it.
func TestPeerStasadm(t *testing.T) {
	needPeer(t)
	g := NewGuest(t)
	dir := t.TempDir()
	t.Chdir(dir)
	for _, words := range [][]call{
		{{"hostnqn"}},
		{{"hostid"}},
		{{"set-symname", "a name of five words"}},
		{{"set-symname", "a name"}, {"clear-symname"}},
		{{"hostnqn", "-f", dir + "/nqn"}},
		{{"hostid", "--file=" + dir + "/id"}},
		{{"set-symname", "-f" + dir + "/symname", "a name"}},
		{{"set-symname", "-f", dir + "/symname", "a name"}, {"clear-symname"}},
		{{"set-symname"}},
		{{"hostnqn", "more"}},
		{{"nosuch"}},
	} {
		calls := make([]call, len(words))
		for i, w := range words {
			calls[i] = append(call{"stasadm", "-c", "sys.conf"}, w...)
		}
		wrote := make(map[side]string)
		for _, s := range []side{theirs, ours} {
			var all strings.Builder
			for _, did := range s.ask(g, calls) {
				fmt.Fprintf(&all, "exit status %d, it printed %q\n", did.Status, did.Stdout)
			}
			files, err := filepath.Glob("*")
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range files {
				text, err := os.ReadFile(name)
				if err = errors.Join(err, os.Remove(name)); err != nil {
					t.Fatal(err)
				}
				// Python ends every section with an empty line.
				fmt.Fprintf(&all, "%s:\n%s\n", name, randomID.ReplaceAllString(strings.TrimSpace(string(text)), "${1}RANDOM"))
			}
			wrote[s] = all.String()
		}
		if wrote[ours] != wrote[theirs] {
			t.Errorf("%v:\n%s\nthat of nvme-stas:\n%s", calls, wrote[ours], wrote[theirs])
		}
	}
}
