// Package hostid knows who this host is to NVMe-oF storage: it reads the
// identity from sys.conf and the files it refers to, and makes one for a host
// that has none.
package hostid

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/pkg/fabrics"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// Identity is what the host calls itself. NQN and ID are always there.
type Identity struct {
	NQN     string
	ID      string         // UUID, lower case
	Key     fabrics.Secret // DH-HMAC-CHAP key, if any
	SymName string         // for people to read, if any

	others []Pair // that were found besides
}

// Pair is a host NQN and the host ID that goes with it, as something besides
// the files has them.
type Pair struct {
	NQN, ID string
	From    string // what has them, for people: "nvme0", "the boot table NBFT"
	// InUse says that the kernel has a connection under this pair. As long as
	// it has, it takes neither of the two with another partner (EINVAL;
	// drivers/nvme/host/fabrics.c, nvmf_host_add, since Linux 6.5).
	InUse bool
}

// IDFor is the host ID that goes with a host NQN. Linux allows one host ID for
// each host NQN and the other way round, so that an NQN that is not the host's
// own needs another ID: the one under which it is connected already, or was
// when the host booted, the UUID in it, or one derived from it.
func (i Identity) IDFor(nqn string) string {
	if nqn == i.NQN {
		return i.ID
	}
	if p, ok := i.connected(func(p Pair) bool { return p.NQN == nqn }); ok {
		return p.ID
	}
	taken := func(uuid string) bool {
		_, ok := i.connected(func(p Pair) bool { return p.ID == uuid })
		return ok || uuid == i.ID
	}
	if p, ok := find(i.others, func(p Pair) bool { return p.NQN == nqn && !taken(p.ID) }); ok {
		return p.ID
	}
	return derivedID(nqn, taken)
}

// connected finds a pair under which the kernel has a connection.
func (i Identity) connected(match func(Pair) bool) (Pair, bool) {
	return find(i.others, func(p Pair) bool { return p.InUse && match(p) })
}

// derivedID makes a host ID of a host NQN, always the same unless it is taken.
func derivedID(nqn string, taken func(uuid string) bool) string {
	if _, text, ok := strings.Cut(nqn, ":uuid:"); ok {
		if uuid, err := CheckUUID(text); err == nil && !taken(uuid) {
			return uuid
		}
	}
	sum := sha256.Sum256([]byte(nqn))
	return version4(sum[:16])
}

// usable are the pairs that can be used, with IDs in their one spelling.
func usable(pairs []Pair) (good []Pair) {
	for _, p := range pairs {
		uuid, err := CheckUUID(p.ID)
		if err == nil && nvme.CheckNQN(p.NQN) == nil {
			p.ID = uuid
			good = append(good, p)
		}
	}
	return good
}

func find(pairs []Pair, match func(Pair) bool) (Pair, bool) {
	if i := slices.IndexFunc(pairs, match); i >= 0 {
		return pairs[i], true
	}
	return Pair{}, false
}

// Paths says where an identity is read from.
type Paths struct {
	SysConf string
	// Where to look for what sys.conf does not give.
	NQN string
	ID  string
	Key string
}

// DefaultPaths are the files of a real host.
var DefaultPaths = Paths{
	SysConf: "/etc/stas/sys.conf",
	NQN:     "/etc/nvme/hostnqn",
	ID:      "/etc/nvme/hostid",
	Key:     "/etc/nvme/hostkey",
}

// The section of sys.conf, and its options.
const (
	Section    = "Host"
	KeyNQN     = "nqn"
	KeyID      = "id"
	KeyKey     = "key"
	KeySymName = "symname"
)

// FilePrefix begins a value of sys.conf that is in a file of its own.
const FilePrefix = conf.FilePrefix

// Load reads the identity. The files come first; a host that has no host NQN
// there takes the first of the others, in full, and one that has no host ID
// that of its NQN. Without a valid NQN and ID there is no identity, and the
// error says what to do about it.
func Load(paths Paths, others ...Pair) (Identity, []conf.Issue, error) {
	sys, err := readSysConf(paths.SysConf)
	if err != nil {
		return Identity{}, nil, err
	}
	// What the kernel shows need not be what is needed here.
	others = usable(others)
	id := Identity{others: others}
	id.NQN, id.ID, err = sys.nqn(paths.NQN, others)
	if err == nil && id.ID == "" {
		id.ID, err = sys.id(paths.ID, id.NQN, others)
	}
	if err != nil {
		return Identity{}, sys.issues, err
	}
	id.ID = sys.pair(id)
	id.Key = fabrics.NewSecret(conf.FirstWord(sys.optional(KeyKey, paths.Key)))
	if id.Key != (fabrics.Secret{}) && !id.Key.IsDHChapKey() {
		sys.complain(sys.host[KeyKey], KeyKey, "not a DH-HMAC-CHAP key (DHHC-1:…:…:)", "there is none")
		id.Key = fabrics.Secret{}
	}
	id.SymName = sys.optional(KeySymName, "")
	return id, sys.issues, nil
}

// nqn finds the host NQN, and the host ID with it if neither is from the files.
func (s *sysConf) nqn(defaultPath string, others []Pair) (nqn, id string, err error) {
	v, err := s.mandatory("host NQN", KeyNQN, defaultPath, "hostnqn")
	if _, ok := errors.AsType[*missingError](err); ok && len(others) > 0 {
		s.complain(conf.Item{Place: conf.Place{File: v.place}}, "", err.Error(), fmt.Sprintf("using %s, the one of %s", others[0].NQN, others[0].From))
		return others[0].NQN, others[0].ID, nil
	}
	if err == nil {
		err = nvme.CheckNQN(v.text)
	}
	return v.text, "", v.blame(err)
}

// id finds the host ID that goes with the host NQN.
func (s *sysConf) id(defaultPath, nqn string, others []Pair) (string, error) {
	v, err := s.mandatory("host ID", KeyID, defaultPath, "hostid")
	p, known := find(others, func(p Pair) bool { return p.NQN == nqn })
	if _, ok := errors.AsType[*missingError](err); ok && known {
		s.complain(conf.Item{Place: conf.Place{File: v.place}}, "", err.Error(), fmt.Sprintf("using %s, the one that goes with the host NQN in %s", p.ID, p.From))
		return p.ID, nil
	}
	var uuid string
	if err == nil {
		uuid, err = CheckUUID(v.text)
	}
	return uuid, v.blame(err)
}

// pair checks host NQN and host ID against those under which the kernel has
// connections: of what does not fit it makes no connection. It returns the host
// ID that does.
func (s *sysConf) pair(id Identity) string {
	own, connected := id.connected(func(p Pair) bool { return p.NQN == id.NQN })
	if _, same := id.connected(func(p Pair) bool { return p.NQN == id.NQN && p.ID == id.ID }); same {
		return id.ID
	}
	other, taken := id.connected(func(p Pair) bool { return p.ID == id.ID })
	var used, problem string
	switch {
	case connected:
		used = own.ID
		problem = fmt.Sprintf("%s is connected under the host NQN %s with another host ID, and the kernel makes no connection with two", own.From, id.NQN)
	case taken:
		used = derivedID(id.NQN, func(uuid string) bool { return uuid == id.ID })
		problem = fmt.Sprintf("%s is connected with this host ID under another host NQN, %s, and the kernel makes no connection with two", other.From, other.NQN)
	default:
		return id.ID
	}
	s.complain(s.host[KeyID], "host ID "+id.ID, problem, "using "+used+" until the next reload")
	return used
}

// value is a text and where it comes from.
type value struct {
	text  string
	place string
}

// blame adds to an error about the text, if there is one, where it comes from.
func (v value) blame(err error) error {
	if err == nil || v.text == "" {
		return err // it says so already
	}
	return fmt.Errorf("%s: %s", v.place, conf.Excerpt(err.Error())) // which may quote a key
}

// sysConf is the contents of sys.conf.
type sysConf struct {
	path   string
	host   map[string]conf.Item
	issues []conf.Issue
}

func readSysConf(path string) (*sysConf, error) {
	s := &sysConf{path: path, host: make(map[string]conf.Item)}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot read the host's identity: %w", err)
	}
	defer f.Close()
	items, issues, err := conf.Scan(path, f)
	if err != nil {
		return nil, err
	}
	s.issues = issues
	for _, it := range items {
		switch {
		case it.Section != Section:
			if it.Key == "" {
				s.complain(it, "["+it.Section+"]", "no such section, there is only [Host]", "the whole section is ignored")
			}
		case it.Key == "" || it.Bare:
		case it.Key == KeyNQN, it.Key == KeyID, it.Key == KeyKey, it.Key == KeySymName:
			if s.host[it.Key].Value == "" || it.Value != "" {
				s.host[it.Key] = it
			}
		case !it.Continued:
			s.complain(it, it.Key, "no such option in [Host]; there are nqn, id, key and symname", "line ignored")
		}
	}
	return s, nil
}

// missingError says that the default file of something has nothing to say.
type missingError struct{ error }

func (s *sysConf) complain(it conf.Item, text, problem, used string) {
	place := it.Place
	if place.File == "" {
		place.File = s.path // the option is not there
	}
	s.issues = append(s.issues, conf.Issue{
		Place: place, Severity: conf.Error, Text: conf.Excerpt(text), Problem: conf.Excerpt(problem), Used: used,
	})
}

// mandatory finds a value that the host cannot do without. The default path
// has it if sys.conf does not; command is the one of stasadm that makes it.
func (s *sysConf) mandatory(what, key, defaultPath, command string) (value, error) {
	it := s.host[key]
	path, isFile := strings.CutPrefix(it.Value, FilePrefix)
	if it.Value == "" {
		path, isFile = defaultPath, true
	}
	place := it.String()
	if !isFile {
		return value{it.Value, place}, nil
	}
	named := ""
	if path != defaultPath {
		named = fmt.Sprintf(" (named in %s)", place)
	}
	line, err := conf.FirstLine(path)
	text := conf.FirstWord(line)
	missing := errors.Is(err, fs.ErrNotExist) || err == nil && text == ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("no %s: %s%s does not exist; create it with: stasadm %s -f %[2]s", what, path, named, command)
	case err != nil:
		err = fmt.Errorf("no %s: %w%s", what, err, named)
	case text == "":
		err = fmt.Errorf("no %s: %s%s is empty; fill it with: stasadm %s -f %[2]s", what, path, named, command)
	}
	if missing && named == "" {
		err = &missingError{err}
	}
	return value{text, path}, err
}

// optional finds a value that the host need not have; "" if it has none.
func (s *sysConf) optional(key, defaultPath string) string {
	it := s.host[key]
	path, isFile := strings.CutPrefix(it.Value, FilePrefix)
	if it.Value == "" {
		path, isFile = defaultPath, defaultPath != ""
	}
	if !isFile {
		return it.Value
	}
	line, err := conf.FirstLine(path)
	if err != nil && (it.Value != "" || !errors.Is(err, fs.ErrNotExist)) {
		s.complain(it, key, err.Error(), "nothing is used as "+key)
		s.issues[len(s.issues)-1].Cause = err
	}
	return line
}
