// Package hostid knows who this host is to NVMe-oF storage: it reads the
// identity from sys.conf and the files it refers to, and makes one for a host
// that has none.
package hostid

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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
}

// IDFor is the host ID that goes with a host NQN. Linux allows one host ID for
// each host NQN and the other way round, so that an NQN that is not the host's
// own needs another ID: the UUID in it, or one derived from it.
func (i Identity) IDFor(nqn string) string {
	if nqn == i.NQN {
		return i.ID
	}
	if _, text, ok := strings.Cut(nqn, ":uuid:"); ok {
		if uuid, err := CheckUUID(text); err == nil {
			return uuid
		}
	}
	sum := sha256.Sum256([]byte(nqn))
	return version4(sum[:16])
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
const FilePrefix = "file://"

// Load reads the identity. Without a valid NQN and ID there is none, and the
// error says what to do about it.
func Load(paths Paths) (Identity, []conf.Issue, error) {
	sys, err := readSysConf(paths.SysConf)
	if err != nil {
		return Identity{}, nil, err
	}
	nqn, err := sys.mandatory("host NQN", KeyNQN, paths.NQN, "hostnqn")
	if err == nil {
		err = nvme.CheckNQN(nqn.text)
	}
	if err != nil {
		return Identity{}, sys.issues, nqn.blame(err)
	}
	id, err := sys.mandatory("host ID", KeyID, paths.ID, "hostid")
	var uuid string
	if err == nil {
		uuid, err = CheckUUID(id.text)
	}
	if err != nil {
		return Identity{}, sys.issues, id.blame(err)
	}
	return Identity{
		NQN:     nqn.text,
		ID:      uuid,
		Key:     fabrics.NewSecret(firstWord(sys.optional(KeyKey, paths.Key))),
		SymName: sys.optional(KeySymName, ""),
	}, sys.issues, nil
}

// value is a text and where it comes from.
type value struct {
	text  string
	place string
}

// blame adds to an error about the text where it comes from.
func (v value) blame(err error) error {
	if v.text == "" {
		return err // it says so already
	}
	return fmt.Errorf("%s: %w", v.place, err)
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
			s.host[it.Key] = it
			if unbuilt := it.Key == KeyKey || it.Key == KeySymName; unbuilt && it.Value != "" {
				s.issues = append(s.issues, conf.Issue{
					File: path, Line: it.Line, Severity: conf.Note, Text: it.Key,
					Problem: "accepted, has no effect in this version",
				})
			}
		case !it.Continued:
			s.complain(it, it.Key, "no such option in [Host]; there are nqn, id, key and symname", "line ignored")
		}
	}
	return s, nil
}

func (s *sysConf) complain(it conf.Item, text, problem, used string) {
	s.issues = append(s.issues, conf.Issue{
		File: s.path, Line: it.Line, Severity: conf.Error, Text: text, Problem: problem, Used: used,
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
	place := fmt.Sprintf("%s:%d", s.path, it.Line)
	if !isFile {
		return value{it.Value, place}, nil
	}
	named := ""
	if path != defaultPath {
		named = fmt.Sprintf(" (named in %s)", place)
	}
	line, err := firstLine(path)
	text := firstWord(line)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("no %s: %s%s does not exist; create it with: stasadm %s -f %[2]s", what, path, named, command)
	case err != nil:
		err = fmt.Errorf("no %s: %w%s", what, err, named)
	case text == "":
		err = fmt.Errorf("no %s: %s%s is empty; fill it with: stasadm %s -f %[2]s", what, path, named, command)
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
	line, err := firstLine(path)
	if err != nil && (it.Value != "" || !errors.Is(err, fs.ErrNotExist)) {
		s.complain(it, key, err.Error(), "nothing is used as "+key)
	}
	return line
}

// maxLine bounds what is read of a file that should have one short line.
const maxLine = 4096

func firstLine(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxLine))
	if err != nil {
		return "", err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return string(bytes.TrimSpace(line)), nil
}

func firstWord(line string) string {
	for word := range strings.FieldsSeq(line) {
		return word
	}
	return ""
}
