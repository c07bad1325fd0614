// Package man has the manual pages, and a test that they keep up with the
// programs.
package man

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/nvme-stas/stas/internal/cli"
	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/internal/lab"
	"github.com/nvme-stas/stas/internal/logpage"
	"github.com/nvme-stas/stas/internal/startup"
	"github.com/nvme-stas/stas/internal/stasadm"
	"github.com/nvme-stas/stas/internal/stasbus"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/target"
)

// programs are the ones below cmd, and their pages.
var programs = map[string]struct {
	page string
	run  func(args []string, stdout, stderr io.Writer) int
}{
	"stafd":   {"stafd.8", startup.Stafd},
	"stacd":   {"stacd.8", startup.Stacd},
	"stafctl": {"stafctl.1", cli.Stafctl},
	"stacctl": {"stacctl.1", cli.Stacctl},
	"stasadm": {"stasadm.1", stasadm.Run},

	"stas-lab": {"stas-lab.1", lab.Run},
}

var (
	longOption  = regexp.MustCompile(`(?m)^ +(?:-\w, |    )(--[a-z-]+)`)
	shortOption = regexp.MustCompile(`(?m)^ +(-\w), --`)
	command     = regexp.MustCompile(`(?m)^  ([a-z-]+) +[A-Z]`)
)

func TestPrograms(t *testing.T) {
	dirs, err := os.ReadDir("../../cmd")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		p, ok := programs[d.Name()]
		if !ok {
			t.Errorf("no page for the program %s", d.Name())
			continue
		}
		t.Run(d.Name(), func(t *testing.T) { checkHelp(t, p.page, p.run) })
	}
}

// checkHelp looks for the options and commands that the help of a program, and
// of each of its commands, names.
func checkHelp(t *testing.T, page string, run func([]string, io.Writer, io.Writer) int) {
	text := plain(t, page)
	var check func(args ...string) (help string)
	check = func(args ...string) string {
		var out bytes.Buffer
		if code := run(append(slices.Clone(args), "--help"), &out, &out); code != 0 {
			t.Fatalf("%v --help: exit code %d\n%s", args, code, &out)
		}
		help := out.String()
		for _, option := range append(matches(longOption, help), matches(shortOption, help)...) {
			mustHave(t, page, text, option)
		}
		_, list, ok := strings.Cut(help, "Available Commands:\n")
		if !ok {
			return help
		}
		list, _, _ = strings.Cut(list, "\n\n")
		commands := matches(command, list)
		if len(commands) != strings.Count(list, "\n")+1 {
			t.Errorf("not all commands found in\n%s", list)
		}
		for _, c := range commands {
			mustHave(t, page, text, strings.Join(append(slices.Clone(args[min(1, len(args)):]), c), " "))
			if c != "help" {
				check(append(slices.Clone(args), c)...)
			}
		}
		return help
	}
	if len(matches(longOption, check())) == 0 {
		t.Error("no options found in the help")
	}
}

func TestConfiguration(t *testing.T) {
	for _, d := range []conf.Daemon{conf.Stafd, conf.Stacd} {
		page := string(d) + ".conf.5"
		text := plain(t, page)
		for _, o := range conf.Options(d) {
			// An option is described below its name and before the next one.
			heading := "\n.TP\n" + o.Name + "="
			mustHave(t, page, text, "["+o.Section+"]")
			_, about, ok := strings.Cut(text, heading)
			if !ok {
				t.Errorf("%s does not describe %s", page, o.Name)
				continue
			}
			about, _, _ = regexpCut(about, nextOption)
			if o.Default != "" {
				mustHave(t, page+" "+o.Name, about, "Default: "+o.Default)
			}
		}
		for _, f := range append(conf.ControllerFields(d), conf.RuleFields()...) {
			mustHave(t, page, text, f)
		}
	}
	text := plain(t, "sys.conf.5")
	for _, key := range []string{hostid.KeyNQN, hostid.KeyID, hostid.KeyKey, hostid.KeySymName} {
		if !strings.Contains(text, "\n.TP\n"+key+"=") {
			t.Errorf("sys.conf.5 does not describe %s", key)
		}
	}
	mustHave(t, "sys.conf.5", text, "["+hostid.Section+"]")
	for _, path := range []string{hostid.DefaultPaths.NQN, hostid.DefaultPaths.ID, hostid.DefaultPaths.Key} {
		mustHave(t, "sys.conf.5", text, "Default: "+hostid.FilePrefix+path)
	}
}

// TestLab looks for the keys of lab.yaml, each in the section of what it is a
// key of, and for the faults, each in the section of when it strikes.
func TestLab(t *testing.T) {
	const keys, faults = "stas-lab.yaml.5", "stas-lab.1"
	text := plain(t, keys)
	for _, place := range lab.Keys() {
		parent, key := "top level", place
		if i := strings.LastIndex(place, "."); i >= 0 {
			parent, key = place[:i], place[i+1:]
		}
		if !strings.Contains(section(text, parent), "\n.TP\n"+key+":") {
			t.Errorf("%s does not describe %s below %q", keys, key, parent)
		}
	}
	for _, name := range append(nvme.StatusNames(), nvme.CommandNames()...) {
		mustHave(t, keys, text, name)
	}
	text = plain(t, faults)
	for what, v := range map[string]any{
		"listeners": lab.ListenerInfo{}, "subsystems": target.SubsystemInfo{}, "hosts": target.HostInfo{}, "connections": target.ConnectionInfo{},
	} {
		_, about, _ := strings.Cut(section(text, "JSON"), "\n.TP\n"+what+"\n")
		about, _, _ = strings.Cut(about, "\n.TP\n")
		for _, key := range jsonKeys(reflect.TypeOf(v)) {
			mustHave(t, faults+": "+what, about, key)
		}
	}
	for _, k := range target.Kinds() {
		_, about, ok := strings.Cut(section(text, k.At), "\n.TP\n"+k.Name+"\n")
		if !ok {
			t.Errorf("%s does not describe the fault %s below %q", faults, k.Name, k.At)
			continue
		}
		about, _, _ = strings.Cut(about, "\n.TP\n")
		if told := strings.Contains(about, "\nTakes "+k.Takes+"."); told != (k.Takes != "") {
			t.Errorf("%s: %s takes %q", faults, k.Name, k.Takes)
		}
	}
}

// jsonKeys lists the keys of a structure, and of those in it.
func jsonKeys(t reflect.Type) (keys []string) {
	switch {
	case t.Kind() == reflect.Slice, t.Kind() == reflect.Pointer:
		return jsonKeys(t.Elem())
	case t.Kind() != reflect.Struct || t.PkgPath() == "time":
		return nil
	}
	for f := range t.Fields() {
		if key, _, _ := strings.Cut(f.Tag.Get("json"), ","); key != "" {
			keys = append(keys, key)
		}
		keys = append(keys, jsonKeys(f.Type)...)
	}
	return keys
}

// section is what stands below a heading that is a name, or a list of names
// among which it is.
func section(text, name string) string {
	for _, s := range regexp.MustCompile(`(?m)^\.S[HS] `).Split(text, -1) {
		heading, body, _ := strings.Cut(s, "\n")
		if slices.Contains(strings.Split(strings.Trim(heading, `"`), ", "), name) {
			return "\n" + body
		}
	}
	return ""
}

var nextOption = regexp.MustCompile(`\n\.TP\n[a-z-]+=|\n\.SH |\n\.SS `)

func regexpCut(s string, at *regexp.Regexp) (before, after string, found bool) {
	loc := at.FindStringIndex(s)
	if loc == nil {
		return s, "", false
	}
	return s[:loc[0]], s[loc[1]:], true
}

// TestBus looks for what the interfaces' descriptions name.
func TestBus(t *testing.T) {
	type named struct {
		Name string `xml:"name,attr"`
		Type string `xml:"type,attr"`
		Args []struct {
			Type      string `xml:"type,attr"`
			Direction string `xml:"direction,attr"`
		} `xml:"arg"`
	}
	for _, name := range []string{"org.nvmexpress.staf", "org.nvmexpress.stac"} {
		data, err := os.ReadFile("../../internal/stasbus/" + name + ".xml")
		if err != nil {
			t.Fatal(err)
		}
		var node struct {
			Interfaces []struct {
				Name       string  `xml:"name,attr"`
				Methods    []named `xml:"method"`
				Signals    []named `xml:"signal"`
				Properties []named `xml:"property"`
			} `xml:"interface"`
		}
		if err := xml.Unmarshal(data, &node); err != nil {
			t.Fatal(err)
		}
		page := name + ".5"
		text := plain(t, page)
		for _, i := range node.Interfaces {
			mustHave(t, page, text, i.Name)
			if !strings.HasPrefix(i.Name, name) {
				continue
			}
			for _, m := range slices.Concat(i.Methods, i.Signals, i.Properties) {
				line := regexp.MustCompile(`\n\.TP\n` + m.Name + `\b.*`).FindString(text)
				if line == "" {
					t.Errorf("%s does not describe %s", page, m.Name)
					continue
				}
				signature := map[string]string{"in": "", "out": ""}
				for _, a := range m.Args {
					signature[a.Direction] += a.Type
				}
				for _, want := range append([]string{m.Type}, signature["in"], signature["out"], signature[""]) {
					if want != "" && !regexp.MustCompile(`\b`+regexp.QuoteMeta(want)+`(\W|$)`).MatchString(line) {
						t.Errorf("%s: %s has no %q in %q", page, m.Name, want, line)
					}
				}
			}
		}
	}
}

// TestReports looks for the fields of what the daemons report as JSON.
func TestReports(t *testing.T) {
	shown := map[string]bool{}
	for page, fields := range map[string][]string{
		"org.nvmexpress.staf.5": slices.Concat(jsonKeys(reflect.TypeFor[stasbus.Report]()), jsonKeys(reflect.TypeFor[stasbus.LogPage]()), jsonKeys(reflect.TypeFor[stasbus.Browse]()), jsonKeys(reflect.TypeFor[stasbus.Plan]())),
		"org.nvmexpress.stac.5": slices.Concat(jsonKeys(reflect.TypeFor[stasbus.Report]()), jsonKeys(reflect.TypeFor[stasbus.Plan]())),
	} {
		_, text, _ := strings.Cut(plain(t, page), "\n.SH REPORTS\n")
		for _, f := range fields {
			if regexp.MustCompile(`(^|[^\w-])` + f + `($|[^\w-])`).MatchString(text) {
				shown[f] = true
			}
		}
		for _, f := range fields {
			// Some are of one daemon only.
			if only := map[string]string{
				"stafd": "stac", "sources": "stac", "answers": "stac", "namespaces": "stac", "name": "stac", "size": "stac", "ana": "stac",
				"by": "stac", "ncc": "stac", "until": "", "log-page": "staf", "generation": "staf", "failure": "staf", "entries": "",
				"registration": "staf", "port-local": "staf", "polled": "staf", "missed-aens": "staf",
				"holds": "stac", "held-by": "stac", "booted": "stac", "withheld": "stac", "in-use": "stac", "given-up": "stac", "kept": "stac",
			}[f]; only != "" && !strings.Contains(page, only) {
				continue
			}
			if _, entry := entryFields[f]; !entry {
				mustHave(t, page+", REPORTS", text, f)
			}
		}
	}
	for _, f := range jsonKeys(reflect.TypeFor[stasbus.Report]()) {
		if !shown[f] {
			t.Errorf("no page describes %s", f)
		}
	}
}

// entryFields are those of log page entries, which are described elsewhere.
var entryFields = func() map[string]bool {
	all := make(map[string]bool)
	for _, f := range jsonKeys(reflect.TypeFor[logpage.Entry]()) {
		all[f] = true
	}
	return all
}()

// foreign are the pages of others that ours refer to.
var foreign = []string{"busctl(1)", "journalctl(1)", "keyctl(1)", "machine-id(5)", "nvme(1)", "sd_notify(3)", "systemctl(1)", "systemd(1)"}

var reference = regexp.MustCompile(`([a-z][\w.-]*)(\([1-8]\))`)

func TestReferences(t *testing.T) {
	for _, page := range pages(t) {
		text := plain(t, page)
		_, also, _ := strings.Cut(text, "\n.SH SEE ALSO\n")
		if len(reference.FindAllString(also, -1)) == 0 {
			t.Errorf("%s: nothing in SEE ALSO", page)
		}
		for _, m := range reference.FindAllStringSubmatch(text, -1) {
			if slices.Contains(foreign, m[1]+m[2]) {
				continue
			}
			other := m[1] + "." + strings.Trim(m[2], "()")
			if _, err := os.Stat(other); err != nil {
				t.Errorf("%s refers to %s%s, which is none of ours", page, m[1], m[2])
			}
			if other == page && strings.Contains(also, m[0]) {
				t.Errorf("%s refers to itself", page)
			}
		}
	}
}

func TestForm(t *testing.T) {
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("mandoc is not installed")
	}
	for _, page := range pages(t) {
		if out, err := exec.CommandContext(t.Context(), mandoc, "-T", "lint", "-W", "warning", page).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		out, err := exec.CommandContext(t.Context(), mandoc, "-T", "utf8", "-O", "width=80", page).Output()
		if err != nil {
			t.Error(err)
		}
		for line := range strings.SplitSeq(overstruck.ReplaceAllString(string(out), ""), "\n") {
			if utf8.RuneCountInString(line) > 80 {
				t.Errorf("%s does not fit into 80 columns: %q", page, line)
			}
		}
	}
}

// overstruck is what makes a character bold or underlined on a printer.
var overstruck = regexp.MustCompile(`.\x08`)

func pages(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob("*.[1-8]")
	if err != nil || len(list) == 0 {
		t.Fatal("no pages: ", err)
	}
	return list
}

// plain is a page without what only makes it look good. The requests that
// structure it stay, in lines of their own.
func plain(t *testing.T, page string) string {
	t.Helper()
	data, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := regexp.MustCompile(`\\f[BIPR]|\\&`).ReplaceAllString(string(data), "")
	text = strings.NewReplacer(`\-`, "-", `\e`, `\`, `\(aq`, "'", `\(dq`, `"`).Replace(text)
	return fontRequest.ReplaceAllStringFunc(text, func(line string) string {
		name, words, _ := strings.Cut(line, " ")
		if name == ".B" || name == ".I" {
			return strings.Trim(words, `"`)
		}
		return alternating(words)
	})
}

var fontRequest = regexp.MustCompile(`(?m)^\.(B|I|BR|BI|IR|IB|RB|RI) .*$`)

// alternating joins the words of a line whose fonts alternate; in quotes they
// may contain blanks.
func alternating(words string) string {
	var b strings.Builder
	quoted := false
	for _, r := range words {
		switch {
		case r == '"':
			quoted = !quoted
		case r != ' ' || quoted:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func matches(re *regexp.Regexp, text string) []string {
	var all []string
	for _, m := range re.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	return all
}

// mustHave checks that a text has a word or phrase, not only as a part of a
// longer word.
func mustHave(t *testing.T, page, text, phrase string) {
	t.Helper()
	for at := 0; ; {
		i := strings.Index(text[at:], phrase)
		if i < 0 {
			t.Errorf("%s lacks %q", page, phrase)
			return
		}
		at += i + len(phrase)
		before, _ := utf8.DecodeLastRuneInString(text[:at-len(phrase)])
		after, _ := utf8.DecodeRuneInString(text[at:])
		if !inWord(before) && !inWord(after) {
			return
		}
	}
}

func inWord(r rune) bool {
	return r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}
