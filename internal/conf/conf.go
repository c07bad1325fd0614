// Package conf reads the configuration of the daemons, stafd.conf and
// stacd.conf, into values that are checked once and never change. Whatever is
// wrong with a file is told with file, line, what would be right, and what is
// used instead; only a line that makes the meaning of all others doubtful
// keeps a file from being used.
package conf

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
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
	Params      Params // of [Global]; see [Config.ParamsFor]
	IgnoreIface bool
	IPFamily    IPFamily
	PLEO        bool // stafd
	// ConnectRetryMax bounds the pause between attempts to connect.
	ConnectRetryMax time.Duration

	Zeroconf             bool          // stafd
	MDNS                 MDNS          // stafd
	PersistentConns      bool          // stafd
	ZeroconfPersistence  time.Duration // stafd; negative: forever
	DisconnectScope      DisconnectScope
	DisconnectTrtypes    []string // stacd
	ConnectAttemptsOnNCC int      // stacd; 0: no limit
	DisconnectInUse      bool     // stacd: disconnect what is in use, too
	// HonorTargetTimeouts lets log page entries say how long to wait for their
	// target, within these bounds in seconds.
	HonorTargetTimeouts                bool // stacd
	TargetTimeoutMin, TargetTimeoutMax int  // stacd

	Controllers []Controller
	Subsystems  []Subsystem
	Excludes    Rules
	Includes    Rules
	// AllowList says that there are include= lines, usable or not: nothing is
	// connected that no rule of Includes and no controller= line names.
	AllowList bool

	// Doubtful says that something was ignored that may have been meant for a
	// controller. Then a controller that is missing here was not necessarily
	// taken out, and its connection must not be removed for that.
	Doubtful bool
}

// Params are the parameters of a connection. What is nil or empty is left to
// the kernel.
type Params struct {
	HdrDigest        bool
	DataDigest       bool
	DisableSQFlow    bool
	KATO             *int // seconds
	QueueSize        *int
	ReconnectDelay   *int // seconds
	CtrlLossTMO      *int // seconds; -1: never give up
	FastIOFailTMO    *int // seconds; -1: off
	TOS              *int
	NrIOQueues       *int // stacd, as are the next three
	NrWriteQueues    *int
	NrPollQueues     *int
	DuplicateConnect bool
	TLS              bool
	Concat           bool
	Keyring          *int32 // serial number of a key
	TLSKey           *int32 // serial number of a key
	DHChapSecret     fabrics.Secret
	DHChapCtrlSecret fabrics.Secret

	Own OwnTimes
}

// OwnTimes has the numbers of seconds that a controller= or subsystem= line
// sets: nobody but the configuration may change these.
type OwnTimes struct{ ReconnectDelay, CtrlLossTMO, FastIOFailTMO bool }

// contradictory reports whether the kernel refuses the parameters.
func (p Params) contradictory() bool { return p.TLS && p.Concat }

const (
	tlsOrConcat      = "tls and concat exclude each other"
	noSuchConnection = "the kernel makes no such connection"
)

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

// MDNS says by what discovery controllers are browsed for.
type MDNS string

// The ways to browse.
const (
	MDNSAuto     MDNS = "auto"     // by Avahi while it is there, else by the daemon itself
	MDNSAvahi    MDNS = "avahi"    // by Avahi only
	MDNSEmbedded MDNS = "embedded" // by the daemon itself
)

// DisconnectScope says which connections stacd may remove.
type DisconnectScope string

// The scopes.
const (
	OnlyStasConnections DisconnectScope = "only-stas-connections"
	AllConnections      DisconnectScope = "all-connections-matching-disconnect-trtypes"
	NoDisconnect        DisconnectScope = "no-disconnect"
)

// Load reads a daemon's configuration: the file, and the files *.conf of the
// directory beside it that has its name and ".d", in the order of their names.
// A file that does not exist is an empty one, but a doubtful one: it may have
// been there before. After an error there is no Config: a daemon that is
// running already keeps the one it has.
func Load(daemon Daemon, path string) (*Config, []Issue, error) {
	return load(daemon, path, func(p *parser) error { return p.load(path) })
}

// LoadWith is Load with a text in place of the file, which name stands for.
func LoadWith(daemon Daemon, path, name, text string) (*Config, []Issue, error) {
	return load(daemon, path, func(p *parser) error { return p.scan(name, strings.NewReader(text)) })
}

func load(daemon Daemon, path string, file func(*parser) error) (*Config, []Issue, error) {
	p := newParser(daemon)
	p.readFile = readWord
	err := file(p)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.doubt(true)
	case err != nil:
		if _, broken := errors.AsType[*SyntaxError](err); !broken {
			err = fmt.Errorf("cannot read the configuration: %w; correct the file's permissions or name another file with -f", err)
		}
		return nil, nil, err
	}
	names, err := dropIns(path + ".d")
	if err != nil {
		p.unread(path+".d", err)
	}
	for _, name := range names {
		err := p.load(name)
		if _, broken := errors.AsType[*SyntaxError](err); broken {
			return nil, nil, err
		}
		if err != nil {
			p.unread(name, err)
		}
	}
	cfg, issues := p.parse()
	return cfg, issues, nil
}

// dropIns lists the files of a directory that belong to the configuration. A
// directory that does not exist has none.
func dropIns(dir string) (paths []string, err error) {
	entries, err := os.ReadDir(dir) // sorted
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".conf") && !strings.HasPrefix(name, ".") {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	return paths, err
}

// Parse reads a configuration that is all in one text; name stands for the
// file in whatever there is to complain of. Values in files of their own are
// not read.
func Parse(daemon Daemon, name string, r io.Reader) (*Config, []Issue, error) {
	p := newParser(daemon)
	if err := p.scan(name, r); err != nil {
		return nil, nil, err
	}
	cfg, issues := p.parse()
	return cfg, issues, nil
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
	files  []string // in the order in which they were read
	items  []Item
	// readFile reads a value that is in a file of its own.
	readFile func(path string) (string, error)

	last   map[*option]Item  // the one that counts, of options with one value
	old    map[*option]Item  // likewise, in a place that the option had once
	silent string            // section that was complained of as a whole
	seen   map[tid.TID]Place // controllers, and the lines they are in
}

func newParser(daemon Daemon) *parser {
	return &parser{
		cfg:  defaults(daemon),
		last: make(map[*option]Item),
		old:  make(map[*option]Item),
		seen: make(map[tid.TID]Place),
		readFile: func(path string) (string, error) {
			return "", fmt.Errorf("%s is not read", path)
		},
	}
}

func (p *parser) load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return p.scan(path, f)
}

func (p *parser) scan(name string, r io.Reader) error {
	items, found, err := Scan(name, r)
	if err != nil {
		return err
	}
	p.files = append(p.files, name)
	p.items = append(p.items, items...)
	for _, i := range found {
		p.issues.add(i)
		p.doubt(i.Severity == Error)
	}
	return nil
}

// unread notes that a file beside the main one cannot be read. What it has to
// say is not known, which is no reason to stop.
func (p *parser) unread(path string, err error) {
	p.files = append(p.files, path)
	p.doubt(true)
	p.issues.add(Issue{Place: Place{File: path}, Severity: Error, Problem: err.Error(), Cause: err, Used: "the configuration goes without it, and takes nothing away"})
}

// parse makes the configuration of all items.
func (p *parser) parse() (*Config, []Issue) {
	// Single values first: controllers start from what [Global] says, wherever
	// it stands. Then what controllers start from besides.
	lists := make(map[*option][]Item)
	for _, it := range p.items {
		if it.Bare {
			continue
		}
		switch opt, old := p.lookup(&it); {
		case opt == nil:
		case opt.list:
			lists[opt] = append(lists[opt], it)
		case old:
			latest(p.old, opt, it)
		default:
			latest(p.last, opt, it)
		}
	}
	for i := range options {
		opt := &options[i]
		p.settle(opt)
		for _, it := range lists[opt] {
			if it.Value != "" {
				lines[opt.name](p, it)
			}
		}
	}
	if p.cfg.Params.contradictory() {
		it := p.last[paramOption("concat")]
		p.issues.add(Issue{Place: it.Place, Severity: Warning, Text: it.Key + " = " + it.Value, Problem: tlsOrConcat, Used: noSuchConnection})
	}
	all := p.issues.all()
	slices.SortStableFunc(all, func(a, b Issue) int {
		return cmp.Or(slices.Index(p.files, a.File)-slices.Index(p.files, b.File), a.Line-b.Line)
	})
	return p.cfg, all
}

// latest notes the value of an option, of which the last one counts. As for
// Python, there is nothing behind a value but another value.
func latest(values map[*option]Item, opt *option, it Item) {
	if _, given := values[opt]; !given || it.Value != "" {
		values[opt] = it
	}
}

// settle gives an option the value that counts of those the files have.
func (p *parser) settle(opt *option) {
	it, given := p.last[opt]
	if former, ok := p.old[opt]; ok {
		used := "taken as that"
		if given {
			used = "line ignored, as that one is given, too"
		} else {
			it, given = former, true
		}
		p.moved(former, former.Key, used)
	}
	if given {
		p.set(opt, it)
	}
}

// doubt notes that a line was ignored that may have been about a controller:
// one in the wrong place, or one that was swallowed by the line above.
func (p *parser) doubt(yes bool) { p.cfg.Doubtful = p.cfg.Doubtful || yes }

// lookup finds the option that an item is about, and gives the item the place
// that the option has today; old says that it had another. It complains of what
// the daemon does not have, and returns nil.
func (p *parser) lookup(it *Item) (opt *option, old bool) {
	if it.Key == "" {
		p.checkSection(*it)
		return nil, false
	}
	if it.Section == p.silent {
		return nil, false
	}
	written := it.Key
	now, old := formerly[place{it.Section, it.Key}]
	if old {
		it.Section, it.Key = now.section, now.key
	}
	opt, other := find(p.cfg.Daemon, place{it.Section, it.Key})
	i := Issue{Place: it.Place, Severity: Error, Text: written, Used: "line ignored"}
	switch {
	case it.Continued: // said where the option began
		p.doubt(opt == nil)
		return opt, old
	case opt == nil && other:
		i.Problem = fmt.Sprintf("not an option of %s, only of the other daemon", p.cfg.Daemon)
	case opt == nil && gone[it.Key] != "":
		i.Problem = "this option is no more: " + gone[it.Key]
	case opt == nil:
		i.Problem = fmt.Sprintf("no such option in [%s]%s", it.Section, p.suggestOption(it))
		p.doubt(it.Section == controllers || lines[it.Key] != nil)
	case old && opt.list:
		p.moved(*it, written, "taken as that")
		return opt, old
	default:
		return opt, old
	}
	p.issues.add(i)
	return nil, false
}

// moved complains of an option that is in a place that it had once.
func (p *parser) moved(it Item, written, used string) {
	p.issues.add(Issue{
		Place: it.Place, Severity: Warning, Text: written,
		Problem: fmt.Sprintf("the option is %s in [%s] now", it.Key, it.Section), Used: used,
	})
}

// suggestOption says what an option that does not exist was probably meant to be.
func (p *parser) suggestOption(it *Item) string {
	for _, section := range sectionsOf(p.cfg.Daemon) {
		if opt, _ := find(p.cfg.Daemon, place{section, it.Key}); opt != nil {
			return fmt.Sprintf(", it belongs into [%s]", section)
		}
	}
	return suggest(it.Key, keysOf(p.cfg.Daemon, it.Section))
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
	p.issues.add(Issue{Place: it.Place, Severity: Error, Text: "[" + it.Section + "]", Problem: problem, Used: "the whole section is ignored"})
}

// set gives an option its value, or says what it has instead.
func (p *parser) set(opt *option, it Item) {
	i := Issue{Place: it.Place, Text: it.Key + " = " + it.Value}
	if err := p.assign(opt, p.cfg, it.Value); err != nil {
		i.Severity, i.Problem, i.Allowed, i.Used, i.Cause = Warning, err.Error(), opt.allowed, opt.used(p.cfg), err
		if commented(it.Value) {
			i.Problem += noComment
		}
		if it.Continued {
			i.Problem += " (being indented, the line continues the option above)"
			p.doubt(true)
		}
		p.issues.add(i)
		return
	}
}

// assign is option.set for a value that may be in a file of its own.
func (p *parser) assign(opt *option, c *Config, value string) error {
	path, isFile := strings.CutPrefix(value, FilePrefix)
	if !isFile || !opt.file {
		return opt.set(c, value)
	}
	text, err := p.readFile(path)
	if e := opt.set(c, text); err == nil {
		err = e
	}
	return err
}
