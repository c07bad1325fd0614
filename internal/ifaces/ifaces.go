// Package ifaces follows the network interfaces of this host, with their
// addresses.
package ifaces

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Iface is a network interface.
type Iface struct {
	Name  string
	Index int
	Up    bool // set up, with a carrier
	// Multicast says that there may be several others, who can be spoken to all at
	// once: the interface is neither loopback nor point-to-point, nor a port of a
	// bridge or bond, which hears what comes by it in its place.
	Multicast bool
	VRF       string // name of the VRF that it belongs to, if any
	// Addrs are those that packets can be sent from (not while they are tentative,
	// RFC 4862), in order. They have no zone.
	Addrs []netip.Prefix
}

// Has reports whether the interface has an address of a kind.
func (i Iface) Has(is func(netip.Addr) bool) bool {
	return slices.ContainsFunc(i.Addrs, func(p netip.Prefix) bool { return is(p.Addr()) })
}

// settle is how long is waited for further changes after one: a VLAN that is set
// up makes several events.
const settle = 100 * time.Millisecond

// Watch reports all interfaces at once, in the order of their numbers, and again
// after each change, one report at a time, until ctx ends or the interfaces
// cannot be watched, which is the error. A change that lasts less than 100 ms
// may go unnoticed.
func Watch(ctx context.Context, report func([]Iface)) error {
	return watch(ctx, &kernel{}, report)
}

// source is where changes and interfaces come from: the kernel, or a test.
type source interface {
	open() error
	// wait returns after a change, or when changes may have been missed, or with an
	// error when no more will be heard of.
	wait() error
	// list returns errInconsistent if something changed meanwhile.
	list() ([]Iface, error)
	close() // ends wait
}

var errInconsistent = errors.New("the interfaces changed while they were read")

func watch(ctx context.Context, from source, report func([]Iface)) error {
	if err := from.open(); err != nil {
		return fmt.Errorf("interfaces cannot be watched: %w", err)
	}
	// Changes are hints. What is true is read when they have settled, so that
	// nothing is lost with the ones that the kernel had no room for.
	changed := make(chan struct{}, 1)
	broken := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if err := from.wait(); err != nil {
				broken <- err
				return
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	defer func() { from.close(); <-ended }()

	var last []Iface
	for first := true; ; first = false {
		list, err := from.list()
		switch {
		case errors.Is(err, errInconsistent):
			select {
			case changed <- struct{}{}:
			default:
			}
		case err != nil:
			return fmt.Errorf("interfaces: %w", err)
		case first || !reflect.DeepEqual(list, last):
			last = list
			report(slices.Clone(list))
		}
		select {
		case <-changed:
		case err := <-broken:
			return fmt.Errorf("interfaces cannot be watched any more: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-time.After(settle):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// kernel is the source of the host's network namespace.
type kernel struct{ socket *nl.NetlinkSocket }

// receiveBuffer in bytes: some hundreds of interfaces coming at once.
const receiveBuffer = 1 << 20

// open opens a socket of its own rather than the library's subscriptions, which
// end at the first event that is lost and have to be renewed.
func (k *kernel) open() (err error) {
	k.socket, err = nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return err
	}
	// Without CAP_NET_ADMIN it stays smaller, and overruns earlier.
	_ = k.socket.SetReceiveBufferSize(receiveBuffer, true)
	return nil
}

func (k *kernel) wait() error {
	for {
		_, from, err := k.socket.Receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			return nil // events are lost
		case err != nil:
			return err
		case from.Pid == nl.PidKernel: // other processes may write to the socket
			return nil
		}
	}
}

func (k *kernel) close() { k.socket.Close() }

func (k *kernel) list() ([]Iface, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, inconsistent(err)
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, inconsistent(err)
	}
	return compose(links, addresses), nil
}

func inconsistent(err error) error {
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return errInconsistent
	}
	return err
}

// compose puts together what the kernel lists.
func compose(links []netlink.Link, addresses []netlink.Addr) []Iface {
	vrf := make(map[int]string)
	for _, l := range links {
		if l.Type() == "vrf" {
			vrf[l.Attrs().Index] = l.Attrs().Name
		}
	}
	prefixes := make(map[int][]netip.Prefix)
	for _, a := range addresses {
		if a.IPNet == nil || a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 && a.Flags&unix.IFA_F_OPTIMISTIC == 0 {
			continue
		}
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		bits, _ := a.Mask.Size()
		prefixes[a.LinkIndex] = append(prefixes[a.LinkIndex], netip.PrefixFrom(ip.Unmap(), bits))
	}
	list := make([]Iface, 0, len(links))
	for _, l := range links {
		a := l.Attrs()
		mine := prefixes[a.Index]
		port := a.MasterIndex != 0 && vrf[a.MasterIndex] == ""
		slices.SortFunc(mine, netip.Prefix.Compare)
		list = append(list, Iface{
			Name: a.Name, Index: a.Index,
			Up:        a.RawFlags&unix.IFF_UP != 0 && a.RawFlags&unix.IFF_RUNNING != 0,
			Multicast: a.RawFlags&unix.IFF_MULTICAST != 0 && a.RawFlags&(unix.IFF_LOOPBACK|unix.IFF_POINTOPOINT) == 0 && !port,
			VRF:       vrf[a.MasterIndex],
			Addrs:     mine,
		})
	}
	slices.SortFunc(list, func(a, b Iface) int { return cmp.Compare(a.Index, b.Index) })
	return list
}
