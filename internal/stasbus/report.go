package stasbus

import (
	"time"

	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/tid"
)

// This file has what nvme-stas 2.x does not tell. Its tools print every key
// that they get, so nothing may be added to its dictionaries: new facts travel
// by an interface of their own, [Names.Report], as JSON.

// ReportVersion is the version of all JSON here. Fields are added without
// notice; it grows when one goes or changes its meaning.
const ReportVersion = 1

// Report is all that a daemon knows of itself and its controllers, but for the
// entries of log pages.
type Report struct {
	Version      int       `json:"version"`
	Daemon       string    `json:"daemon"`
	Release      string    `json:"release"`
	Time         time.Time `json:"time,omitzero"` // of the report
	Host         Host      `json:"host"`
	Tracing      bool      `json:"tracing"`
	ReloadFailed bool      `json:"reload-failed"` // an older configuration is in force
	ReloadError  string    `json:"reload-error,omitempty"`
	// Doubtful says that something of the configuration was ignored, so that
	// it takes no connection away.
	Doubtful    bool         `json:"configuration-doubtful"`
	Stafd       *Stafd       `json:"stafd,omitempty"`
	Holds       []Hold       `json:"holds,omitempty"` // of operators
	Controllers []Controller `json:"controllers"`
	Refused     []Refusal    `json:"refused"`
	Kept        []Kept       `json:"kept,omitempty"`
}

// Host is who this host is to its storage.
type Host struct {
	NQN     string `json:"nqn"`
	ID      string `json:"id"`
	SymName string `json:"symname,omitempty"`
}

// Stafd is what stacd knows of stafd.
type Stafd struct {
	// Answers tells whether the last question was answered. While stafd is
	// silent, what it listed before stays wanted.
	Answers bool `json:"answers"`
	// Sources are the discovery controllers whose entries stacd has.
	Sources []Source `json:"sources"`
}

// Source is a discovery controller.
type Source struct {
	ID
	// Known says that the entries are all there are, as far as stafd knows.
	Known   bool `json:"known"`
	Entries int  `json:"entries"`
}

// ID is a transport ID, flat among the fields of what has it.
type ID tid.TID

// Controller is a controller that is wanted, or on its way out.
type Controller struct {
	ID
	Device string `json:"device,omitempty"`
	// State is the kernel's word for the state of the device. Without a device
	// it is "connecting" while an attempt is made, else "waiting".
	State   string   `json:"state"`
	Wanted  bool     `json:"wanted"`
	Held    bool     `json:"held,omitempty"` // by an operator: neither connected nor disconnected
	Origins []Origin `json:"origins"`        // why it is wanted

	Operation *Operation `json:"operation,omitempty"` // running now
	Connect   *Failure   `json:"connect,omitempty"`   // the last attempts failed
	Probe     *Probe     `json:"probe,omitempty"`     // before the last attempt
	LogPage   *PageState `json:"log-page,omitempty"`  // of a discovery controller

	// LostSince is when the connection of the device was seen to be broken. The
	// kernel tries to get it back until about GivesUp, or for ever if that is not
	// there.
	LostSince time.Time `json:"lost-since,omitzero"`
	GivesUp   time.Time `json:"gives-up,omitzero"`
	// Timing is there once the device has been asked.
	Timing *Timing `json:"timing,omitempty"`
	// Registration is this host's with a discovery controller that takes any.
	Registration *Registration `json:"registration,omitempty"`

	HeldBy   []Hold    `json:"held-by,omitempty"`  // operators' holds
	Booted   string    `json:"booted,omitempty"`   // the boot table that names it; then it is never disconnected
	Withheld *Withheld `json:"withheld,omitempty"` // it is not wanted, but in use
	// GivenUp has the attempts after which there are no more (connect-attempts-on-ncc).
	GivenUp *Failure `json:"given-up,omitempty"`

	// What sysfs shows of the device.
	SrcAddr    string      `json:"src-addr,omitempty"`
	Model      string      `json:"model,omitempty"`
	Serial     string      `json:"serial,omitempty"`
	CntrlType  string      `json:"cntrltype,omitempty"`
	DCType     string      `json:"dctype,omitempty"`
	Namespaces []Namespace `json:"namespaces,omitempty"`
}

// TID is the transport ID.
func (c *Controller) TID() tid.TID { return tid.TID(c.ID) }

// Hold is an operator's word to leave controllers as they are.
type Hold struct {
	// Name is an NQN or an address, or of a controller that was disconnected, its
	// device.
	Name       string    `json:"name"`
	Controller *ID       `json:"controller,omitempty"` // the only one that is held
	Since      time.Time `json:"since"`
	Until      time.Time `json:"until,omitzero"` // until it is released, if zero
}

// Withheld is a disconnect that is put off because it would take storage away
// that is in use, or may be.
type Withheld struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
	InUse []string  `json:"in-use,omitempty"` // "nvme0n1p1 is mounted on /data"
}

// Disconnected is what came of an operator's disconnect.
type Disconnected struct {
	ID
	Device string `json:"device"`
	// Pending says that the kernel is still at it.
	Pending bool `json:"pending,omitempty"`
}

// The kinds of origin.
const (
	Configured = "configured" // a controller= line
	NBFT       = "nbft"       // a boot table of the firmware
	Discovered = "discovered" // announced by mDNS
	Referral   = "referral"   // an entry of a log page that refers to another discovery controller
	Listed     = "log-page"   // an entry of a log page
	Remembered = "remembered" // wanted before the daemon was restarted; its source is not heard of yet
)

// Origin is one reason to want a controller.
type Origin struct {
	Kind  string `json:"kind"`
	Place string `json:"place,omitempty"` // in the configuration; the name of a boot table; who announces it, and where
	By    *ID    `json:"by,omitempty"`    // the discovery controller that lists it
	// Host is the host name that the configuration has in place of the address.
	Host *HostName `json:"host,omitempty"`
	// NotConnected is what the entry says (EFLAGS, NCC): the central discovery
	// controller has no connection to the subsystem.
	NotConnected bool `json:"ncc,omitempty"`
	// Until is when a discovered controller is forgotten that is neither announced
	// nor reached any more.
	Until time.Time `json:"until,omitzero"`
}

// HostName is what is known of a host name.
type HostName struct {
	Name     string    `json:"name"`
	Answered time.Time `json:"answered,omitzero"` // last; zero: not yet
	// Former says that the name stands for another address now. The connection
	// stays as long as it lasts.
	Former  bool     `json:"former,omitempty"`
	Failure *Failure `json:"failure,omitempty"` // the last questions were not answered
}

// Operation is one that runs. The kernel cannot be told to stop it.
type Operation struct {
	Kind  string    `json:"kind"` // "connect", "disconnect", or "work": reading the log page
	Since time.Time `json:"since"`
}

// Probe is asking in user space whether a target answers.
type Probe struct {
	Time time.Time `json:"time"`
	Took float64   `json:"took"` // seconds
	// Answered tells whether it did.
	Answered bool `json:"answered"`
}

// Failure is a series of attempts that failed.
type Failure struct {
	Attempts int    `json:"attempts"`
	Error    string `json:"error"`
	Errno    string `json:"errno,omitempty"` // its name, such as "ECONNREFUSED"
	// Class is the kind of failure, which decides how soon it is tried again:
	// "refused", "mute", "authentication" and others.
	Class  string    `json:"class,omitempty"`
	Remedy string    `json:"remedy,omitempty"` // what can be done about it, a sentence
	Next   time.Time `json:"next,omitzero"`    // the next attempt
}

// PageState is what is known of a discovery controller's log page.
type PageState struct {
	// Known says that the entries are all there are, see [logpage.Page].
	Known      bool     `json:"known"`
	Generation uint64   `json:"generation"`
	Entries    int      `json:"entries"`
	Failure    *Failure `json:"failure,omitempty"` // the last readings failed
	// Read is when it was last read.
	Read time.Time `json:"read,omitzero"`
	// PortLocal says that only the entries of this port were asked for.
	PortLocal bool `json:"port-local,omitempty"`
	// Polled says that the controller reports no changes, or cannot be trusted
	// to, so that it is asked now and then.
	Polled bool `json:"polled,omitempty"`
	// MissedAENs counts the changes that the controller did not report.
	MissedAENs int `json:"missed-aens,omitempty"`
}

// Timing is what a controller says of its times (Identify Controller), in
// milliseconds; 0 is nothing.
type Timing struct {
	KAS   int64 `json:"kas-ms"`   // keep alive is counted in units of it
	CQT   int64 `json:"cqt-ms"`   // how long commands may linger after the connection is lost
	RTD3E int64 `json:"rtd3e-ms"` // what a shutdown takes at most
	// KATO is the keep-alive timeout of the connection, in seconds.
	KATO int64 `json:"kato-s"`
	// KATOTooShort says that KATO is below KAS.
	KATOTooShort bool `json:"kato-too-short,omitempty"`
}

// The states of a registration.
const (
	Registered  = "registered"
	RegRefused  = "refused" // by the discovery controller, in so many words
	RegFailed   = "failed"  // to get an answer
	Unsupported = "unsupported"
)

// Registration is what became of telling a discovery controller that this host
// is there (Discovery Information Management).
type Registration struct {
	State   string    `json:"state"`
	Since   time.Time `json:"since"` // of the last attempt that ended so
	SymName string    `json:"symname,omitempty"`
	Failure *Failure  `json:"failure,omitempty"`
}

// Namespace is one that is reached through a controller.
type Namespace struct {
	Name string `json:"name"` // of the block device, "nvme0n1"
	Size uint64 `json:"size"` // in bytes
	ANA  string `json:"ana,omitempty"`
}

// Refusal is a controller that is not connected although somebody lists it.
type Refusal struct {
	ID
	Origins []Origin `json:"origins"`
	Why     string   `json:"why"`
}

// TID is the transport ID.
func (r *Refusal) TID() tid.TID { return tid.TID(r.ID) }

// Kept is a controller that nobody asks for, and that stays connected all the
// same.
type Kept struct {
	ID
	Device string `json:"device"`
	Why    string `json:"why"`
}

// LogPage is the log page of one discovery controller, as last read.
type LogPage struct {
	ID
	Device     string          `json:"device,omitempty"`
	Known      bool            `json:"known"` // see [PageState]
	Generation uint64          `json:"generation"`
	Entries    []logpage.Entry `json:"entries"`
}

// Listing says what the list of stafd's discovery controllers is worth.
type Listing struct {
	Version int `json:"version"`
	// Since is when stafd was started: another time is another stafd.
	Since time.Time `json:"since"`
	// Partial says that there may be discovery controllers that stafd looked
	// after before it was started and does not know of yet: one that is missing
	// from its list has not gone for that.
	Partial bool `json:"partial"`
	// Gone are those that it has given up since, for good reasons.
	Gone []ID `json:"gone"`
}

// withListing adds to the pages of stafd's list what the list is worth, told
// before and after they were asked for. On a list that is partial each page
// has the [PartialKey], and what has gone is a page without entries. A partial
// list of nothing says no more than a stafd that is silent: it is nil.
func withListing(pages []DCPage[logpage.Entry], before, after Listing) []DCPage[logpage.Entry] {
	if !before.Since.Equal(after.Since) {
		before = Listing{Partial: true} // the pages may be of either
	}
	if !before.Partial {
		return pages
	}
	listed := make(map[tid.TID]bool, len(pages))
	for _, p := range pages {
		listed[ParseID(p.DiscoveryController)] = true
	}
	for _, id := range before.Gone {
		if !listed[tid.TID(id)] {
			pages = append(pages, LogPage{ID: id, Known: true, Entries: []logpage.Entry{}}.DCPage())
		}
	}
	if len(pages) == 0 {
		return nil
	}
	for _, p := range pages {
		p.DiscoveryController[PartialKey] = True
	}
	return pages
}

// DCPage is the page in the form of get_all_log_pages, and with [KnownKey].
func (p LogPage) DCPage() DCPage[logpage.Entry] {
	d := tid.TID(p.ID).Map()
	d["device"] = p.Device
	d[KnownKey] = Bool(p.Known)
	return DCPage[logpage.Entry]{DiscoveryController: d, LogPages: p.Entries}
}

// Disabled is the mode of a daemon that does not browse.
const Disabled = "disabled"

// Browse is what is announced by mDNS.
type Browse struct {
	Version int       `json:"version"` // see [ReportVersion]
	Time    time.Time `json:"time"`
	Mode    string    `json:"mode"` // of the configuration, or [Disabled]
	// Listening says that there is somebody who would hear of changes now.
	Listening bool           `json:"listening"`
	Services  []Announcement `json:"services"`
}

// Announcement is an instance of a service, as it is seen on one interface by
// one protocol.
type Announcement struct {
	Instance string    `json:"instance"`
	Type     string    `json:"type"` // "_nvme-disc._tcp"
	Host     string    `json:"host"`
	Iface    string    `json:"iface"`
	Family   string    `json:"family"` // "IPv4" or "IPv6": by what it is announced
	Port     uint16    `json:"port"`
	TXT      []string  `json:"txt"`
	Since    time.Time `json:"since"`
	// Confirmed is false for what was announced before nobody listened for a
	// while, and has not been heard since.
	Confirmed bool               `json:"confirmed"`
	Wrong     string             `json:"wrong,omitempty"` // why it is of no use at all
	Addresses []AnnouncedAddress `json:"addresses"`
}

// AnnouncedAddress is one address of a service.
type AnnouncedAddress struct {
	Address string `json:"address"`
	ID      *ID    `json:"id,omitempty"`      // of the controller there
	Refused string `json:"refused,omitempty"` // why it is not wanted for being announced
	// Controller is there if it is wanted, for whatever reason.
	Controller *Controller `json:"controller,omitempty"`
}
