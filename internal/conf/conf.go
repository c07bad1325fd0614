// Package conf reads the configuration of the daemons, stafd.conf and
// stacd.conf, into values that are checked once and never change. Whatever is
// wrong with a file is told with file, line, what would be right, and what is
// used instead; only a line that makes the meaning of all others doubtful
// keeps a file from being used.
package conf

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/tid"
)

// Daemon names one of the two daemons.
type Daemon string

// The daemons.
const (
	Stafd Daemon = "stafd" // finds discovery controllers
	Stacd Daemon = "stacd" // connects I/O controllers
)

// Config is the configuration of one daemon. It is not to be changed. Fields
// that the daemon's file cannot set have the zero value.
type Config struct {
	Daemon Daemon

	Tron        bool
	Params      Params // of connections that no controller= line is about
	IgnoreIface bool
	IPFamily    IPFamily
	PLEO        bool // stafd

	Zeroconf             bool          // stafd
	PersistentConns      bool          // stafd
	ZeroconfPersistence  time.Duration // stafd; negative: forever
	DisconnectScope      DisconnectScope
	DisconnectTrtypes    []string // stacd
	ConnectAttemptsOnNCC int      // stacd; 0: no limit

	Controllers []Controller
	Excludes    Excludes

	// Doubtful says that a line was ignored that may have been meant for a
	// controller. Then a controller that is missing here was not necessarily
	// taken out, and its connection must not be removed for that.
	Doubtful bool
}

// Params are the parameters of a connection. A nil number leaves the choice to
// the kernel.
type Params struct {
	HdrDigest      bool
	DataDigest     bool
	DisableSQFlow  bool
	KATO           *int // seconds
	QueueSize      *int
	ReconnectDelay *int // seconds
	CtrlLossTMO    *int // seconds; -1: never give up
	NrIOQueues     *int // stacd, as are the next two
	NrWriteQueues  *int
	NrPollQueues   *int
}

// IPFamily says which addresses may be used.
type IPFamily struct {
	IPv4, IPv6 bool
}

// Allows reports whether connections to the address may be made.
func (f IPFamily) Allows(addr netip.Addr) bool {
	if addr.Unmap().Is4() {
		return f.IPv4
	}
	return f.IPv6
}

// DisconnectScope says which connections stacd may remove.
type DisconnectScope string

// The scopes.
const (
	OnlyStasConnections DisconnectScope = "only-stas-connections"
	AllConnections      DisconnectScope = "all-connections-matching-disconnect-trtypes"
	NoDisconnect        DisconnectScope = "no-disconnect"
)

// Load reads a daemon's configuration file. A file that does not exist is an
// empty one, but a doubtful one: it may have been there before. After an error there is no Config: a daemon that is running
// already keeps the one it has.
func Load(daemon Daemon, path string) (*Config, []Issue, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		cfg, _, err := Parse(daemon, path, strings.NewReader(""))
		cfg.Doubtful = true
		return cfg, nil, err
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cannot read the configuration: %w; correct the file's permissions or name another file with -f", err)
	}
	defer f.Close()
	return Parse(daemon, path, f)
}

// Parse reads a daemon's configuration; name stands for the file in whatever
// there is to complain of.
func Parse(daemon Daemon, name string, r io.Reader) (*Config, []Issue, error) {
	items, found, err := Scan(name, r)
	if err != nil {
		return nil, nil, err
	}
	p := parser{
		cfg:    defaults(daemon),
		issues: issues{file: name, list: found},
		last:   make(map[*option]Item),
		seen:   make(map[tid.TID]int),
	}
	// Single values first: controllers start from what [Global] says, wherever
	// in the file it stands.
	var lists []Item
	for _, it := range items {
		if it.Bare {
			continue
		}
		switch opt := p.lookup(&it); {
		case opt == nil:
		case opt.list:
			lists = append(lists, it)
		default:
			p.last[opt] = it
		}
	}
	for i := range options {
		if it, ok := p.last[&options[i]]; ok {
			p.set(&options[i], it)
		}
	}
	for _, it := range lists {
		switch {
		case it.Value == "":
		case it.Key == "controller":
			p.controller(it)
		case it.Key == "exclude":
			p.exclude(it)
		}
	}
	all := p.issues.all()
	for _, i := range found {
		p.doubt(i.Severity == Error)
	}
	slices.SortStableFunc(all, func(a, b Issue) int { return a.Line - b.Line })
	return p.cfg, all, nil
}

// defaults is the configuration of an empty file.
func defaults(daemon Daemon) *Config {
	c := &Config{Daemon: daemon}
	for i := range options {
		opt := &options[i]
		if def, ok := opt.def(daemon); ok && def != "" {
			if err := opt.set(c, def); err != nil {
				panic("conf: default of " + opt.name + ": " + err.Error())
			}
		}
	}
	return c
}

type parser struct {
	cfg    *Config
	issues issues
	last   map[*option]Item // the one that counts, of options with one value
	silent string           // section that was complained of as a whole
	seen   map[tid.TID]int  // controllers, and the lines they are in
}

// doubt notes that a line was ignored that may have been about a controller:
// one in the wrong place, or one that was swallowed by the line above.
func (p *parser) doubt(yes bool) { p.cfg.Doubtful = p.cfg.Doubtful || yes }

// lookup finds the option that an item is about, and gives the item the place
// that the option has today. It complains of what the daemon does not have,
// and returns nil.
func (p *parser) lookup(it *Item) *option {
	if it.Key == "" {
		p.checkSection(*it)
		return nil
	}
	if it.Section == p.silent {
		return nil
	}
	written := it.Key
	now, old := moved[place{it.Section, it.Key}]
	if old {
		it.Section, it.Key = now.section, now.key
	}
	opt, other := find(p.cfg.Daemon, place{it.Section, it.Key})
	i := Issue{Line: it.Line, Severity: Error, Text: written, Used: "line ignored"}
	switch {
	case it.Continued: // said where the option began
		p.doubt(opt == nil)
		return opt
	case opt == nil && other:
		i.Problem = fmt.Sprintf("not an option of %s, only of the other daemon", p.cfg.Daemon)
	case opt == nil:
		i.Problem = fmt.Sprintf("no such option in [%s]%s", it.Section, suggest(it.Key, keysOf(p.cfg.Daemon, it.Section)))
		p.doubt(it.Section == controllers || it.Key == "controller")
	case old:
		i.Severity, i.Used = Warning, "taken as that"
		i.Problem = fmt.Sprintf("the option is %s in [%s] now", it.Key, it.Section)
	default:
		return opt
	}
	p.issues.add(i)
	return opt
}

func (p *parser) checkSection(it Item) {
	p.silent = ""
	mine := sectionsOf(p.cfg.Daemon)
	if slices.Contains(mine, it.Section) {
		return
	}
	p.silent = it.Section
	problem := "no such section" + suggest(it.Section, mine)
	if slices.ContainsFunc(options, func(o option) bool { return o.section == it.Section }) {
		problem = fmt.Sprintf("not a section of %s, only of the other daemon", p.cfg.Daemon)
	} else {
		p.doubt(true)
	}
	p.issues.add(Issue{Line: it.Line, Severity: Error, Text: "[" + it.Section + "]", Problem: problem, Used: "the whole section is ignored"})
}

// set gives an option its value, or says why it keeps its default.
func (p *parser) set(opt *option, it Item) {
	if err := opt.set(p.cfg, it.Value); err != nil {
		i := Issue{
			Line: it.Line, Severity: Warning, Text: it.Key + " = " + it.Value,
			Problem: err.Error(), Allowed: opt.allowed,
			Used: "using " + opt.used(p.cfg),
		}
		if it.Continued {
			i.Problem += " (being indented, the line continues the option above)"
			p.doubt(true)
		}
		p.issues.add(i)
		return
	}
	if opt.unbuilt != nil && opt.unbuilt(p.cfg) {
		p.issues.add(Issue{
			Line: it.Line, Severity: Note, Text: it.Key + " = " + it.Value,
			Problem: "accepted, has no effect in this version",
		})
	}
}
