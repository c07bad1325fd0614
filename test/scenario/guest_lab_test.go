//go:build linux

package scenario

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nvme-stas/stas/pkg/dhchap"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
	"github.com/nvme-stas/stas/pkg/target"
)

// labCases show that Linux takes the target of pkg/target for a real one, and
// takes its faults as it takes those of real ones.
var labCases = []struct {
	name string
	run  func(*Guest)
}{
	{"DiscoverIPv4", func(g *Guest) { labDiscover(g, portA, "ddc", uniqueNQN) }},
	{"DiscoverIPv6", func(g *Guest) { labDiscover(g, portV6, "cdc", nvme.WellKnownDiscoveryNQN) }},
	{"DiscoverByUniqueNQN", labUniqueNQN},
	{"Registration", labRegistration},
	{"Events", labEvents},
	{"EventsOfNamespaces", labNamespaces},
	{"Zoning", labZoning},
	{"Authentication", labAuthentication},
	{"FileSystem", labFileSystem},
	{"Blocks", labBlocks},
	{"Multipath", labMultipath},
	{"Daemons", labDaemons},
	{"DaemonsAndBrokenLogs", labBrokenLogs},
	{"DaemonsAndOutage", labOutage},
	{"DaemonsRefusedForAMoment", labRefusedForAMoment},
	{"Program", labProgram},
	{"Announced", labAnnounced},
	{"ConnectFaults", labConnectFaults},
	{"ReconnectFaults", labReconnectFaults},
	{"LiveFaults", labLiveFaults},
	{"SlowFaults", labSlowFaults},
	{"Stuck", labStuck},
	{"BlackHoles", labBlackHoles},
	{"Stafd", labStafd},
}

// TestGuestLab runs the cases against a target in this process.
func TestGuestLab(t *testing.T) {
	if !InGuest() {
		t.Skip("go run ./test/vm test runs this in a guest")
	}
	for _, c := range labCases {
		t.Run(c.name, func(t *testing.T) { c.run(NewGuest(t)) })
	}
}

// A direct discovery controller with a name of its own, reached by IPv4, and a
// centralized one without, reached by IPv6, as nvme-cli and sysfs show them.
func labDiscover(g *Guest, p Port, dctype, discoveryNQN string) {
	openLab(g, target.Config{
		Listeners: []target.Listener{
			labListener(portA, target.Discovery{NQN: uniqueNQN, Flags: target.EntryFlags{EPCSD: true}}),
			labListener(portV6, target.Discovery{Type: target.CDC}),
		},
		Subsystems: labSubsystems(2),
	})

	var log struct {
		Records []struct {
			AdrFam, SubType, TrSvcID, SubNQN, TrAddr string
			PortID                                   int
		}
	}
	nvmeJSON(g, &log, append([]string{"discover"}, portArgs(p)...)...)
	var got []string
	for _, r := range log.Records {
		got = append(got, fmt.Sprint(r.SubType, " ", r.SubNQN, " at ", r.AdrFam, " ", r.TrAddr, " ", r.TrSvcID, " port ", r.PortID))
	}
	atA, atV6 := "at ipv4 127.0.0.1 8009 port 1", "at ipv6 ::1 8009 port 3"
	want := []string{
		"current discovery subsystem " + discoveryNQN + " " + atA,
		"nvme subsystem " + nqn(0) + " " + atA,
		"nvme subsystem " + nqn(1) + " " + atA,
	}
	if p == portV6 { // a CDC knows of all ports
		want = []string{
			"current discovery subsystem " + discoveryNQN + " " + atV6,
			"nvme subsystem " + nqn(0) + " " + atA, "nvme subsystem " + nqn(0) + " " + atV6,
			"nvme subsystem " + nqn(1) + " " + atA, "nvme subsystem " + nqn(1) + " " + atV6,
		}
	}
	if !slices.Equal(got, want) {
		g.Errorf("nvme discover shows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	run(g, "nvme", append([]string{"connect-all"}, portArgs(p)...)...)
	paths := len(want) - 1
	eventually(g, soon, "connect-all", func() string {
		if got := live(g); len(got) != paths || got[0] != nqn(0) || got[paths-1] != nqn(1) {
			return fmt.Sprintf("live are %v, want %d paths", got, paths)
		}
		return ""
	})
	for _, s := range nqns(2) {
		g.BlockDevice(s) // waits for it
	}
	var list struct {
		Devices []struct {
			DevicePath, ModelNumber  string
			PhysicalSize, SectorSize int64
		}
	}
	nvmeJSON(g, &list, "list")
	if len(list.Devices) != 2 {
		g.Errorf("nvme list shows %d devices, want 2: %v", len(list.Devices), list)
	}
	for _, d := range list.Devices {
		if d.PhysicalSize != 64<<20 || d.SectorSize != 512 || strings.TrimSpace(d.ModelNumber) != "STAS lab" {
			g.Errorf("nvme list shows %+v", d)
		}
	}

	dc := connectDC(g, p)
	for name, want := range map[string]string{
		"cntrltype": "discovery", "dctype": dctype, "subsysnqn": discoveryNQN, "kato": "30", "queue_count": "1",
	} {
		if complaint := attrIs(g, dc, name, want)(); complaint != "" {
			g.Error(complaint)
		}
	}

	for _, s := range nqns(2) {
		run(g, "nvme", "disconnect", "--nqn="+s)
	}
	run(g, "nvme", "disconnect", "--device="+dc)
	eventually(g, soon, "nvme disconnect", func() string { return g.describeControllers() })
}

// A discovery subsystem with a name of its own answers to it, and to the
// well-known one.
func labUniqueNQN(g *Guest) {
	lab := openLab(g, target.Config{
		Listeners:  []target.Listener{labListener(portA, target.Discovery{NQN: uniqueNQN})},
		Subsystems: labSubsystems(1),
	})
	for name, more := range map[string]string{
		nvme.WellKnownDiscoveryNQN: ",keep_alive_tmo=30",
		uniqueNQN:                  ",discovery,keep_alive_tmo=30",
	} {
		dc := connect(g, portA, name, more)
		for attribute, want := range map[string]string{
			"cntrltype": "discovery", "dctype": "ddc", "subsysnqn": uniqueNQN, "state": "live",
		} {
			if complaint := attrIs(g, dc, attribute, want)(); complaint != "" {
				g.Errorf("connected by %s: %s", name, complaint)
			}
		}
		if got := storageIn(readLog(g, dc)); !slices.Equal(got, nqns(1)) {
			g.Errorf("connected by %s: the log lists %v", name, got)
		}
	}
	if got := lab.Connections(); len(got) != 2 || got[0].KATO != target.Duration(30*time.Second) || got[0].AERs == 0 {
		g.Errorf("the target sees %+v", got)
	}
}

// dim has nvme-cli send a registration or its end by a discovery controller.
func dim(task, controller string) (output string, ok bool) {
	out, err := exec.Command("nvme", "dim", "--task="+task, "--device="+controller).CombinedOutput()
	// nvme-cli 2.3 tells of the error and ends with status 0.
	return string(out), err == nil && !strings.Contains(string(out), "error")
}

func labRegistration(g *Guest) {
	lab := openLab(g, target.Config{Listeners: []target.Listener{
		labListener(portA, target.Discovery{Type: target.CDC}),
		labListener(portB, target.Discovery{Type: target.DDC, Registration: target.Registration{Off: true}}),
		labListener(portV6, target.Discovery{Type: target.Untyped}),
	}})
	host := func() target.HostInfo {
		all := lab.Hosts()
		if len(all) != 1 {
			g.Fatalf("the target knows %d hosts, want 1", len(all))
		}
		return all[0]
	}
	dc := connectDC(g, portA)
	if !host().Registered.IsZero() {
		g.Error("the host is registered before it has done so")
	}
	for range 2 { // again is an update
		if out, ok := dim("register", dc); !ok {
			g.Fatalf("nvme dim: %s", out)
		}
	}
	h := host()
	if h.Registered.IsZero() || h.NQN != attr(g, dc, "hostnqn") || h.ID != attr(g, dc, "hostid") ||
		h.Name != "stas-vm" || h.Address != "127.0.0.1" || h.Listener != labName(portA) || !strings.HasPrefix(h.Software, "Linux ") {
		g.Errorf("the target knows of the host: %+v", h)
	}
	if out, ok := dim("deregister", dc); !ok {
		g.Errorf("nvme dim: %s", out)
	}
	if !host().Registered.IsZero() {
		g.Error("the host is registered after it has taken that back")
	}

	for _, status := range []nvme.Status{
		nvme.StatusInvalidField, nvme.StatusInvalidDiscoveryInformation, nvme.StatusZoningDataStructureLocked,
		nvme.StatusZoningDataStructureNotFound, nvme.StatusInsufficientDiscovery,
		nvme.StatusRequestedFunctionDisabled, nvme.StatusZoneGroupOriginatorInvalid,
	} {
		end := addFault(g, lab, target.Fault{Do: "dim-refused", Status: status})
		out, ok := dim("register", dc)
		end()
		if ok || !strings.Contains(out, fmt.Sprintf("Status:0x%04x", uint16(status))) {
			g.Errorf("refused by %v, nvme dim succeeds or does not say so: %s", status, out)
		}
		if !host().Registered.IsZero() {
			g.Errorf("refused by %v, the host is registered all the same", status)
		}
	}
	for p, why := range map[Port]string{
		portB:  "a DDC that knows no registration",
		portV6: "a controller that does not say it is a discovery controller",
	} {
		if out, ok := dim("register", connectDC(g, p)); ok {
			g.Errorf("%s: nvme dim succeeds: %s", why, out)
		}
	}
}

// A change of the log is told once, until somebody has read the log; what is
// told without a change, or not at all, does no harm.
func labEvents(g *Guest) {
	lab := openLab(g, target.Config{
		Listeners:  []target.Listener{labListener(portA, target.Discovery{})},
		Subsystems: labSubsystems(1),
	})
	dc := connectDC(g, portA)
	events := watchUevents(g)
	aens := func() int { return events.aens(dc) }

	must(g, lab.AddSubsystem(target.Subsystem{NQN: nqn(1)}))
	eventually(g, soon, "events after a subsystem was added", countIs(aens, 1))
	must(g, lab.AddSubsystem(target.Subsystem{NQN: nqn(2)}))
	throughout(g, 2*time.Second, "events while the log is not read", countIs(aens, 1))
	if got := storageIn(readLog(g, dc)); !slices.Equal(got, nqns(3)) {
		g.Errorf("the log lists %v", got)
	}
	must(g, lab.RemoveSubsystem(nqn(2)))
	eventually(g, soon, "events after a subsystem was removed", countIs(aens, 2))
	readLog(g, dc)

	// A storm. The kernel remembers one event a controller: some of those
	// that come at a time become one.
	before := aens()
	end := addFault(g, lab, target.Fault{Do: "aen", Every: target.Duration(2 * time.Millisecond)})
	g.Sleep(2 * time.Second)
	_, sent := struck(g, lab)
	end()
	settle(g, aens)
	g.Logf("%d events were sent, %d uevents seen", sent, aens()-before)
	if got := aens() - before; got < 10 {
		g.Errorf("%d events of a storm of %d became uevents", got, sent)
	}
	if got := storageIn(readLog(g, dc)); !slices.Equal(got, nqns(2)) || attr(g, dc, "state") != "live" {
		g.Errorf("after the storm the controller is %s, and its log lists %v", attr(g, dc, "state"), got)
	}

	// A request for events that fails is not repeated before a reconnect.
	end = addFault(g, lab, target.Fault{Do: "aer-error"})
	lab.SendAEN("", "", nvme.DiscoveryLogChanged) // completes the request there is
	eventually(g, soon, "the next request for events fails", strikes(g, lab))
	end()
	settle(g, aens)
	before = aens()
	must(g, lab.AddSubsystem(target.Subsystem{NQN: nqn(2)}))
	throughout(g, 2*time.Second, "events at a deaf host", countIs(aens, before))
	writeFile(g, "/sys/class/nvme/"+dc+"/reset_controller", "1")
	before = aens()
	must(g, lab.RemoveSubsystem(nqn(2)))
	eventually(g, soon, "events after a reset", countIs(aens, before+1))
}

// Namespaces come and go while a host is connected.
func labNamespaces(g *Guest) {
	lab := openLab(g, target.Config{
		Listeners: []target.Listener{labListener(portA, target.Discovery{})},
		Subsystems: []target.Subsystem{
			{NQN: nqn(0)},
			{NQN: nqn(1), SinglePath: true},
		},
	})
	for _, s := range nqns(2) {
		devices := func(want int) func() string {
			return func() string {
				if got := g.BlockDevices(s); len(got) != want {
					return fmt.Sprintf("its devices are %v, want %d", got, want)
				}
				return ""
			}
		}
		connectIOC(g, portA, s)
		eventually(g, soon, "connected", devices(1))
		first := g.BlockDevice(s)
		must(g, lab.AddNamespace(s, target.Namespace{Size: 8 << 20}))
		must(g, lab.AddNamespace(s, target.Namespace{ID: 7, Size: 16 << 20, BlockSize: 4096}))
		eventually(g, soon, "two namespaces were added", devices(3))
		var got []string
		for _, d := range g.BlockDevices(s) {
			got = append(got, strings.Join(strings.Fields(
				blockAttr(g, d, "nsid")+" "+run(g, "blockdev", "--getss", "--getsize64", d)), " "))
		}
		slices.Sort(got) // their names do not follow their numbers
		if want := []string{"1 512 67108864", "2 512 8388608", "7 4096 16777216"}; !slices.Equal(got, want) {
			g.Errorf("numbers, block sizes and sizes of the namespaces are %q, want %q", got, want)
		}
		must(g, lab.RemoveNamespace(s, 2))
		eventually(g, soon, "a namespace was removed", devices(2))
		must(g, lab.RemoveNamespace(s, 7))
		eventually(g, soon, "the other one was removed", devices(1))
		if got := g.BlockDevice(s); got != first {
			g.Errorf("the first namespace is %s, was %s", got, first)
		}
	}
}

// twoHosts are hosts that this machine can be, with the options by which the
// kernel becomes them.
var twoHosts = [2]struct{ nqn, id string }{
	{"nqn.2014-08.org.nvmexpress:uuid:73746173-766d-4000-8000-00000000000a", "73746173-766d-4000-8000-00000000000a"},
	{"nqn.2014-08.org.nvmexpress:uuid:73746173-766d-4000-8000-00000000000b", "73746173-766d-4000-8000-00000000000b"},
}

// A CDC shows hosts what they share a zone with, once they have registered,
// and tells only those of a change whom it concerns.
func labZoning(g *Guest) {
	lab := openLab(g, target.Config{
		Listeners:  []target.Listener{labListener(portA, target.Discovery{Type: target.CDC})},
		Subsystems: labSubsystems(3),
		Zoning: target.Zoning{Enabled: true, Registered: true, Groups: []target.ZoneGroup{
			{Name: "left", Hosts: []string{twoHosts[0].nqn}, Subsystems: []string{nqn(0)}},
			{Name: "right", Hosts: []string{twoHosts[1].nqn}, Subsystems: []string{nqn(1)}},
		}},
	})
	events := watchUevents(g)
	var dcs [2]string
	aens := [2]func() int{}
	for i, h := range twoHosts {
		dcs[i] = connect(g, portA, nvme.WellKnownDiscoveryNQN, ",keep_alive_tmo=30,hostnqn="+h.nqn+",hostid="+h.id)
		aens[i] = func() int { return events.aens(dcs[i]) }
		if got := storageIn(readLog(g, dcs[i])); len(got) != 0 {
			g.Errorf("before it registers, host %d is told of %v", i, got)
		}
	}
	logs := func(want ...[]string) {
		g.Helper()
		for i, dc := range dcs {
			if got := storageIn(readLog(g, dc)); !slices.Equal(got, want[i]) {
				g.Errorf("host %d is told of %v, want %v", i, got, want[i])
			}
		}
	}
	if out, ok := dim("register", dcs[0]); !ok {
		g.Fatalf("nvme dim: %s", out)
	}
	eventually(g, soon, "events at the host that registers", countIs(aens[0], 1))
	throughout(g, time.Second, "events at the other one", countIs(aens[1], 0))
	logs([]string{nqn(0)}, nil)
	if out, ok := dim("register", dcs[1]); !ok {
		g.Fatalf("nvme dim: %s", out)
	}
	eventually(g, soon, "events at the second host that registers", countIs(aens[1], 1))
	logs([]string{nqn(0)}, []string{nqn(1)})

	must(g, lab.SetZoneGroup(target.ZoneGroup{
		Name: "left", Hosts: []string{twoHosts[0].nqn}, Subsystems: []string{nqn(0), nqn(2)},
	}))
	eventually(g, soon, "events at the host whose zone grows", countIs(aens[0], 2))
	throughout(g, time.Second, "events at the host of the other zone", countIs(aens[1], 1))
	logs([]string{nqn(0), nqn(2)}, []string{nqn(1)})

	must(g, lab.RemoveZoneGroup("right"))
	eventually(g, soon, "events at the host whose zone goes", countIs(aens[1], 2))
	throughout(g, time.Second, "events at the host whose zone stays", countIs(aens[0], 2))
	logs([]string{nqn(0), nqn(2)}, nil)

	// What nvme-cli asks under a host's name, without a lasting connection.
	// With one, 2.3 asks under the name to which that belongs.
	g.deleteControllers()
	for i := range dcs {
		var log struct {
			Records []struct{ SubType, SubNQN string }
		}
		nvmeJSON(g, &log, append([]string{"discover", "--hostnqn=" + twoHosts[i].nqn, "--hostid=" + twoHosts[i].id}, portArgs(portA)...)...)
		var got []string
		for _, r := range log.Records {
			if r.SubType == "nvme subsystem" {
				got = append(got, r.SubNQN)
			}
		}
		if want := [][]string{{nqn(0), nqn(2)}, nil}[i]; !slices.Equal(got, want) {
			g.Errorf("nvme discover of host %d lists %v, want %v", i, got, want)
		}
	}
}

// Keys of 32 bytes, and one that is not right.
const (
	hostKey  = "DHHC-1:00:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAl7OaH:"
	ctrlKey  = "DHHC-1:01:ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj/jBqb2:"
	wrongKey = "DHHC-1:00:QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl9YjiZe:"
)

func labAuthentication(g *Guest) {
	parse := func(text string) dhchap.Key {
		g.Helper()
		k, err := dhchap.ParseKey(text)
		must(g, err)
		return k
	}
	lab := openLab(g, target.Config{
		Listeners:  []target.Listener{labListener(portA, target.Discovery{Authenticate: true})},
		Subsystems: labSubsystems(1),
	})
	known := kernelAuthenticates(g)
	oneWay, bothWays := ",dhchap_secret="+hostKey, ",dhchap_secret="+hostKey+",dhchap_ctrl_secret="+ctrlKey
	for _, c := range []struct {
		name  string
		hash  dhchap.Hash
		group dhchap.Group
		more  string
		want  syscall.Errno
	}{
		{"NULL group", dhchap.SHA256, dhchap.GroupNull, oneWay, 0},
		{"NULL group, bidirectional", dhchap.SHA256, dhchap.GroupNull, bothWays, 0},
		{"SHA-384", dhchap.SHA384, dhchap.GroupNull, bothWays, 0},
		{"SHA-512", dhchap.SHA512, dhchap.GroupNull, bothWays, 0},
		{"ffdhe2048", dhchap.SHA256, dhchap.FFDHE2048, oneWay, 0},
		{"ffdhe2048, bidirectional", dhchap.SHA256, dhchap.FFDHE2048, bothWays, 0},
		{"no key", dhchap.SHA256, dhchap.GroupNull, "", syscall.ENOKEY},
		{"wrong key", dhchap.SHA256, dhchap.GroupNull, ",dhchap_secret=" + wrongKey, syscall.EKEYREJECTED},
		{"wrong key, ffdhe2048", dhchap.SHA256, dhchap.FFDHE2048, ",dhchap_secret=" + wrongKey, syscall.EKEYREJECTED},
		{"wrong controller key", dhchap.SHA256, dhchap.GroupNull, oneWay + ",dhchap_ctrl_secret=" + wrongKey, syscall.EKEYREJECTED},
		{"key with a bad checksum", dhchap.SHA256, dhchap.GroupNull, ",dhchap_secret=" + strings.Replace(hostKey, "AQID", "AQIE", 1), syscall.EKEYREJECTED},
	} {
		must(g, lab.SetHost(target.Host{
			NQN: readHostNQN(g), Key: parse(hostKey), CtrlKey: parse(ctrlKey), Hash: c.hash, Group: c.group,
		}))
		for _, nqn := range []string{nqn(0), nvme.WellKnownDiscoveryNQN} {
			if nqn == nvme.WellKnownDiscoveryNQN && c.hash != dhchap.SHA256 {
				continue // has been seen
			}
			said := kernelLog(g)
			want := c.want
			if !known { // Debian's 6.1
				want = syscall.EIO
			}
			name, err := tryConnect(g, portA, nqn, c.more)
			if errno(err) != want {
				g.Errorf("%s, %s: %v, want errno %d; the kernel says:\n%s", c.name, nqn, err, want, said())
			}
			if err == nil {
				if nqn != nvme.WellKnownDiscoveryNQN {
					run(g, "dd", "if="+g.BlockDevice(nqn), "of=/dev/null", "bs=4k", "count=1", "iflag=direct", "status=none")
				}
				run(g, "nvme", "disconnect", "--device="+name)
			}
		}
	}
}

// The daemons find their storage at the lab, follow its zones, and outlast its
// restart.
func labDaemons(g *Guest) {
	host := readHostNQN(g)
	lab := openLab(g, target.Config{
		Listeners: []target.Listener{
			labListener(portA, target.Discovery{Type: target.CDC}),
			labListener(portB, target.Discovery{Type: target.NoDiscovery}),
		},
		Subsystems: []target.Subsystem{
			{NQN: nqn(0), Listeners: []string{labName(portA), labName(portB)}},
			{NQN: nqn(1), Listeners: []string{labName(portB)}},
			{NQN: nqn(2), Listeners: []string{labName(portB)}},
			{NQN: nqn(3), Listeners: []string{labName(portB)}},
		},
		Zoning: target.Zoning{Enabled: true, Groups: []target.ZoneGroup{
			{Name: "host", Hosts: []string{host}, Subsystems: nqns(3)},
		}},
	})
	up(g, []Port{portA}, nqn(0), nqn(0), nqn(1), nqn(2))

	must(g, lab.SetZoneGroup(target.ZoneGroup{
		Name: "host", Hosts: []string{host}, Subsystems: []string{nqn(0), nqn(2), nqn(3)},
	}))
	after := liveIs(g, nqn(0), nqn(0), nqn(2), nqn(3))
	// To the end: the kernel waits a minute for a target that dies meanwhile.
	eventually(g, soon, "the zone lost one subsystem and got another", onlyThese(g, nqn(0), nqn(0), nqn(2), nqn(3)))

	before := instances(g)
	must(g, lab.Restart("", 4*time.Second))
	eventually(g, soon, "the target dies", liveIs(g))
	throughout(g, 2*time.Second, "the target is away", instancesAre(g, before))
	eventually(g, 30*time.Second, "the target is back", after)
	if got := instances(g); fmt.Sprint(got) != fmt.Sprint(before) {
		g.Errorf("the controllers are %v, were %v", got, before)
	}
	// Events are heard again.
	must(g, lab.SetZoneGroup(target.ZoneGroup{Name: "host", Hosts: []string{host}, Subsystems: nqns(4)}))
	eventually(g, soon, "the zone grows after the restart", liveIs(g, nqn(0), nqn(0), nqn(1), nqn(2), nqn(3)))
}

// Whatever a discovery controller says of its log, the storage stays, and the
// next log that makes sense is followed.
func labBrokenLogs(g *Guest) {
	lab := openLab(g, target.Config{
		Listeners:  []target.Listener{labListener(portA, target.Discovery{})},
		Subsystems: labSubsystems(2),
	})
	up(g, []Port{portA}, nqns(2)...)
	before := instancesAre(g, instances(g))
	for _, fault := range []target.Fault{
		{Do: "numrec-lies"},
		{Do: "garbage"},
		{Do: "log-refused"},
		{Do: "log-restart"},
		{Do: "genctr-moves"},
	} {
		end := addFault(g, lab, fault)
		lab.SendAEN("", "", nvme.DiscoveryLogChanged)
		eventually(g, soon, fault.Do+": the log is read", strikes(g, lab))
		throughout(g, 2*time.Second, fault.Do, before)
		end()
	}
	must(g, lab.AddSubsystem(target.Subsystem{NQN: nqn(2)}))
	eventually(g, 40*time.Second, "a log that can be read", func() string {
		if got := live(g); !slices.Contains(got, nqn(2)) {
			return fmt.Sprintf("live are %v", got)
		}
		return ""
	})
	if got := live(g); !slices.Equal(got, nqns(3)) {
		g.Errorf("live are %v", got)
	}
}

// readHostNQN is who this host is.
func readHostNQN(g *Guest) string {
	g.Helper()
	return strings.TrimSpace(run(g, "cat", "/etc/nvme/hostnqn"))
}

// allLive complains until all fabrics controllers, of which there are n, are
// live.
func allLive(g *Guest, n int) func() string {
	return func() string {
		all := g.Controllers()
		for _, c := range all {
			if c.State != nvmesysfs.Live {
				return c.Name + " is " + string(c.State)
			}
		}
		if len(all) != n {
			return fmt.Sprintf("there are %d controllers, want %d", len(all), n)
		}
		return ""
	}
}
