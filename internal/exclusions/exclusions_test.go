package exclusions

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nvme-stas/stas/pkg/fabrics"
)

var connection = fabrics.Options{
	Transport: "tcp", TrAddr: "2001:db8::1", TrSvcID: "4420", NQN: "nqn.a=b", HostIface: "eth0",
	HostNQN: "nqn.host", HostID: "36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2",
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMatch(t *testing.T) {
	fc := fabrics.Options{Transport: "fc", TrAddr: "nn-0xab:pn-0xcd", HostTrAddr: "nn-0x1:pn-0x2", NQN: "nqn.a"}
	for _, tt := range []struct {
		text string // below [exclusions]
		of   fabrics.Options
		want bool
	}{
		{"exclusion = transport=tcp", connection, true},
		{"exclusion=transport=rdma\nexclusion = nqn=nqn.a=b", connection, true},
		{" exclusion = transport = tcp ; traddr = 2001:DB8:0::1 ; trsvcid = 04420 ", connection, true},
		{"exclusion = host-iface=eth0;hostnqn=nqn.host;hostid=36EBF5A9-1df9-47b3-a6d0-e9ba32e428a2", connection, true},
		{"exclusion = traddr=NN-0xAB:pn-0xCD;host-traddr=nn-0x1:pn-0x2", fc, true},

		{"exclusion = transport=tcp;nqn=nqn.a", connection, false},
		{"exclusion = host-traddr=2001:db8::9", connection, false}, // it has none
		{"exclusion = host-traddr=", connection, false},
		{"exclusion = trsvcid=", fc, false},
		{"exclusion = transport=tcp;subsysnqn=nqn.a=b", connection, false}, // no such key
		{"exclusion = Transport=tcp", connection, false},
		{"exclusion = transport=tcp;eth0", connection, false},
		{"exclusion = transport=tcp;=eth0", connection, false},
		{"exclusion =", connection, false},
		{"exclusion = ;;", connection, false},
		{"exclusion", connection, false},
		{"exclude = transport=tcp", connection, false},
		{"# exclusion = transport=tcp", connection, false},
		{"[other]\nexclusion = transport=tcp", connection, false},
	} {
		path := filepath.Join(t.TempDir(), "exclusions.conf")
		write(t, path, "exclusion = nqn=outside\n[exclusions]\n"+tt.text+"\n")
		if got := New(path, slog.New(slog.DiscardHandler)).Excludes(tt.of); (got != "") != tt.want {
			t.Errorf("%q: %q, want %v", tt.text, got, tt.want)
		}
	}
}

// TestChanges looks at the list again and again while its files change.
func TestChanges(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "exclusions.conf")
	l := New(path, slog.New(slog.DiscardHandler))
	const mine, other = "[exclusions]\nexclusion = transport=tcp\n", "[exclusions]\nexclusion = transport=fcc\n"
	for _, step := range []struct {
		name string
		do   func()
		want string // where the entry is
	}{
		{"none", func() {}, ""},
		{"added", func() { write(t, path, mine) }, "exclusions.conf:2"},
		{"changed", func() { write(t, path, "\n"+mine) }, "exclusions.conf:3"},
		{"emptied", func() { write(t, path, "") }, ""},
		{"replaced by one of the same size", func() { write(t, path+"2", other); os.Rename(path+"2", path) }, ""},
		{"in the directory", func() { write(t, path+".d/5.conf", mine) }, "5.conf:2"},
		{"and before it", func() { write(t, path+".d/10.conf", mine) }, "10.conf:2"},
		{"other names do not count", func() { os.Rename(path+".d/10.conf", path+".d/10.conf~") }, "5.conf:2"},
		{"removed", func() { os.RemoveAll(path + ".d") }, ""},
		{"no file", func() { os.Remove(path); os.Mkdir(path, 0o755) }, ""},
	} {
		step.do()
		got := l.Excludes(connection)
		if (got == "") != (step.want == "") || !strings.Contains(got, step.want) {
			t.Errorf("%s: %q, want %q", step.name, got, step.want)
		}
	}
}

func TestUnreadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "exclusions.conf")
	write(t, path, "[exclusions]\nexclusion = transport=tcp\n"+strings.Repeat("#", maxFile))
	var log strings.Builder
	l := New(path, slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		if got := l.Excludes(connection); got != "" {
			t.Errorf("a file that is too large excludes: %s", got)
		}
	}
	if strings.Count(log.String(), "cannot be read") != 1 {
		t.Errorf("logged:\n%s", &log)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("[exclusions]\nexclusion = transport=tcp;nqn=a=b\n# x\n[y]\nexclusion=;")
	f.Fuzz(func(t *testing.T, text string) {
		for _, e := range parse("f", []byte(text)) {
			if e.match(&fabrics.Options{}) {
				t.Errorf("%v fits a connection without anything", e)
			}
		}
	})
}
