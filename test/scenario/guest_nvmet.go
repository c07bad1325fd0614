//go:build linux

package scenario

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

// Where the kernel's target is configured (Documentation: drivers/nvme/target
// of the kernel, configfs.c), and where its namespaces lie.
const (
	nvmetDir      = "/sys/kernel/config/nvmet"
	namespaceDir  = "/dev/shm/stas-target" // a tmpfs
	namespaceSize = 64 << 20
	placeholder   = "nqn.2014-08.org.example:placeholder"
)

// firewallRules refuses connections to the members of two sets, as a host does
// on which nothing listens, and swallows what comes for those of a third.
const firewallRules = `table inet stas_target {
	set closed4 { type ipv4_addr . inet_service; }
	set closed6 { type ipv6_addr . inet_service; }
	set hole4 { type ipv4_addr . inet_service; }
	chain input {
		type filter hook input priority filter;
		ip daddr . tcp dport @closed4 reject with tcp reset
		ip6 daddr . tcp dport @closed6 reject with tcp reset
		ip daddr . tcp dport @hole4 drop
	}
}
`

// nvmet drives the target of the kernel through configfs.
type nvmet struct {
	testing.TB
	closed map[Port]bool
	walled bool     // there are firewallRules
	added  []string // addresses the loopback interface did not have
}

func newNvmet(t testing.TB) *nvmet {
	t.Helper()
	run(t, "modprobe", "--all", "nvme-tcp", "nvmet-tcp")
	return &nvmet{TB: t, closed: map[Port]bool{}}
}

func portDir(p Port) string { return filepath.Join(nvmetDir, "ports", strconv.Itoa(p.ID)) }

func subsystemDir(nqn string) string { return filepath.Join(nvmetDir, "subsystems", nqn) }

// openPort creates a port, or lets a closed one be reached again.
func (n *nvmet) openPort(p Port) {
	n.Helper()
	if n.closed[p] {
		n.firewall("delete element inet stas_target " + closedElement(p))
		delete(n.closed, p)
		return
	}
	addr := netip.MustParseAddr(p.Addr)
	family := "ipv4"
	if addr.Is6() {
		family = "ipv6"
	}
	// All of 127.0.0.0/8 is local; of IPv6, one address is.
	if !addr.IsLoopback() {
		run(n, "ip", "address", "add", p.Addr, "dev", "lo")
		n.added = append(n.added, p.Addr)
	}
	dir := portDir(p)
	n.mkdir(dir)
	writeFile(n, dir+"/addr_trtype", "tcp")
	writeFile(n, dir+"/addr_adrfam", family)
	writeFile(n, dir+"/addr_traddr", p.Addr)
	writeFile(n, dir+"/addr_trsvcid", strconv.Itoa(p.Svc))
	// The kernel listens once a port offers something. This subsystem admits
	// no host, so that no discovery log shows it.
	if !exists(subsystemDir(placeholder)) {
		n.mkdir(subsystemDir(placeholder))
	}
	n.offer(placeholder, p)
}

// closePort refuses new connections and breaks those there are. Taking the
// port out of configfs would tell the discovery controllers.
func (n *nvmet) closePort(p Port) {
	n.Helper()
	if !exists(portDir(p)) {
		n.Fatalf("port %d cannot be closed, it was never opened", p.ID)
	}
	n.wall()
	n.firewall("add element inet stas_target " + closedElement(p))
	n.closed[p] = true
	address := netip.AddrPortFrom(netip.MustParseAddr(p.Addr), uint16(p.Svc)).String()
	// Both ends of a connection are on this host.
	run(n, "ss", "--kill", "--no-header", "--tcp", "state", "connected", "src", address)
	run(n, "ss", "--kill", "--no-header", "--tcp", "state", "connected", "dst", address)
}

// blackHole drops what is sent to a port.
func (n *nvmet) blackHole(p Port) {
	n.Helper()
	n.wall()
	n.firewall(fmt.Sprintf("add element inet stas_target hole4 { %s . %d }", p.Addr, p.Svc))
}

// wall makes sure of the rules.
func (n *nvmet) wall() {
	n.Helper()
	if !n.walled {
		n.removeFirewall()
		n.firewall(firewallRules)
		n.walled = true
	}
}

// closedElement names a port as a member of the firewall's sets.
func closedElement(p Port) string {
	set := "closed4"
	if netip.MustParseAddr(p.Addr).Is6() {
		set = "closed6"
	}
	return fmt.Sprintf("%s { %s . %d }", set, p.Addr, p.Svc)
}

func (n *nvmet) firewall(script string) { n.Helper(); run(n, "nft", script) }

// removeFirewall takes the rules away, whether there are any or not.
func (n *nvmet) removeFirewall() {
	n.Helper()
	n.firewall("add table inet stas_target; delete table inet stas_target")
	n.walled = false
}

// refer makes a port refer to others, and to no more.
func (n *nvmet) refer(from Port, to []Port) {
	n.Helper()
	referrals := filepath.Join(portDir(from), "referrals")
	dir := func(p Port) string { return filepath.Join(referrals, strconv.Itoa(p.ID)) }
	old, err := filepath.Glob(filepath.Join(referrals, "*"))
	if err != nil {
		n.Fatal(err)
	}
	for _, o := range old {
		if !slices.ContainsFunc(to, func(p Port) bool { return dir(p) == o }) {
			writeFile(n, o+"/enable", "0")
			if err := os.Remove(o); err != nil {
				n.Fatal(err)
			}
		}
	}
	for _, p := range to {
		if exists(dir(p)) {
			continue
		}
		n.mkdir(dir(p))
		writeFile(n, dir(p)+"/addr_trtype", "tcp")
		writeFile(n, dir(p)+"/addr_adrfam", "ipv4")
		writeFile(n, dir(p)+"/addr_traddr", p.Addr)
		writeFile(n, dir(p)+"/addr_trsvcid", strconv.Itoa(p.Svc))
		writeFile(n, dir(p)+"/enable", "1")
	}
}

// addSubsystem creates a subsystem unless it exists, and offers it.
func (n *nvmet) addSubsystem(nqn string, ports []Port) {
	n.Helper()
	dir := subsystemDir(nqn)
	if !exists(dir) {
		n.mkdir(dir)
		writeFile(n, dir+"/attr_allow_any_host", "1")
		// A file costs next to nothing, and keeps its data. A null_blk would
		// be one more block device for udev to look at.
		n.mkdir(namespaceDir)
		file := filepath.Join(namespaceDir, nqn)
		writeFile(n, file, "")
		if err := os.Truncate(file, namespaceSize); err != nil {
			n.Fatal(err)
		}
		ns := dir + "/namespaces/1"
		n.mkdir(ns)
		writeFile(n, ns+"/device_path", file)
		writeFile(n, ns+"/buffered_io", "1") // a tmpfs knows no direct I/O before Linux 6.6
		writeFile(n, ns+"/enable", "1")
	}
	for _, p := range ports {
		n.offer(nqn, p)
	}
}

// offer shows a subsystem on a port.
func (n *nvmet) offer(nqn string, p Port) {
	n.Helper()
	if err := os.Symlink(subsystemDir(nqn), offerLink(nqn, p)); err != nil {
		n.Fatal(err)
	}
}

func offerLink(nqn string, p Port) string {
	return filepath.Join(portDir(p), "subsystems", nqn)
}

// removeSubsystem withdraws a subsystem. It stays, with its data, to be
// offered again.
func (n *nvmet) removeSubsystem(nqn string, ports []Port) {
	n.Helper()
	for _, p := range ports {
		if err := os.Remove(offerLink(nqn, p)); err != nil {
			n.Fatal(err)
		}
	}
}

// remove takes away the whole target, whoever set it up.
func (n *nvmet) remove() {
	n.Helper()
	// In configfs, what others refer to cannot go before them.
	for _, pattern := range []string{
		"ports/*/subsystems/*", "ports/*/referrals/*", "ports/*",
		"subsystems/*/allowed_hosts/*", "subsystems/*/namespaces/*", "subsystems/*",
		"hosts/*",
	} {
		entries, err := filepath.Glob(filepath.Join(nvmetDir, pattern))
		if err != nil {
			n.Fatal(err)
		}
		for _, e := range entries {
			if err := os.Remove(e); err != nil {
				n.Error(err)
			}
		}
	}
	if err := os.RemoveAll(namespaceDir); err != nil {
		n.Error(err)
	}
	for _, a := range n.added {
		run(n, "ip", "address", "del", a, "dev", "lo")
	}
	n.added = nil
	n.removeFirewall()
	clear(n.closed)
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// mkdir makes a directory that may be there already.
func (n *nvmet) mkdir(dir string) {
	n.Helper()
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		n.Fatal(err)
	}
}
