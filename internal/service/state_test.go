package service_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/nvme-stas/stas/internal/service"
)

func TestStateFile(t *testing.T) {
	dir := t.TempDir()
	f := service.StateFile{Path: filepath.Join(dir, "state.json")}
	var got []string
	if err := f.Load(&got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	for _, text := range []string{`["a","b"]`, `["c"]`} {
		if err := f.Save(json.RawMessage(text)); err != nil {
			t.Fatal(err)
		}
		got = nil
		if err := f.Load(&got); err != nil {
			t.Error(err)
		}
		if again, _ := json.Marshal(got); string(again) != text {
			t.Errorf("loaded %s, want %s", again, text)
		}
		if info, err := os.Stat(f.Path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%v, %v, want mode 0600", info.Mode(), err)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
}

// The old state stays whole when the new one cannot be written.
func TestStateFileKeepsOld(t *testing.T) {
	f := service.StateFile{Path: filepath.Join(t.TempDir(), "state.json")}
	if err := f.Save(json.RawMessage(`1`)); err != nil {
		t.Fatal(err)
	}
	if err := f.Save(json.RawMessage(`{`)); err == nil {
		t.Error("nonsense was saved")
	}
	var got int
	if err := f.Load(&got); err != nil || got != 1 {
		t.Errorf("loaded %d, %v", got, err)
	}
}

func TestStateFileDirectory(t *testing.T) {
	dir := t.TempDir()
	var got int
	missing := service.StateFile{Path: filepath.Join(dir, "none", "state.json")}
	if err := errors.Join(missing.Save(json.RawMessage(`1`)), missing.Load(&got)); err != nil || got != 1 {
		t.Errorf("in a directory that was missing: %v", err)
	}
	blocked := service.StateFile{Path: filepath.Join(missing.Path, "state.json")}
	if err := blocked.Save(json.RawMessage(`1`)); err == nil {
		t.Error("saved where there can be no directory")
	}
}

func TestStateFileDamaged(t *testing.T) {
	for _, text := range []string{
		``, `{`, `[]`, `null`, `{"version":1}`, `{"version":1,"state":{"x":1}}`, `{"version":1,"state":["a"`,
		`{"version":2,"state":["a"]}`, `{"version":"1","state":["a"]}`, `{"state":["a"]}`, "\x00\x00",
	} {
		f := service.StateFile{Path: filepath.Join(t.TempDir(), "state.json")}
		if err := os.WriteFile(f.Path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var got []string
		if err := f.Load(&got); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q was loaded as %v, %v", text, got, err)
		}
	}
}
