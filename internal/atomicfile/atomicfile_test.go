package atomicfile

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// A process that is killed between any two steps leaves the old contents or the
// new ones, and what is left besides goes at the next start.
func TestKilled(t *testing.T) {
	old, replaced := []byte("old"), bytes.Repeat([]byte("new"), 10000)
	if at := os.Getenv("STAS_KILL_AT"); at != "" {
		step = func(name string) {
			if name == at {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		}
		_ = Write(os.Getenv("STAS_KILL_FILE"), replaced, 0o600)
		os.Exit(0) // not killed
	}
	for at, want := range map[string][]byte{
		"created": old, "written": old, "synced": old, "renamed": replaced, "never": replaced,
	} {
		path := filepath.Join(t.TempDir(), "state.json")
		if err := Write(path, old, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "STAS_KILL_AT="+at, "STAS_KILL_FILE="+path)
		if err := cmd.Run(); (err == nil) != (at == "never") {
			t.Fatalf("%s: %v", at, err)
		}
		if got, err := os.ReadFile(path); !bytes.Equal(got, want) {
			t.Errorf("killed when %s: %d bytes, want %d, %v", at, len(got), len(want), err)
		}
		if err := Sweep(path); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
			t.Errorf("killed when %s: left are %v", at, left)
		}
	}
}

// The mode and the target of a link stay, as do files of similar names.
func TestWriteAndSweep(t *testing.T) {
	dir := t.TempDir()
	path, link, other := filepath.Join(dir, "a"), filepath.Join(dir, "link"), filepath.Join(dir, ".ab.1")
	for _, err := range []error{
		os.WriteFile(path, nil, 0o640), os.Symlink(path, link), os.WriteFile(other, nil, 0o600),
		Write(link, []byte("x"), 0o600), Sweep(path),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	to, _ := os.Readlink(link)
	if err != nil || info.Mode() != 0o640 || info.Size() != 1 || to != path {
		t.Errorf("%v, %v, the link leads to %s", info, err, to)
	}
	if _, err := os.Stat(other); err != nil {
		t.Error(err)
	}
}
