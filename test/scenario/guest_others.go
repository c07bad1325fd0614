//go:build linux

package scenario

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/registry"
	"github.com/nvme-stas/stas/internal/udevrule"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// otherCases are about the other programs that connect storage on a host.
var otherCases = []Case{
	{"RegistryOfOwners", func(w World) { registryOfOwners(w.(*Guest)) }},
	{"UdevRuleOverridden", func(w World) { udevRuleOverridden(w.(*Guest)) }},
	{"OthersDiscoveryController", func(w World) { othersDC(w.(*Guest)) }},
}

// ownedAre checks that these controllers, and no others, have entries.
func ownedAre(g *Guest, names ...string) func() string {
	return func() string {
		entries, err := os.ReadDir(registry.Default.Dir)
		if err != nil && !os.IsNotExist(err) {
			g.Fatal(err)
		}
		want := make(map[string]bool)
		for _, n := range names {
			want[n] = true
			stamp, err := os.ReadFile(filepath.Join(registry.Default.Dir, n, "seqnum"))
			if owner := registry.Default.Owner(n); owner != registry.Self || err != nil {
				return fmt.Sprintf("%s is owned by %q, %v", n, owner, err)
			}
			if _, err := strconv.ParseUint(strings.TrimSpace(string(stamp)), 10, 64); err != nil {
				return fmt.Sprintf("%s: %v", n, err)
			}
		}
		for _, e := range entries {
			if !want[e.Name()] {
				return e.Name() + " has an entry"
			}
		}
		return ""
	}
}

func names(g *Guest) (all []string) {
	for _, c := range g.Controllers() {
		all = append(all, c.Name)
	}
	return all
}

func registryOfOwners(g *Guest) {
	offer(g, portA, 2)
	up(g, []Port{portA}, nqns(2)...)
	eventually(g, soon, "connected", ownedAre(g, names(g)...))
	g.RemoveSubsystem(nqn(0), portA)
	eventually(g, soon, "one is disconnected", onlyThese(g, nqn(1)))
	eventually(g, soon, "its entry is gone", ownedAre(g, names(g)...))
	g.Stop(Stafd, Stacd)
	if s := ownedAre(g, names(g)...)(); s != "" {
		g.Error("the daemons are stopped: " + s)
	}
	g.deleteControllers()
	g.Configure(Stafd, "")
	g.Start(Stafd)
	eventually(g, soon, "what was removed meanwhile is swept", ownedAre(g))

	// What another program owns is used, but never disconnected.
	g.Configure(Stafd, quick+stafdConf(portA))
	g.Start(Stacd)
	g.Reload(Stafd)
	eventually(g, soon, "connected again", liveIs(g, nqn(1)))
	for name := range instances(g) {
		writeFile(g, filepath.Join(registry.Default.Dir, name, "owner"), "csi-driver\n")
	}
	stays := instancesAre(g, instances(g))
	g.Configure(Stacd, stacdConf("exclude = transport=tcp\n"))
	g.Reload(Stacd)
	throughout(g, 5*time.Second, "it is excluded, and another's", stays)
	for name := range instances(g) {
		if err := os.RemoveAll(filepath.Join(registry.Default.Dir, name)); err != nil {
			g.Error(err)
		}
	}
	g.Reload(Stacd)
	eventually(g, soon, "it is nobody's any more", onlyThese(g))
}

func ruleIs(there bool) func() string {
	return func() string {
		text, err := os.ReadFile(udevrule.DefaultPath)
		switch {
		case there && err != nil:
			return err.Error()
		case there && !strings.Contains(string(text), "nvmf-connect@--device"):
			return fmt.Sprintf("the rule is %q", text)
		case !there && err == nil:
			return "the rule is there"
		}
		return ""
	}
}

func udevRuleOverridden(g *Guest) {
	expect := func(what string, there bool) {
		g.Helper()
		if s := ruleIs(there)(); s != "" {
			g.Errorf("%s: %s", what, s)
		}
	}
	expect("before", false)
	g.Start(Stafd)
	eventually(g, soon, "started", ruleIs(true))
	run(g, "udevadm", "control", "--reload")
	g.Stop(Stafd)
	expect("stopped", false)
	g.Start(Stafd)
	eventually(g, soon, "started again", ruleIs(true))
	g.Kill(Stafd)
	eventually(g, soon, "killed and restarted", ruleIs(true))
	g.endDaemons() // kills it while it is being stopped
	expect("killed for good", false)
	writeFile(g, udevrule.DefaultPath, "# mine\n")
	g.Cleanup(func() { _ = os.Remove(udevrule.DefaultPath) })
	g.Start(Stafd)
	g.Stop(Stafd)
	if text, err := os.ReadFile(udevrule.DefaultPath); string(text) != "# mine\n" {
		g.Errorf("somebody else's file has become %q, %v", text, err)
	}
}

// connectService is nvme-cli's service, which the guest masks.
const connectService = "/etc/systemd/system/nvmf-connect@.service"

func othersDC(g *Guest) {
	offer(g, portA, 1)
	g.OpenPort(portB)
	if err := os.Remove(connectService); err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() {
		_ = os.Remove(connectService)
		if err := os.Symlink("/dev/null", connectService); err != nil {
			g.Error(err)
		}
		run(g, "systemctl", "daemon-reload")
	})
	writeFile(g, connectService, "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n")
	run(g, "systemctl", "daemon-reload")
	up(g, []Port{portA}, nqn(0))

	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			g.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	other, err := new(fabrics.Device).Connect(fabrics.Options{
		Transport: "tcp", TrAddr: portB.Addr, TrSvcID: strconv.Itoa(portB.Svc), NQN: nvme.WellKnownDiscoveryNQN,
		HostNQN: read("/etc/nvme/hostnqn"), HostID: read("/etc/nvme/hostid"), Discovery: true, KeepAliveTMO: new(30),
	})
	if err != nil {
		g.Fatal(err)
	}
	units := func() string {
		return run(g, "systemctl", "list-units", "--all", "--plain", "--no-legend", "nvmf-connect@*")
	}
	g.AddSubsystem(nqn(1), portA) // stafd's own discovery controller
	eventually(g, soon, "a subsystem was added", liveIs(g, nqns(2)...))
	g.Sleep(2 * time.Second)
	if got := units(); got != "" {
		g.Errorf("started for stafd's own discovery controller: %s", got)
	}
	g.AddSubsystem(nqn(2), portB)
	want := `nvmf-connect@--device\x3d` + other.Name + ".service"
	eventually(g, soon, "another's discovery controller has news", func() string {
		if got := units(); !strings.HasPrefix(got, want+" ") || strings.Count(got, "\n") != 1 {
			return fmt.Sprintf("units %q, want %s", got, want)
		}
		return ""
	})
	run(g, "systemctl", "stop", want)
}
