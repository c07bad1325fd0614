// Package atomicfile writes files so that whoever reads them meanwhile, or
// after a power cut, sees the old contents or the new ones, never a part.
package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// step is called between the steps of Write, by name; tests end the process there.
var step = func(string) {}

// Write replaces the contents of a file, which keeps its owner and mode, or
// creates it with mode.
func Write(path string, data []byte, mode fs.FileMode) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // replace the file, not the link to it
	}
	old, statErr := os.Stat(path)
	switch {
	case statErr == nil && !old.Mode().IsRegular():
		return os.WriteFile(path, data, mode)
	case statErr == nil:
		mode = old.Mode().Perm()
	case !errors.Is(statErr, fs.ErrNotExist):
		return statErr
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, temps(path))
	if err != nil {
		return err
	}
	step("created")
	defer os.Remove(f.Name()) // fails once it has its final name
	defer f.Close()
	if statErr == nil {
		if s, ok := old.Sys().(*syscall.Stat_t); ok {
			// Who may not give files away owns the old one, or its directory.
			_ = f.Chown(int(s.Uid), int(s.Gid))
		}
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	step("written")
	if err := errors.Join(f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	step("synced")
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	step("renamed")
	return syncDir(dir)
}

// temps are the names of what Write has not finished.
func temps(path string) string { return "." + filepath.Base(path) + ".*" }

// Sweep removes what calls of Write have left that were killed. Nobody else may
// be writing the file meanwhile.
func Sweep(path string) error {
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), temps(path)))
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// syncDir makes a new name in a directory survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
