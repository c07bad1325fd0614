package registry_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nvme-stas/stas/internal/registry"
)

// host is a registry whose uevents have come to number n, with controllers.
func host(t *testing.T, n int, controllers ...string) registry.Registry {
	t.Helper()
	dir := t.TempDir()
	r := registry.Registry{Dir: filepath.Join(dir, "run/nvme/registry"), Dev: filepath.Join(dir, "dev"), Seqnum: filepath.Join(dir, "uevent_seqnum")}
	put(t, r.Seqnum, strconv.Itoa(n)+"\n")
	for _, c := range controllers {
		put(t, filepath.Join(r.Dev, c), "")
	}
	return r
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// contents lists the files of the registry, as "nvme0/owner=stas …".
func contents(t *testing.T, r registry.Registry) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(r.Dir, "*", "*"))
	hidden, err2 := filepath.Glob(filepath.Join(r.Dir, ".*"))
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	var all []string
	for _, f := range append(files, hidden...) {
		text, _ := os.ReadFile(f)
		rel, _ := filepath.Rel(r.Dir, f)
		all = append(all, rel+"="+string(text))
	}
	return strings.Join(all, " ")
}

func TestOwn(t *testing.T) {
	const ours = "nvme3/owner=stas\n nvme3/seqnum=4711\n"
	for _, test := range []struct {
		name  string
		stale map[string]string
	}{
		{"the first", nil},
		{"a former one's", map[string]string{"owner": "csi-driver\n", "seqnum": "17\n", "pet": "cat\n"}},
		{"half an entry", map[string]string{"owner": ""}},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := host(t, 4711, "nvme3")
			for name, text := range test.stale {
				put(t, filepath.Join(r.Dir, "nvme3", name), text)
			}
			if err := r.Own("nvme3"); err != nil {
				t.Fatal(err)
			}
			if got := contents(t, r); got != ours {
				t.Errorf("the registry has %q, want %q", got, ours)
			}
			if got := r.Owner("nvme3"); got != registry.Self {
				t.Errorf("owner %q", got)
			}
			for file, mode := range map[string]os.FileMode{".": 0o755, "owner": 0o644, "seqnum": 0o644} {
				info, err := os.Stat(filepath.Join(r.Dir, "nvme3", file))
				if err != nil || info.Mode().Perm() != mode {
					t.Errorf("%s: %v, %v", file, info.Mode(), err)
				}
			}
		})
	}
}

// Whoever reads meanwhile sees an owner at any moment.
func TestOwnIsAtomic(t *testing.T) {
	r := host(t, 1, "nvme0")
	if err := r.Own("nvme0"); err != nil {
		t.Fatal(err)
	}
	var writers sync.WaitGroup
	for range 2 {
		writers.Go(func() {
			for range 100 {
				if err := r.Own("nvme0"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	for n := 0; ; n++ {
		select {
		case <-done:
			if got := contents(t, r); got != "nvme0/owner=stas\n nvme0/seqnum=1\n" {
				t.Errorf("at the end there is %q", got)
			}
			return
		default:
			// A path is resolved in steps, so that one look may still fall into
			// the entry that goes.
			owner := ""
			for range 3 {
				owner += r.Owner("nvme0")
			}
			if owner == "" {
				t.Fatalf("no owner at look %d", n)
			}
		}
	}
}

func TestOwnRefuses(t *testing.T) {
	r := host(t, 1)
	for _, name := range []string{"", "nvme", "nvme0n1", "../nvme0", "nvme-1", "."} {
		if err := r.Own(name); err == nil {
			t.Errorf("%q is owned", name)
		}
	}
	if err := os.Remove(r.Seqnum); err != nil {
		t.Fatal(err)
	}
	if err := r.Own("nvme0"); err == nil || contents(t, r) != "" {
		t.Errorf("an entry without number: %v, %q", err, contents(t, r))
	}
}

func TestOwner(t *testing.T) {
	r := host(t, 1)
	for text, want := range map[string]string{
		"nbft\n": "nbft", "csi-driver": "csi-driver", "": "", "\n": "", "a\x1b[31mb\n": "",
		strings.Repeat("x", 1000): strings.Repeat("x", 256),
	} {
		put(t, filepath.Join(r.Dir, "nvme0", "owner"), text)
		if got := r.Owner("nvme0"); got != want {
			t.Errorf("%q: owner %q, want %q", text, got, want)
		}
	}
	for _, name := range []string{"nvme1", "", "..", "../registry/nvme0"} {
		if got := r.Owner(name); got != "" {
			t.Errorf("%q: owner %q", name, got)
		}
	}
}

func TestDisown(t *testing.T) {
	for _, test := range []struct {
		name    string
		exists  bool
		stamp   string
		removed uint64
		stays   bool
	}{
		{name: "gone", stamp: "100", removed: 101},
		{name: "the number was given away again", exists: true, stamp: "100", removed: 101, stays: true},
		{name: "a former one's removal, told late", stamp: "100", removed: 99, stays: true},
		{name: "at the same number", stamp: "100", removed: 100, stays: true},
		{name: "no number", stamp: "", removed: 1},
		{name: "a number that is none", stamp: "-1", removed: 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := host(t, 1)
			if test.exists {
				put(t, filepath.Join(r.Dev, "nvme0"), "")
			}
			put(t, filepath.Join(r.Dir, "nvme0", "owner"), "stas\n")
			put(t, filepath.Join(r.Dir, "nvme0", "seqnum"), test.stamp)
			put(t, filepath.Join(r.Dir, "nvme1", "owner"), "nbft\n")
			if err := r.Disown("nvme0", test.removed); err != nil {
				t.Error(err)
			}
			if stays := r.Owner("nvme0") != ""; stays != test.stays {
				t.Errorf("stays %v: %q", stays, contents(t, r))
			}
			if r.Owner("nvme1") != "nbft" {
				t.Error("another entry has gone")
			}
			if err := r.Disown("nvme7", 1); err != nil {
				t.Errorf("of one without entry: %v", err)
			}
		})
	}
}

func TestSweep(t *testing.T) {
	r := host(t, 5, "nvme1")
	if err := r.Sweep(); err != nil {
		t.Errorf("without a registry: %v", err)
	}
	for _, name := range []string{"nvme0", "nvme1", "nvme2"} {
		if err := r.Own(name); err != nil {
			t.Fatal(err)
		}
	}
	old, busy := filepath.Join(r.Dir, ".nvme9.123"), filepath.Join(r.Dir, ".nvme8.123")
	for _, dir := range []string{old, busy} {
		put(t, filepath.Join(dir, "owner"), "stas\n")
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := r.Sweep(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(busy); err != nil {
		t.Errorf("what somebody writes: %v", err)
	}
	if err := os.RemoveAll(busy); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, r); got != "nvme1/owner=stas\n nvme1/seqnum=5\n" {
		t.Errorf("left: %q", got)
	}
}
