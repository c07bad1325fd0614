// Package stasbus is the D-Bus interface of stafd and stacd: its names, the
// server side for the daemons, the client side for the tools and for stacd.
// Names, signatures and formats are those of nvme-stas 2.x; what it does not
// have is on an interface of its own.
package stasbus

import (
	_ "embed"

	"github.com/godbus/dbus/v5"

	"github.com/nvme-stas/stas/internal/tid"
)

// Names on the bus.
type Names struct {
	Bus   string // well-known name and main interface
	Path  dbus.ObjectPath
	Debug string // interface for inspection
	// Report is the interface of what nvme-stas 2.x does not have.
	Report string
	xml    string
}

//go:embed org.nvmexpress.staf.xml
var stafXML string

//go:embed org.nvmexpress.stac.xml
var stacXML string

// The two daemons.
var (
	Staf = Names{"org.nvmexpress.staf", "/org/nvmexpress/staf", "org.nvmexpress.staf.debug", "org.nvmexpress.staf.report", stafXML}
	Stac = Names{"org.nvmexpress.stac", "/org/nvmexpress/stac", "org.nvmexpress.stac.debug", "org.nvmexpress.stac.report", stacXML}
)

// Signals of stafd.
const (
	sigLogPagesChanged = "log_pages_changed"
	sigDCRemoved       = "dc_removed"
)

// Interfaces of the bus itself.
const (
	introspectable = "org.freedesktop.DBus.Introspectable"
	properties     = "org.freedesktop.DBus.Properties"
)

// Dict is a D-Bus dictionary of strings.
type Dict = map[string]string

// DCPage is an element of what get_all_log_pages returns as JSON: a discovery
// controller, as list_controllers describes it, and its log page entries.
type DCPage[E any] struct {
	DiscoveryController Dict `json:"discovery-controller"`
	LogPages            []E  `json:"log-pages"`
}

// KnownKey is added to the description of a discovery controller that [Feed]
// delivers, "True" or "False": whether its log page entries are all there are.
// stafd of nvme-stas 2.x does not tell, and it never is in a D-Bus dictionary.
const KnownKey = "log-pages-known"

// PartialKey is added likewise, "True" only: there may be discovery controllers
// that are missing from the list, see [Listing].
const PartialKey = "list-partial"

// Boolean texts in dictionaries.
const (
	True  = "True"
	False = "False"
)

// Bool is a boolean in the notation of the dictionaries.
func Bool(b bool) string {
	if b {
		return True
	}
	return False
}

// IDArgs are the seven arguments that name a controller in a method call.
func IDArgs(id tid.TID) []any {
	return []any{id.Transport, id.TrAddr, id.TrSvcID, id.SubsysNQN, id.HostTrAddr, id.HostIface, id.HostNQN}
}

// ParseID is the transport ID in a dictionary that describes a controller.
func ParseID(d Dict) tid.TID {
	return tid.New(tid.TID{
		Transport: d["transport"], TrAddr: d["traddr"], TrSvcID: d["trsvcid"], SubsysNQN: d["subsysnqn"],
		HostTrAddr: d["host-traddr"], HostIface: d["host-iface"], HostNQN: d["host-nqn"],
	})
}
