// Package boot reads the boot tables of the host (NBFT), in which its firmware
// tells what it was connected to and who it was, and puts them into the terms
// of the daemons.
package boot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/nbft"
)

// DefaultDir is where Linux shows the tables; if there are several it numbers
// them. Only root may read them.
const DefaultDir = "/sys/firmware/acpi/tables"

// prefix is what the names of the tables begin with.
const prefix = "NBFT"

// maxTable bounds what is read of a file. Real tables have a few kilobytes.
const maxTable = 1 << 20

// Tables is what the boot tables of a host say. The zero value is that of a
// host without any.
type Tables struct {
	Names []string // of the files that were understood
	// Unread says that there may be more than is here: something could not be
	// read. A table that can be read and is none is not meant, it lists nothing.
	Unread bool

	Discovery []Controller // the discovery controllers that the firmware knew
	Storage   []Controller // the controllers that it connected, or was to connect
	Hosts     []Host
}

// Controller is a controller that a table names.
type Controller struct {
	ID    tid.TID // an empty HostNQN stands for the host's
	Table string
}

// Host is who the host was to the storage, says a table.
type Host struct {
	nbft.Identity
	Primary nbft.Primary
	Table   string
}

// Booted says which table names the target of a controller, whatever the
// interface and the host NQN that it is reached through; nothing if none does.
func (t Tables) Booted(id tid.TID) (table string) {
	target := func(id tid.TID) tid.TID {
		id.HostTrAddr, id.HostIface, id.HostNQN = "", "", ""
		return id
	}
	i := slices.IndexFunc(t.Storage, func(c Controller) bool { return target(c.ID) == target(id) })
	if i < 0 {
		return ""
	}
	return t.Storage[i].Table
}

// Pairs are the host NQNs and IDs of the tables, those of selected tables
// first. Firmwares spell the host ID in one of two ways, and the connections
// that exist tell in which one it is used.
func (t Tables) Pairs(inUse []hostid.Pair) (pairs []hostid.Pair) {
	hosts := slices.Clone(t.Hosts)
	slices.SortStableFunc(hosts, func(a, b Host) int { return rank(a.Primary) - rank(b.Primary) })
	for _, h := range hosts {
		p := hostid.Pair{NQN: h.NQN, From: "the boot table " + h.Table}
		i := slices.IndexFunc(inUse, func(p hostid.Pair) bool { return p.NQN == h.NQN })
		switch {
		case h.NQN == "":
			continue
		case i >= 0:
			p.ID = inUse[i].ID
		case len(h.IDs) > 0:
			p.ID = h.IDs[0]
		default:
			continue
		}
		pairs = append(pairs, p)
	}
	return pairs
}

func rank(p nbft.Primary) int {
	switch p {
	case nbft.PrimarySelected:
		return 0
	case nbft.PrimaryUnselected:
		return 2
	}
	return 1
}

// Link is a network interface of the host.
type Link struct {
	Name string
	MAC  nbft.MAC
	VLAN uint16 // 0: none
	// Enslaved says that the interface is a part of a bond or a bridge, which
	// often has the same address, and has to be used instead.
	Enslaved bool
}

// Source reads the boot tables. It is not safe for concurrent use.
type Source struct {
	Dir   string
	Links func() ([]Link, error)

	told map[string]bool
}

// Read reads all tables. Whatever is wrong with one costs its share only, and
// is told when it is noticed first.
func (s *Source) Read() (t Tables, issues []conf.Issue) {
	complain := func(path, problem, used string, cause error) {
		i := conf.Issue{Place: conf.Place{File: path}, Problem: problem, Used: used, Cause: cause}
		if cause != nil {
			i.Severity = conf.Warning
		}
		if s.told == nil {
			s.told = make(map[string]bool)
		}
		if !s.told[i.String()] {
			s.told[i.String()] = true
			issues = append(issues, i)
		}
	}
	const unread = "what was known of it stays"
	names, err := names(s.Dir)
	if err != nil {
		t.Unread = true
		complain(s.Dir, plain(err), unread, err)
	}
	iface := s.ifaces(names, func(err error) {
		complain(s.Dir, "the network interfaces cannot be listed: "+err.Error(), "its controllers are reached as the routes say", err)
	})
	for _, name := range names {
		path := filepath.Join(s.Dir, name)
		table, err := ReadTable(path)
		if cause, ok := errors.AsType[*fs.PathError](err); ok {
			t.Unread = true
			complain(path, plain(err), unread, cause)
			continue
		}
		if err != nil {
			// A mistake of the firmware, and nobody here can mend it.
			complain(path, strings.TrimPrefix(err.Error(), path+": "), "nothing of the table is used", nil)
			continue
		}
		for _, p := range table.Problems {
			complain(path, p.String(), "", nil)
		}
		t.add(name, table, iface)
	}
	return t, issues
}

// plain is the text of an error without the path, which stands before it.
func plain(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return "cannot be read: " + p.Err.Error()
	}
	return err.Error()
}

// names lists the tables; a host without ACPI has none.
func names(dir string) (names []string, err error) {
	all, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range all {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// ifaces finds interfaces by their address, as long as there is somebody who
// asks for them.
func (s *Source) ifaces(tables []string, failed func(error)) nbft.IfaceFinder {
	var links []Link
	if len(tables) > 0 && s.Links != nil {
		var err error
		if links, err = s.Links(); err != nil {
			failed(err)
		}
	}
	return func(mac nbft.MAC, vlan uint16) string {
		name := ""
		for _, l := range links {
			if l.MAC == mac && l.VLAN == vlan {
				if !l.Enslaved {
					return l.Name
				}
				if name == "" {
					name = l.Name
				}
			}
		}
		return name
	}
}

// add takes in one table.
func (t *Tables) add(name string, table *nbft.Table, iface nbft.IfaceFinder) {
	t.Names = append(t.Names, name)
	t.Discovery = appendNew(t.Discovery, name, table.DiscoveryControllers(iface))
	t.Storage = appendNew(t.Storage, name, table.SubsystemControllers(iface))
	t.Hosts = append(t.Hosts, Host{table.Identity(), table.Host.Primary, name})
}

func appendNew(list []Controller, table string, controllers []nbft.Controller) []Controller {
	for _, c := range controllers {
		id := tid.New(tid.TID{
			Transport: c.Transport, TrAddr: c.TrAddr, TrSvcID: c.TrSvcID, SubsysNQN: c.SubsysNQN,
			HostIface: c.HostIface, HostNQN: c.HostNQN,
		})
		if !slices.ContainsFunc(list, func(c Controller) bool { return c.ID == id }) {
			list = append(list, Controller{id, table})
		}
	}
	return list
}

// ReadTable reads the table in a file. A file that cannot be read is an
// [fs.PathError]; any other error is about what it contains.
func ReadTable(path string) (*nbft.Table, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxTable+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > maxTable:
		return nil, fmt.Errorf("%s: larger than any boot table", path)
	}
	t, err := nbft.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}
