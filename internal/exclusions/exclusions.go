// Package exclusions reads the host's NVMe exclusion list: what none of the
// programs that connect storage by themselves may connect. The list is
// libnvme's, and has a form of its own:
//
//	[exclusions]
//	exclusion = key=value;key=value...
package exclusions

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/nvme-stas/stas/internal/tid"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

// DefaultPath is the list of a real host. The files *.conf of the directory
// with the same name and ".d" belong to it.
const DefaultPath = "/etc/nvme/exclusions.conf"

// maxFile bounds one file of the list.
const maxFile = 1 << 20

// List is the exclusion list. It is read again whenever a file of it has
// changed. It is safe for concurrent use, but its methods may block.
type List struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex // guards the following
	stamps  []stamp
	entries []entry
}

// New returns the list that is at a path.
func New(path string, log *slog.Logger) *List { return &List{path: path, log: log} }

// stamp changes when a file does.
type stamp struct {
	path         string
	inode        uint64
	size         int64
	mtime, ctime syscall.Timespec
}

// entry is one exclusion. It fits a connection that has all its values.
type entry struct {
	place  string // FILE:LINE
	text   string
	fields []field
}

type field struct{ name, value string }

// attributes are the keys that an exclusion may have, and what they are of a
// connection.
var attributes = map[string]func(*fabrics.Options) string{
	"transport":   func(o *fabrics.Options) string { return o.Transport },
	"traddr":      func(o *fabrics.Options) string { return o.TrAddr },
	"trsvcid":     func(o *fabrics.Options) string { return o.TrSvcID },
	"nqn":         func(o *fabrics.Options) string { return o.NQN },
	"host-traddr": func(o *fabrics.Options) string { return o.HostTrAddr },
	"host-iface":  func(o *fabrics.Options) string { return o.HostIface },
	"hostnqn":     func(o *fabrics.Options) string { return o.HostNQN },
	"hostid":      func(o *fabrics.Options) string { return o.HostID },
}

// Excludes says which entry excludes a connection, or nothing. What cannot be
// read excludes nothing.
func (l *List) Excludes(o fabrics.Options) string {
	for _, e := range l.current() {
		if e.match(&o) {
			return fmt.Sprintf("%s excludes %s", e.place, e.text)
		}
	}
	return ""
}

func (e entry) match(o *fabrics.Options) bool {
	for _, f := range e.fields {
		attribute := attributes[f.name]
		if attribute == nil || attribute(o) == "" || canonical(f.name, attribute(o)) != canonical(f.name, f.value) {
			return false
		}
	}
	return len(e.fields) > 0
}

// canonical makes values comparable that may be spelled in several ways.
func canonical(name, value string) string {
	switch name {
	case "traddr", "host-traddr":
		return tid.CanonicalAddr(value)
	case "trsvcid":
		return tid.CanonicalPort(value)
	case "transport", "hostid":
		return strings.ToLower(value)
	}
	return value
}

// current returns the entries of the files as they are now.
func (l *List) current() []entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	stamps := l.look()
	if slices.Equal(stamps, l.stamps) {
		return l.entries
	}
	l.stamps, l.entries = stamps, nil
	for _, s := range stamps {
		entries, err := s.read()
		if err != nil {
			l.log.Warn("a part of the NVMe exclusion list cannot be read, and excludes nothing", "error", err)
		}
		l.entries = append(l.entries, entries...)
	}
	return l.entries
}

// look lists the files that there are.
func (l *List) look() []stamp {
	paths := []string{l.path}
	if more, err := os.ReadDir(l.path + ".d"); err == nil {
		for _, e := range more { // in the order of their names
			if strings.HasSuffix(e.Name(), ".conf") {
				paths = append(paths, filepath.Join(l.path+".d", e.Name()))
			}
		}
	}
	var stamps []stamp
	for _, path := range paths {
		var st syscall.Stat_t
		if syscall.Stat(path, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFREG {
			stamps = append(stamps, stamp{path, st.Ino, st.Size, st.Mtim, st.Ctim})
		}
	}
	return stamps
}

// read reads the entries of one file.
func (s stamp) read() ([]entry, error) {
	if s.size > maxFile {
		return nil, &fs.PathError{Op: "read", Path: s.path, Err: syscall.EFBIG}
	}
	text, err := os.ReadFile(s.path)
	return parse(s.path, text), err
}

// parse reads the entries. What it cannot understand it passes over.
func parse(path string, text []byte) (entries []entry) {
	inside := false
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, maxFile+1)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		key, value, isOption := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			inside = line == "[exclusions]"
		case inside && isOption && strings.TrimSpace(key) == "exclusion":
			value = strings.TrimSpace(value)
			entries = append(entries, entry{fmt.Sprintf("%s:%d", path, n), value, fields(value)})
		}
	}
	return entries
}

// fields takes an exclusion apart. What is no field becomes one that no
// connection has.
func fields(text string) (all []field) {
	for part := range strings.SplitSeq(text, ";") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		all = append(all, field{cmp.Or(strings.TrimSpace(name), "?"), strings.TrimSpace(value)})
	}
	return all
}
