package scenario

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// writeFile writes a file of the system or of one of the kernel's file
// systems, where the reason of a refusal is in the kernel log.
func writeFile(t testing.TB, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// dropIn writes a file of the directory that goes with a configuration file, or
// removes it.
func dropIn(t testing.TB, confFile, name, text string) {
	t.Helper()
	file := filepath.Join(confFile+".d", name)
	if text == "" {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, text)
}
