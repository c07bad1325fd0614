package hostid

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/pkg/fabrics"
)

const (
	nqn    = "nqn.2014-08.org.nvmexpress:uuid:0f3e8a52-9a0f-4f0c-8c5e-5b5a5f1d7e01"
	id     = "0f3e8a52-9a0f-4f0c-8c5e-5b5a5f1d7e01"
	secret = "DHHC-1:00:c2VjcmV0IG9mIHRoZSBob3N0IGZvciB0ZXN0cw==:"
)

// files makes the files of a host; "@" in a text stands for their directory.
func files(t *testing.T, texts map[string]string) (dir string, paths Paths) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "@", dir)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, Paths{
		SysConf: filepath.Join(dir, "sys.conf"),
		NQN:     filepath.Join(dir, "hostnqn"),
		ID:      filepath.Join(dir, "hostid"),
		Key:     filepath.Join(dir, "hostkey"),
	}
}

func TestLoad(t *testing.T) {
	tests := []struct {
		name   string
		files  map[string]string
		want   Identity
		issues int
	}{
		{
			name:  "default files",
			files: map[string]string{"hostnqn": nqn + " and more\nsecond line\n", "hostid": strings.ToUpper(id) + "\n", "hostkey": secret + "\n"},
			want:  Identity{NQN: nqn, ID: id, Key: fabrics.NewSecret(secret)},
		},
		{
			name:  "literal",
			files: map[string]string{"sys.conf": "[Host]\nNQN = " + nqn + "\nid=" + id + "\nkey=" + secret + "\nsymname = db server 1\n", "hostnqn": "junk"},
			want:  Identity{NQN: nqn, ID: id, Key: fabrics.NewSecret(secret), SymName: "db server 1"},
		},
		{
			name:  "named files",
			files: map[string]string{"sys.conf": "[Host]\nnqn=file://@/a\nid=file://@/b\nkey=file://@/c\nsymname=file://@/d", "a": nqn, "b": id, "c": secret, "d": "db server 1"},
			want:  Identity{NQN: nqn, ID: id, Key: fabrics.NewSecret(secret), SymName: "db server 1"},
		},
		{
			name:  "no value is not there",
			files: map[string]string{"sys.conf": "[Host]\nnqn =\nid =\nkey =\nsymname =\n", "hostnqn": nqn, "hostid": id},
			want:  Identity{NQN: nqn, ID: id},
		},
		{
			name:   "things to complain of",
			files:  map[string]string{"sys.conf": "[Hosts]\nnqn=x\n[Host]\nfoo=1\nkey=file://@/none\nsymname=file://@/none\n", "hostnqn": nqn, "hostid": id},
			want:   Identity{NQN: nqn, ID: id},
			issues: 4,
		},
		{
			name:   "no key",
			files:  map[string]string{"hostnqn": nqn, "hostid": id, "hostkey": "geheim"},
			want:   Identity{NQN: nqn, ID: id},
			issues: 1,
		},
		{
			name:  "repeated, and empty behind",
			files: map[string]string{"sys.conf": "[Host]\nnqn=nqn.x\nnqn=" + nqn + "\nnqn=\n[Host]\nid=" + id},
			want:  Identity{NQN: nqn, ID: id},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, paths := files(t, tt.files)
			got, issues, err := Load(paths)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(Identity{}), cmpopts.EquateComparable(fabrics.Secret{})); diff != "" {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if len(issues) != tt.issues {
				t.Errorf("complaints: %v", issues)
			}
			if all := fmt.Sprintf("%v %+v %#v", got, issues, got); strings.Contains(all, secret) {
				t.Errorf("the key is shown: %s", all)
			}
		})
	}
}

func TestLoadErrors(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		want  string // whole error; "@" stands for the directory
	}{
		{
			"no NQN",
			map[string]string{"hostid": id},
			"no host NQN: @/hostnqn does not exist; create it with: stasadm hostnqn -f @/hostnqn",
		},
		{
			"no ID",
			map[string]string{"hostnqn": nqn},
			"no host ID: @/hostid does not exist; create it with: stasadm hostid -f @/hostid",
		},
		{
			"empty",
			map[string]string{"hostnqn": "\n" + nqn, "hostid": id},
			"no host NQN: @/hostnqn is empty; fill it with: stasadm hostnqn -f @/hostnqn",
		},
		{
			"named file missing",
			map[string]string{"sys.conf": "# who\n[Host]\nnqn=file://@/mine", "hostnqn": nqn, "hostid": id},
			"no host NQN: @/mine (named in @/sys.conf:3) does not exist; create it with: stasadm hostnqn -f @/mine",
		},
		{
			"bad NQN",
			map[string]string{"hostnqn": "me", "hostid": id},
			`@/hostnqn: the NQN "me" does not begin with "nqn."`,
		},
		{
			"long NQN",
			map[string]string{"sys.conf": "[Host]\nnqn=nqn." + strings.Repeat("x", 220), "hostid": id},
			"@/sys.conf:2: the NQN has 224 bytes, 223 are allowed",
		},
		{
			"bad ID",
			map[string]string{"hostnqn": nqn, "hostid": strings.ReplaceAll(id, "-", "")},
			`@/hostid: "0f3e8a529a0f4f0c8c5e5b5a5f1d7e01" is not a UUID (xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)`,
		},
		{
			"broken sys.conf",
			map[string]string{"sys.conf": "nqn=" + nqn, "hostnqn": nqn, "hostid": id},
			`@/sys.conf:1: "nqn=` + nqn + `": this stands before the first [Section]; nothing of the file is used, correct this line`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, paths := files(t, tt.files)
			_, _, err := Load(paths)
			if err == nil {
				t.Fatal("no error")
			}
			if got := strings.ReplaceAll(err.Error(), dir, "@"); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// TestOthers says what becomes of identities that are found elsewhere.
func TestOthers(t *testing.T) {
	const (
		otherID  = "a0000000-0000-4000-8000-000000000001"
		otherNQN = "nqn.2014-08.org.nvmexpress:uuid:" + otherID
		bootID   = "b0000000-0000-4000-8000-000000000002"
		// printf NQN | sha256sum, version and variant put in
		derived = "974d7491-70e7-432e-b890-49bf724fa3df"
	)
	boot := Pair{NQN: otherNQN, ID: strings.ToUpper(otherID), From: "the boot table"}
	live := func(nqn, id string) Pair { return Pair{NQN: nqn, ID: id, From: "nvme0", InUse: true} }
	tests := []struct {
		name    string
		files   map[string]string
		others  []Pair
		nqn, id string // "" for none
		issue   string // part of it, with "@" for the directory
		other   string // ID that goes with otherNQN
	}{
		{name: "files come first", files: map[string]string{"hostnqn": nqn, "hostid": id}, others: []Pair{boot}, nqn: nqn, id: id, other: otherID},
		{name: "the same in use", files: map[string]string{"hostnqn": nqn, "hostid": id}, others: []Pair{live(nqn, strings.ToUpper(id))}, nqn: nqn, id: id, other: otherID},
		{
			name: "no NQN", files: map[string]string{"hostid": id}, others: []Pair{boot, live(nqn, id)}, nqn: otherNQN, id: otherID,
			issue: "@/hostnqn: no host NQN: @/hostnqn does not exist; create it with: stasadm hostnqn -f @/hostnqn; using " + otherNQN + ", the one of the boot table",
		},
		{
			name: "nothing", others: []Pair{live(otherNQN, otherID)}, nqn: otherNQN, id: otherID,
			issue: "the one of nvme0", other: otherID,
		},
		{
			name: "no ID", files: map[string]string{"hostnqn": nqn, "hostid": ""}, others: []Pair{boot, live(nqn, otherID)}, nqn: nqn, id: otherID,
			issue: "@/hostid is empty; fill it with: stasadm hostid -f @/hostid; using " + otherID + ", the one that goes with the host NQN in nvme0",
		},
		{name: "no ID, and none that goes with it", files: map[string]string{"hostnqn": nqn}, others: []Pair{boot, live(otherNQN, id)}},
		{name: "sys.conf names a file that is missing", files: map[string]string{"sys.conf": "[Host]\nnqn=file://@/none", "hostid": id}, others: []Pair{boot}},
		{name: "booted under another NQN, with an ID of its own", files: map[string]string{"hostnqn": nqn, "hostid": id}, others: []Pair{{NQN: otherNQN, ID: bootID}}, nqn: nqn, id: id, other: bootID},
		{name: "and connected with another one", files: map[string]string{"hostnqn": nqn, "hostid": id}, others: []Pair{{NQN: otherNQN, ID: bootID}, live(otherNQN, otherID)}, nqn: nqn, id: id, other: otherID},
		{name: "booted under another NQN, with the same ID", files: map[string]string{"hostnqn": nqn, "hostid": id}, others: []Pair{{NQN: otherNQN, ID: id}}, nqn: nqn, id: id, other: otherID},
		{name: "booted under another NQN, with an ID in use", files: map[string]string{"hostnqn": nqn, "hostid": id}, others: []Pair{{NQN: otherNQN, ID: bootID}, live("nqn.x", bootID)}, nqn: nqn, id: id, other: otherID},
		{name: "nonsense elsewhere", files: map[string]string{"hostid": id}, others: []Pair{live("me", id), live(nqn, "1")}},
		{
			name: "in use with another ID", files: map[string]string{"hostnqn": nqn, "hostid": id}, others: []Pair{live(nqn, otherID)}, nqn: nqn, id: otherID,
			issue: `"host ID ` + id + `": nvme0 is connected under the host NQN ` + nqn + " with another host ID, and the kernel makes no connection with two; using " + otherID,
		},
		{
			name: "in use with another NQN", files: map[string]string{"sys.conf": "[Host]\nnqn=" + nqn + "\nid=" + id}, others: []Pair{live(otherNQN, id)}, nqn: nqn, id: derived,
			issue: `@/sys.conf:3: "host ID ` + id + `": nvme0 is connected with this host ID under another host NQN, ` + otherNQN, other: id,
		},
		{
			name: "in use with both, on an old kernel", files: map[string]string{"hostnqn": nqn, "hostid": id}, others: []Pair{live(nqn, otherID), live(nqn, id)}, nqn: nqn, id: id,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, paths := files(t, tt.files)
			got, issues, err := Load(paths, tt.others...)
			if (err != nil) != (tt.nqn == "") {
				t.Fatal(err)
			}
			if got.NQN != tt.nqn || got.ID != tt.id {
				t.Errorf("got %s, %s, want %s, %s", got.NQN, got.ID, tt.nqn, tt.id)
			}
			if tt.other != "" && got.IDFor(otherNQN) != tt.other {
				t.Errorf("the other NQN goes with %s, want %s", got.IDFor(otherNQN), tt.other)
			}
			text := ""
			for _, i := range issues {
				text += strings.ReplaceAll(i.String(), dir, "@") + "\n"
			}
			if err == nil && (text == "") != (tt.issue == "") || !strings.Contains(text, tt.issue) {
				t.Errorf("complaints:\n%s, want %s", text, tt.issue)
			}
		})
	}
}

// TestShipped takes the documented sys.conf with every option set.
func TestShipped(t *testing.T) {
	text, err := os.ReadFile("../../configs/sys.conf.doc")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		if opt, ok := strings.CutPrefix(line, "#"); ok && opt != "" && opt[0] != ' ' {
			lines[i] = opt
		}
	}
	items, issues, err := conf.Scan("sys.conf", strings.NewReader(strings.Join(lines, "\n")))
	if err != nil || len(issues) > 0 {
		t.Fatal(err, issues)
	}
	got := make(map[string]string)
	for _, it := range items {
		if it.Key != "" && it.Section == Section {
			got[it.Key] = it.Value
		}
	}
	for key, want := range map[string]string{
		KeyNQN: FilePrefix + DefaultPaths.NQN, KeyID: FilePrefix + DefaultPaths.ID,
		KeyKey: FilePrefix + DefaultPaths.Key, KeySymName: "Database server 1",
	} {
		if got[key] != want {
			t.Errorf("%s = %q, want %q", key, got[key], want)
		}
		delete(got, key)
	}
	if len(got) > 0 {
		t.Errorf("unknown options: %v", got)
	}
}

func TestNewNQN(t *testing.T) {
	const (
		machine = "0123456789abcdef0123456789abcdef"
		// python3: d = hmac.new(b"$nvmexpress.org$", uuid.UUID(machine).bytes,
		// hashlib.sha256).digest()[:16]; uuid.UUID(bytes=d, version=4)
		ofMachine = "f2782346-4809-484a-9a8b-952a04b57ba4"
		product   = "01234567-89AB-cdef-8123-456789abcdef"
		// python3: uuid.UUID(bytes=uuid.UUID(product).bytes_le)
		ofProduct = "67452301-ab89-efcd-8123-456789abcdef"
	)
	tests := []struct {
		name  string
		files map[string]string
		want  string // "" for a random one
	}{
		{"machine ID", map[string]string{"machine-id": machine + "\n", "product": product}, ofMachine},
		{"another", map[string]string{"machine-id": "d2c7b0a3c9a14c8a9f3c5e7a1b2c3d4e"}, "e73e20e6-c556-4da3-9af0-16beab09ab18"},
		{"longer than needed", map[string]string{"machine-id": machine + "ff"}, ofMachine},
		{"not initialised", map[string]string{"machine-id": "uninitialized\n", "product": product + "\n"}, ofProduct},
		{"not hexadecimal", map[string]string{"machine-id": strings.Repeat("x", 32), "product": product}, ofProduct},
		{"product too short", map[string]string{"product": "0123", "partition": product + "\x00"}, strings.ToLower(product)},
		{"partition", map[string]string{"partition": product}, strings.ToLower(product)},
		{"nothing", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, _ := files(t, tt.files)
			got, random, err := NewNQN(Sources{
				MachineID:     filepath.Join(dir, "machine-id"),
				ProductUUID:   filepath.Join(dir, "product"),
				PartitionUUID: filepath.Join(dir, "partition"),
			})
			if err != nil {
				t.Fatal(err)
			}
			uuid, ok := strings.CutPrefix(got, "nqn.2014-08.org.nvmexpress:uuid:")
			if !ok || tt.want != "" && uuid != tt.want || random != (tt.want == "") {
				t.Errorf("got %s (random: %v), want %s", got, random, tt.want)
			}
			if _, err := CheckUUID(uuid); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestNewID(t *testing.T) {
	a, b := NewID(), NewID()
	if a == b {
		t.Errorf("twice the same: %s", a)
	}
	for _, id := range []string{a, b} {
		if _, err := CheckUUID(id); err != nil || id[14] != '4' || !strings.ContainsAny(id[19:20], "89ab") {
			t.Errorf("%s is not a UUID of version 4", id)
		}
	}
}

func TestIDFor(t *testing.T) {
	const (
		own   = "36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2"
		other = "11111111-2222-4333-8444-555555555555"
		free  = "a0000000-0000-4000-8000-000000000001"
	)
	i := Identity{NQN: "nqn.2014-08.org.nvmexpress:uuid:" + other, ID: own}
	for _, tt := range []struct{ nqn, want string }{
		{i.NQN, own}, // whatever the NQN says
		{"nqn.2014-08.org.nvmexpress:uuid:" + strings.ToUpper(free), free},
		// Its UUID is taken; printf NQN | sha256sum, version and variant put in
		{"nqn.2014-08.org.nvmexpress:uuid:" + own, "fbfcb113-015c-4526-8678-dd0754e4ddea"},
		// printf nqn.2026-11.org.example:a | sha256sum, version and variant put in
		{"nqn.2026-11.org.example:a", "24e6d036-581b-4f9a-a294-2a97fc356517"},
	} {
		if got := i.IDFor(tt.nqn); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.nqn, got, tt.want)
		}
	}
}
