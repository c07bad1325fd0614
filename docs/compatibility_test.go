package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// defects is how many numbered defects of nvme-stas the document goes through,
// releases are those of nvme-stas.
const defects = 69

var releases = strings.Fields("0.1 1.0 1.0.1 1.1 1.1.1 1.1.2 1.1.3 1.1.4 1.1.5 1.1.6 2.0 " +
	"2.1 2.1.1 2.1.2 2.1.3 2.2 2.2.1 2.2.2 2.2.3 2.3 2.3.1 2.4 2.4.1 3.0")

// testName is package.Test, with or without /case.
var testName = regexp.MustCompile("`([a-z]+)\\.((?:Test|Fuzz|Benchmark)\\w+)(?:/([^`]+))?`")

// TestCompatibility: compatibility.md leaves nothing out, and each test that it
// names exists.
func TestCompatibility(t *testing.T) {
	text, err := os.ReadFile("compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := sources(t)

	rows := make(map[string][]string) // section: first cells of its rows
	var section string
	for i, line := range strings.Split(string(text), "\n") {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			section = title
			continue
		}
		for _, m := range testName.FindAllStringSubmatch(line, -1) {
			switch pkg := tests[m[1]]; {
			case pkg == nil:
				t.Errorf("line %d: there is no package %s", i+1, m[1])
			case !pkg.funcs[m[2]]:
				t.Errorf("line %d: there is no %s in %s", i+1, m[2], m[1])
			case m[3] != "" && !pkg.has(m[2], m[3]):
				t.Errorf("line %d: there is no case %q in %s", i+1, m[3], m[1])
			}
		}
		row, ok := strings.CutPrefix(line, "|")
		if !ok || strings.HasPrefix(row, "---") {
			continue
		}
		row, ok = strings.CutSuffix(row, "|")
		if !ok {
			t.Errorf("line %d: the row has no end", i+1)
		}
		cells := strings.Split(row, "|")
		for _, cell := range cells {
			if strings.TrimSpace(cell) == "" {
				t.Errorf("line %d: a cell is empty", i+1)
			}
		}
		rows[section] = append(rows[section], strings.TrimSpace(cells[0]))
	}

	want := 1
	for _, first := range rows["Defects of nvme-stas"] {
		n, err := strconv.Atoi(first)
		if err != nil {
			continue // the table's head
		}
		if n != want {
			t.Errorf("defect %d stands where %d is due", n, want)
		}
		want = n + 1
	}
	if want != defects+1 {
		t.Errorf("the last defect is %d, want %d", want-1, defects)
	}
	for _, release := range releases {
		found := false
		for _, first := range rows["Releases of nvme-stas"] {
			for one := range strings.SplitSeq(first, ", ") {
				found = found || one == release
			}
		}
		if !found {
			t.Errorf("release %s has no line", release)
		}
	}
}

// source is what the files of a package hold: its tests, and the texts that
// their cases may be named by, as go test writes them. The texts are those of
// a test, and by "" those that stand outside of tests, as tables do.
type source struct {
	funcs map[string]bool
	texts map[string]map[string]bool
}

// has says whether there is such a case; a name that ends with "…" is the
// beginning of one.
func (s *source) has(test, name string) bool {
	name = strings.ReplaceAll(name, " ", "_")
	prefix, cut := strings.CutSuffix(name, "…")
	if !cut {
		return s.texts[test][name] || s.texts[""][name]
	}
	for _, texts := range []map[string]bool{s.texts[test], s.texts[""]} {
		for text := range texts {
			if strings.HasPrefix(text, prefix) {
				return true
			}
		}
	}
	return false
}

// sources reads the packages that have tests, by their last name. Cases may
// stand in other files than _test.go, as those of test/scenario do.
func sources(t *testing.T) map[string]*source {
	t.Helper()
	all := make(map[string]*source)
	for _, pattern := range []string{"man", "../internal/*", "../internal/*/*", "../pkg/*", "../test/*"} {
		files, err := filepath.Glob(pattern + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			dir := path.Base(filepath.ToSlash(filepath.Dir(name)))
			if all[dir] == nil {
				all[dir] = &source{funcs: make(map[string]bool), texts: make(map[string]map[string]bool)}
			}
			for _, decl := range file.Decls {
				all[dir].add(decl, strings.HasSuffix(name, "_test.go"))
			}
		}
	}
	return all
}

// add takes what a declaration holds.
func (s *source) add(decl ast.Decl, inTest bool) {
	test := ""
	if f, ok := decl.(*ast.FuncDecl); ok && inTest && f.Recv == nil {
		s.funcs[f.Name.Name] = true
		if strings.HasPrefix(f.Name.Name, "Test") {
			test = f.Name.Name
		}
	}
	if s.texts[test] == nil {
		s.texts[test] = make(map[string]bool)
	}
	ast.Inspect(decl, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if text, err := strconv.Unquote(lit.Value); err == nil {
				s.texts[test][strings.ReplaceAll(text, " ", "_")] = true
			}
		}
		return true
	})
}
