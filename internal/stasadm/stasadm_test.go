package stasadm

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/version"
)

const (
	machineID = "0123456789abcdef0123456789abcdef"
	nqn       = "nqn.2014-08.org.nvmexpress:uuid:f2782346-4809-484a-9a8b-952a04b57ba4" // see hostid
	otherNQN  = "nqn.2014-08.org.nvmexpress:uuid:0f3e8a52-9a0f-4f0c-8c5e-5b5a5f1d7e01"
	otherID   = "0f3e8a52-9a0f-4f0c-8c5e-5b5a5f1d7e01"
)

// TestRun runs a command on a directory of files. "@" stands for it.
func TestRun(t *testing.T) {
	tests := []struct {
		name   string
		files  map[string]string
		args   string // split at blanks, "_" stands for one
		code   int
		out    string            // part of what is printed
		after  map[string]string // files that changed; "ID" stands for a UUID
		random bool
	}{
		{name: "version", args: "--version", out: version.Product + " " + version.Version + "\n"},
		{name: "version, short", args: "-v", out: version.Version},
		{name: "help", args: "--help", out: "set-symname"},
		{name: "help of a command", args: "hostnqn -h", out: "machine-id"},
		{name: "no command", args: "-c @/sys.conf", code: exitFailed, out: "Usage:"},
		{name: "unknown command", args: "hostnnq", code: exitUsage, out: "hostnqn"},
		{name: "unknown option", args: "-c @/sys.conf hostnqn --files @/x", code: exitUsage, out: "--files"},
		{
			name: "options cut short", args: "--conf @/sys.conf hostnqn --fi=@/x",
			after: map[string]string{"sys.conf": "[Host]\nnqn = file://@/x\n", "x": nqn + "\n"},
		},
		{name: "argument too many", args: "-c @/sys.conf hostid x", code: exitUsage, out: "stasadm --help"},
		{name: "argument missing", args: "-c @/sys.conf set-symname", code: exitUsage, out: "arg"},

		{
			name: "hostnqn", args: "hostnqn -c @/sys.conf",
			after: map[string]string{"sys.conf": "[Host]\nnqn = " + nqn + "\n"},
		},
		{
			name: "hostnqn to a file", args: "hostnqn -c @/sys.conf -f @/etc/hostnqn",
			after: map[string]string{"etc/hostnqn": nqn + "\n", "sys.conf": "[Host]\nnqn = file://@/etc/hostnqn\n"},
		},
		{
			name: "hostnqn to a file only", args: "hostnqn --conf-file= --file=@/hostnqn",
			after: map[string]string{"hostnqn": nqn + "\n"},
		},
		{
			name: "hostnqn again", args: "hostnqn -c @/sys.conf -f @/hostnqn",
			files: map[string]string{"hostnqn": nqn + "\n", "sys.conf": "[Host]\nnqn = file://@/hostnqn\n"},
		},
		{
			name: "hostnqn into an empty file", args: "hostnqn -c @/sys.conf -f @/hostnqn",
			files: map[string]string{"hostnqn": "\n"},
			after: map[string]string{"hostnqn": nqn + "\n", "sys.conf": "[Host]\nnqn = file://@/hostnqn\n"},
		},
		{
			name: "hostnqn over another", args: "hostnqn -c @/sys.conf -f @/hostnqn",
			files: map[string]string{"hostnqn": otherNQN + "\n"},
			code:  exitFailed, out: "@/hostnqn has a host NQN already: " + otherNQN + "; storage knows the host by it, so it is kept (--force replaces it)",
		},
		{
			name: "hostnqn over another in sys.conf", args: "hostnqn -c @/sys.conf -f @/hostnqn",
			files: map[string]string{"sys.conf": "[Host]\nnqn=" + otherNQN + "\n"},
			code:  exitFailed, out: "@/sys.conf has a host NQN already",
		},
		{
			name: "hostnqn over another in a file", args: "hostnqn -c @/sys.conf -f @/hostnqn",
			files: map[string]string{"sys.conf": "[Host]\nnqn=file://@/old\n", "old": otherNQN},
			code:  exitFailed, out: "@/old has a host NQN already",
		},
		{
			name: "hostnqn forced", args: "hostnqn -c @/sys.conf -f @/hostnqn --force",
			files: map[string]string{"hostnqn": otherNQN + "\n", "sys.conf": "[Host]\nnqn=" + otherNQN + "\n"},
			after: map[string]string{"hostnqn": nqn + "\n", "sys.conf": "[Host]\nnqn = file://@/hostnqn\n"},
		},
		{
			name: "hostnqn of a machine without ID", args: "hostnqn -c @/sys.conf", random: true,
			out:   "a random one",
			after: map[string]string{"sys.conf": "[Host]\nnqn = nqn.2014-08.org.nvmexpress:uuid:ID\n"},
		},
		{
			name: "hostid", args: "hostid -c @/sys.conf -f @/hostid",
			after: map[string]string{"hostid": "ID\n", "sys.conf": "[Host]\nid = file://@/hostid\n"},
		},
		{
			name: "hostid over another", args: "hostid -c @/sys.conf -f @/hostid",
			files: map[string]string{"hostid": otherID},
			code:  exitFailed, out: "--force",
		},

		{
			name: "set-symname", args: "set-symname -c @/sys.conf Database_server",
			files: map[string]string{"sys.conf": "# who we are\n[Host]\nnqn=x # y\n\n; more\n[Other]\na\n"},
			after: map[string]string{"sys.conf": "# who we are\n[Host]\nnqn=x # y\nsymname = Database server\n\n; more\n[Other]\na\n"},
		},
		{
			name: "set-symname to a file", args: "set-symname -c @/sys.conf -f @/name Database_server",
			after: map[string]string{"sys.conf": "[Host]\nsymname = file://@/name\n", "name": "Database server\n"},
		},
		{
			name: "set-symname again", args: "set-symname -c @/sys.conf b",
			files: map[string]string{"sys.conf": "[Host]\nsymname=a\n# why\nSymName = c\n   d\nid=x"},
			after: map[string]string{"sys.conf": "[Host]\n# why\nsymname = b\nid=x\n"},
		},
		{name: "set-symname, two lines", args: "set-symname -c @/sys.conf a\nb", code: exitUsage, out: "one line"},
		{name: "set-symname, reference", args: "set-symname -c @/sys.conf file://x", code: exitUsage, out: "reference"},
		{
			name: "clear-symname", args: "clear-symname -c @/sys.conf",
			files: map[string]string{"sys.conf": "[Host]\nsymname=file://@/name\n  x\n# end\n", "name": "me"},
			after: map[string]string{"sys.conf": "[Host]\n# end\n"},
		},
		{name: "clear-symname of none", args: "clear-symname -c @/sys.conf"},
		{
			name: "sys.conf broken", args: "hostnqn -c @/sys.conf -f @/hostnqn",
			files: map[string]string{"sys.conf": "nqn=x\n"},
			code:  exitFailed, out: "@/sys.conf:1: ",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			sources := hostid.Sources{MachineID: filepath.Join(t.TempDir(), "machine-id")}
			if !tt.random {
				write(t, sources.MachineID, machineID)
			}
			want := make(map[string]string)
			for name, text := range tt.files {
				want[name] = strings.ReplaceAll(text, "@", dir)
				write(t, filepath.Join(dir, name), want[name])
			}
			for name, text := range tt.after {
				want[name] = strings.ReplaceAll(text, "@", dir)
			}
			var args []string
			for arg := range strings.SplitSeq(tt.args, " ") {
				args = append(args, strings.NewReplacer("@", dir, "_", " ").Replace(arg))
			}
			var out strings.Builder
			if code := run(args, &out, &out, sources, ""); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if s := strings.ReplaceAll(out.String(), dir, "@"); !strings.Contains(s, tt.out) || tt.out == "" && s != "" {
				t.Errorf("printed %q, want %q", s, tt.out)
			}
			got := read(t, dir)
			if !maps.Equal(got, want) {
				for name, text := range got { // random values
					got[name] = uuidToID(text, want[name])
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("files\n got %q\nwant %q", got, want)
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// read returns the texts of all files below dir, leftovers included.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	texts := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		texts[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// uuidToID puts "ID" in the place of the UUID that stands where want has it.
func uuidToID(text, want string) string {
	before, after, ok := strings.Cut(want, "ID")
	if !ok || !strings.HasPrefix(text, before) || !strings.HasSuffix(text, after) {
		return text
	}
	if _, err := hostid.CheckUUID(text[len(before) : len(text)-len(after)]); err != nil {
		return text
	}
	return want
}

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	write(t, file, "old")
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(link, "new"); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v %v", fi, err)
	}
	if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the mode changed: %v %v", fi, err)
	}
	if got := read(t, dir); got["file"] != "new" || len(got) != 2 {
		t.Errorf("files %q", got)
	}
	if err := writeFile(filepath.Join(file, "x"), "new"); err == nil {
		t.Error("wrote below a file")
	}
	if err := writeFile("/dev/null", "new"); err != nil {
		t.Errorf("/dev/null: %v", err)
	}
}

// FuzzEdit edits any sys.conf: what was set is read back, and all else is as
// it was.
func FuzzEdit(f *testing.F) {
	f.Add("# x\n[Host]\n  nqn=a\n    b\n  id=c\n    [Host]\n[Other]\nnqn=x")
	f.Add("[Host]\nsymname\n  x\n\r[Host]\r\n nqn = y")
	f.Add("[Host]\n x")
	f.Add("[Host]\n [Other]")
	f.Add("\uFEFF [Host]\n\t\t nqn=1\n\t  id=2")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSysConf("f", text)
		if err != nil {
			return
		}
		const key, value = "nqn", "nqn.new"
		for _, edited := range []string{s.with(key, value), s.without(key)} {
			after, err := parseSysConf("f", edited)
			if err != nil {
				t.Fatalf("%q\n->\n%q: %v", text, edited, err)
			}
			if got := after.value(key); got != value && got != "" {
				t.Errorf("%q\n->\n%q: value %q", text, edited, got)
			}
			if before, after := others(s, key), others(after, key); !maps.Equal(before, after) {
				t.Errorf("%q\n->\n%q: %q became %q", text, edited, before, after)
			}
		}
		if after, _ := parseSysConf("f", s.with(key, value)); after.value(key) != value {
			t.Errorf("%q: not set", text)
		}
	})
}

// others has the values of all other options.
func others(s *sysConf, key string) map[[2]string]string {
	m := make(map[[2]string]string)
	for _, it := range s.items {
		if it.Key != "" && (it.Section != hostid.Section || it.Key != key) {
			m[[2]string{it.Section, it.Key}] += "\n" + it.Value
		}
	}
	return m
}
