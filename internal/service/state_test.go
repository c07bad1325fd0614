package service_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/service"
	"github.com/nvme-stas/stas/internal/tid"
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

// What cannot be used is set aside, one file of each sort, and what an instance
// has left that was killed is removed; but only once the name on the bus is
// owned: until then both may be another instance's.
func TestStateFileSetAside(t *testing.T) {
	for _, test := range []struct{ name, text, aside string }{
		{"garbage", "\x80\x04\x95pickle", "state.json.bad"},
		{"of the policy", `{"version":1,"state":{"Applied":"x"}}`, "state.json.bad"},
		{"newer", `{"version":7,"state":{"Applied":1}}`, "state.json.v7"},
		{"older", `{"version":-3,"state":{}}`, "state.json.bad"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				f := service.StateFile{Path: filepath.Join(dir, "state.json")}
				for name, text := range map[string]string{
					"state.json": test.text, "state.json.bad": "old", "state.json.v3": "old",
					".state.json.123": "half", "last-known-config.pickle": "of nvme-stas",
				} {
					if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				r := newRig(t, tid.IO)
				r.svc = service.New(tid.IO, r.policy, r.env(func(env *service.Env) { env.State = f }))
				r.policy.engine = r.svc.Engine()
				r.policy.apply = func(*conf.Config, hostid.Identity) { r.svc.Save(applied{r.policy.applied}) }
				var last applied
				if r.svc.Restore(&last) {
					t.Error("it was used")
				}
				r.outside.busErr = errors.New("the name is taken")
				if err := r.svc.Run(t.Context(), nil); err == nil {
					t.Error("it runs without a name")
				}
				if got, _ := os.ReadFile(f.Path); string(got) != test.text {
					t.Errorf("without a name it has written %q", got)
				}
				r.outside.busErr = nil
				r.svc = service.New(tid.IO, r.policy, r.env(func(env *service.Env) { env.State = f }))
				if r.svc.Restore(&last) {
					t.Error("it was used")
				}
				r.start()
				if got, _ := os.ReadFile(filepath.Join(dir, test.aside)); string(got) != test.text {
					t.Errorf("%s has %q", test.aside, got)
				}
				if err := f.Load(&last); err != nil || last.Applied == 0 {
					t.Errorf("the new state: %v, %v", last, err)
				}
				left, _ := filepath.Glob(filepath.Join(dir, "state.json.*"))
				hidden, _ := filepath.Glob(filepath.Join(dir, ".*"))
				pickle, _ := os.ReadFile(filepath.Join(dir, "last-known-config.pickle"))
				if len(left) != 2 || len(hidden) != 0 || string(pickle) != "of nvme-stas" {
					t.Errorf("in the directory: %q, %q, %q", left, hidden, pickle)
				}
			})
		})
	}
}
