package scenario

import (
	"fmt"
	"slices"
	"time"

	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// nameCases are about host names in place of addresses.
var nameCases = []Case{
	{Name: "HostNameFollowed", Run: hostNameFollowed},
}

// portMoved is where a discovery controller moves to.
var portMoved = Port{ID: 4, Addr: "127.0.0.2", Svc: 8009}

// dcAddresses are those of the discovery controllers that are connected.
func dcAddresses(w World) (all []string) {
	for _, c := range w.Controllers() {
		if c.Kind == nvmesysfs.Discovery {
			all = append(all, c.TrAddr)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func dcsAt(w World, want ...string) func() string {
	return func() string {
		if got := dcAddresses(w); !slices.Equal(got, want) {
			return fmt.Sprintf("discovery controllers are connected at %q, want %q", got, want)
		}
		return ""
	}
}

// A name that is not answered, or answered differently, costs no connection; a
// discovery controller that has moved is found, and its storage stays.
func hostNameFollowed(w World) {
	const name = "dc.stas.test"
	offer(w, portA, 2)
	w.Configure(Stafd, quick+"ctrl-loss-tmo = 4\n"+controllersSection+"controller = transport=tcp;traddr="+name+"\n")
	w.Configure(Stacd, quick)
	w.Start(Stafd, Stacd)
	w.Sleep(2 * time.Second)
	w.HostName(name, portA.Addr)
	w.Reload(Stafd)
	eventually(w, 2*soon, "the name has an address", liveIs(w, nqns(2)...))
	stays := instancesAre(w, instances(w))
	w.HostName(name)
	w.Sleep(6 * time.Second) // the resolver looks at the file now and then
	w.Reload(Stafd)
	throughout(w, 3*time.Second, "the name is gone", stays)
	w.Stop(Stafd)
	w.Start(Stafd)
	throughout(w, 3*time.Second, "restarted without name servers", stays)

	w.OpenPort(portMoved)
	for _, s := range nqns(2) {
		w.AddSubsystem(s, portMoved)
	}
	w.HostName(name, portMoved.Addr)
	w.Sleep(6 * time.Second)
	w.Reload(Stafd)
	eventually(w, soon, "it has moved", dcsAt(w, portA.Addr, portMoved.Addr))
	both := []string{nqn(0), nqn(0), nqn(1), nqn(1)}
	eventually(w, soon, "storage at both places", liveIs(w, both...))
	throughout(w, 3*time.Second, "the former connection works", dcsAt(w, portA.Addr, portMoved.Addr))
	w.ClosePort(portA)
	eventually(w, 2*soon, "the former connection is lost", dcsAt(w, portMoved.Addr))
	eventually(w, soon, "storage at the new place", onlyThese(w, nqns(2)...))
}
