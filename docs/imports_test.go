// Package docs holds what is written about the product; its tests keep that true.
package docs

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/nvme-stas/stas/"

type goPackage struct {
	ImportPath string
	Doc        string
	Imports    []string
	GoFiles    []string
}

// room is a line of the table in docs/architecture.md.
type room struct {
	core, tests bool
	may         []string
}

var (
	roomLine = regexp.MustCompile("^\\| `([^`]+)`( \\(core\\)| \\(tests\\))? \\|[^|]+\\|([^|]*)\\|$")
	quoted   = regexp.MustCompile("`([^`]+)`")
)

func rooms(t *testing.T) map[string]room {
	text, err := os.ReadFile("architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]room)
	for line := range strings.Lines(string(text)) {
		m := roomLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		r := room{core: m[2] == " (core)", tests: m[2] == " (tests)"}
		for _, q := range quoted.FindAllStringSubmatch(m[3], -1) {
			r.may = append(r.may, q[1])
		}
		all[m[1]] = r
	}
	return all
}

func packages(t *testing.T) map[string]goPackage {
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc,Imports,GoFiles", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := make(map[string]goPackage)
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimPrefix(p.ImportPath, module)] = p
	}
}

// TestImports holds the rules of docs/architecture.md: every room imports of
// the others what its line allows, no more and no less, and core rooms stay
// away from the operating system and from libraries.
func TestImports(t *testing.T) {
	rooms, packages := rooms(t), packages(t)
	if len(rooms) < 15 {
		t.Fatalf("only %d rooms found in docs/architecture.md", len(rooms))
	}
	for name := range rooms {
		if _, ok := packages[name]; !ok {
			t.Errorf("docs/architecture.md has a room %s, which does not exist", name)
		}
	}
	for name, p := range packages {
		if !strings.HasPrefix(name, "internal/") && !strings.HasPrefix(name, "pkg/") {
			continue
		}
		r, ok := rooms[name]
		if !ok {
			t.Errorf("docs/architecture.md has no line for %s", name)
			continue
		}
		var used []string
		for _, path := range p.Imports {
			other, ours := strings.CutPrefix(path, module)
			switch {
			case ours:
				used = append(used, other)
				if !slices.Contains(r.may, other) {
					t.Errorf("%s must not import %s", name, other)
				}
				if rooms[other].tests {
					t.Errorf("%s imports %s, which is for tests", name, other)
				}
			case r.core && (slices.Contains([]string{"os", "net", "syscall"}, path) || strings.Contains(path, ".")):
				t.Errorf("%s is core and must not import %s", name, path)
			}
		}
		for _, may := range r.may {
			if !slices.Contains(used, may) {
				t.Errorf("docs/architecture.md lets %s import %s, which it does not", name, may)
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	for name, p := range packages(t) {
		if p.Doc == "" && len(p.GoFiles) > 0 {
			t.Errorf("%s has no package comment", name)
		}
	}
}
