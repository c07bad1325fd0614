// Package registry keeps the host's list of who looks after which controller,
// a convention among the programs that connect NVMe over Fabrics: one
// directory for each controller, one text file for each attribute. It is
// advisory.
package registry

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

// Self is the name under which both daemons own what they connect.
const Self = "stas"

// The attributes of an entry.
const (
	ownerFile = "owner"
	// seqnumFile has the number of the newest uevent when the entry was written
	// (/sys/kernel/uevent_seqnum): it tells the removal of this controller from
	// that of a former one with the same number.
	seqnumFile = "seqnum"
)

// maxAttr bounds what is read of an attribute, in bytes.
const maxAttr = 256

// abandoned is the age of an unfinished entry that nobody writes any more.
const abandoned = time.Minute

// Registry is the list. The paths are those of the host, or of a test.
type Registry struct {
	Dir    string // of the entries
	Dev    string // where a controller that exists has a file of its name
	Seqnum string // file with the number of the newest uevent
}

// Default is the registry of this host.
var Default = Registry{Dir: "/run/nvme/registry", Dev: "/dev", Seqnum: "/sys/kernel/uevent_seqnum"}

// Owner returns who owns a controller, or nothing if nobody does.
func (r Registry) Owner(name string) string {
	if !isController(name) {
		return ""
	}
	return r.attr(name, ownerFile)
}

// attr returns an attribute in its one line, or nothing if it has none or one
// that is not fit to be shown.
func (r Registry) attr(name, attribute string) string {
	f, err := os.Open(filepath.Join(r.Dir, name, attribute))
	if err != nil {
		return ""
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxAttr))
	value := strings.TrimSpace(string(text))
	if err != nil || strings.ContainsFunc(value, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return ""
	}
	return value
}

// isController keeps names from leading elsewhere.
func isController(name string) bool {
	digits, ok := strings.CutPrefix(name, "nvme")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

// Own notes that a controller, which has just been connected, is ours. What
// there is already belonged to a former one with the same number. Readers see
// one entry or the other, whole.
func (r Registry) Own(name string) error {
	if !isController(name) {
		return fmt.Errorf("%q is not the name of a controller", name)
	}
	seqnum, err := os.ReadFile(r.Seqnum)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.Dir, 0o755); err != nil {
		return err
	}
	// The dot keeps it from being taken for an entry.
	temp, err := os.MkdirTemp(r.Dir, "."+name+".*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp) // it is the old entry, if there was one
	err = errors.Join(
		os.Chmod(temp, 0o755),
		write(filepath.Join(temp, ownerFile), Self+"\n"),
		write(filepath.Join(temp, seqnumFile), strings.TrimSpace(string(seqnum))+"\n"),
		sync(temp),
	)
	if err != nil {
		return err
	}
	entry := filepath.Join(r.Dir, name)
	err = unix.Renameat2(unix.AT_FDCWD, temp, unix.AT_FDCWD, entry, unix.RENAME_EXCHANGE)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Rename(temp, entry)
	}
	if err != nil {
		return err
	}
	return sync(r.Dir)
}

func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()) // whatever the umask
}

func sync(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Disown takes the entry of a controller out whose removal the uevent with
// this number announced, by the test of libnvme's udev rule: the number may
// have been given to another controller since.
func (r Registry) Disown(name string, seqnum uint64) error {
	if !isController(name) {
		return nil
	}
	if _, err := os.Stat(filepath.Join(r.Dev, name)); err == nil {
		return nil
	}
	if stamp, err := strconv.ParseUint(r.attr(name, seqnumFile), 10, 64); err == nil && seqnum <= stamp {
		return nil
	}
	entry := filepath.Join(r.Dir, name)
	gone := filepath.Join(r.Dir, "."+name+".gone") // never seen in part
	err := errors.Join(os.RemoveAll(gone), os.Rename(entry, gone), os.RemoveAll(gone))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Sweep takes out what is left of controllers that were removed while nobody
// watched.
func (r Registry) Sweep() error {
	entries, err := os.ReadDir(r.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".nvme") {
			err = errors.Join(err, r.Disown(e.Name(), math.MaxUint64))
			continue
		}
		// Somebody may be at work on it; who was killed is not.
		if info, statErr := e.Info(); statErr == nil && time.Since(info.ModTime()) > abandoned {
			err = errors.Join(err, os.RemoveAll(filepath.Join(r.Dir, e.Name())))
		}
	}
	return err
}
