package scenario

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/nvme-stas/stas/pkg/nbft"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// bootCases are about what the firmware of the host says.
var bootCases = []Case{
	{Name: "BootTable", Run: bootTable},
}

// portFirmware is where the firmware found its storage.
var portFirmware = Port{ID: 3, Addr: "127.0.0.9", Svc: 8009}

// BootTable is the boot table of a host whose firmware asked the discovery
// controller at portFirmware, and booted from the first subsystem there. A
// guest gets it from QEMU, so that its cases can have no other.
func BootTable() *nbft.Table {
	return &nbft.Table{
		Header: nbft.Header{Major: 1, OEMID: "STAS", OEMTableID: "TESTNBFT"},
		Host:   nbft.Host{NQN: "nqn.2014-08.org.nvmexpress:uuid:33221100-5544-7766-8899-aabbccddeeff", ID: nbft.HostID{7}},
		Discovery: []nbft.Discovery{{
			Index: 1, NQN: nvme.WellKnownDiscoveryNQN,
			URI: fmt.Sprintf("nvme+tcp://%s:%d/", portFirmware.Addr, portFirmware.Svc),
		}},
		Subsystems: []nbft.Subsystem{{
			Index: 1, TrType: nbft.TCP, TrAddr: netip.MustParseAddr(portFirmware.Addr), TrSvcID: strconv.Itoa(portFirmware.Svc),
			NSID: 1, NQN: nqn(0), Discovery: 1, Discovered: true,
		}},
	}
}

// What the firmware asked is asked again, and what it booted from is never
// disconnected.
func bootTable(w World) {
	w.BootTable(BootTable())
	offer(w, portFirmware, 2)
	w.Configure(Stafd, quick)
	w.Configure(Stacd, quick)
	w.Start(Stafd, Stacd)
	eventually(w, soon, "found through the boot table", liveIs(w, nqn(0), nqn(1)))
	before := instances(w)
	w.Reload(Stafd, Stacd)
	throughout(w, 3*time.Second, "reloaded", instancesAre(w, before))

	w.Configure(Stacd, stacdConf("exclude = traddr="+portFirmware.Addr+"\n"))
	w.Reload(Stacd)
	eventually(w, soon, "excluded, but one is the boot disk", onlyThese(w, nqn(0)))
	bootDisk := instances(w)
	w.Configure(Stafd, quick+controllersSection+"exclude = traddr=127.0.0.0/8\n")
	w.Reload(Stafd)
	eventually(w, soon, "the discovery controller is excluded", func() string {
		for _, c := range w.Controllers() {
			if c.Kind == nvmesysfs.Discovery {
				return c.Name + " is still there"
			}
		}
		return ""
	})
	w.Stop(Stacd)
	w.Start(Stacd)
	throughout(w, 5*time.Second, "restarted", instancesAre(w, bootDisk))
}
