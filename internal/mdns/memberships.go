package mdns

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/nvme-stas/stas/internal/ifaces"
)

// A socket may join so many groups of IPv4 (net/ipv4/igmp.c), 20 by default. Ours
// joins one; avahi-daemon has one socket for all interfaces, and just does not
// listen on those that come after.
const membershipsFile = "/proc/sys/net/ipv4/igmp_max_memberships"

// maxMemberships returns that limit, and 0 if it is not known.
func maxMemberships() int {
	text, _ := os.ReadFile(membershipsFile)
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}

// deafness complains if there are more interfaces than a socket can join groups
// on.
func deafness(list []ifaces.Iface, limit int) string {
	n := 0
	for _, i := range list {
		if usable(i, IPv4) {
			n++
		}
	}
	if limit <= 0 || n <= limit {
		return ""
	}
	return fmt.Sprintf("avahi-daemon hears nothing by IPv4 on some interfaces: there are %d, and it can listen on %d. "+
		"Raise the sysctl net.ipv4.igmp_max_memberships and restart it, or set mdns=embedded", n, limit)
}

// usable reports whether mDNS can be spoken on an interface by a protocol: it has
// an address to send from, which for IPv6 is one of the group's scope.
func usable(i ifaces.Iface, family Family) bool {
	if !i.Up || !i.Multicast {
		return false
	}
	if family == IPv4 {
		return i.Has(netip.Addr.Is4)
	}
	return i.Has(func(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() })
}

// watchDeafness warns once of what deafness complains of, until stop is called.
func watchDeafness(ctx context.Context, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	told := false
	running.Go(func() {
		// That interfaces cannot be watched is nothing to Avahi.
		_ = ifaces.Watch(ctx, func(list []ifaces.Iface) {
			if text := deafness(list, maxMemberships()); text != "" && !told {
				told = true
				log.Warn(text)
			}
		})
	})
	return func() {
		cancel()
		running.Wait()
	}
}
