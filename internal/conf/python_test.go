package conf

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// peer reads configuration texts, one JSON string in each line of its input,
// in the way that nvme-stas 2.x has Python's configparser do it: no default
// section, options without "=" allowed, "=" the only delimiter, no
// interpolation, sections and options may be repeated, and all values of a
// repeated option are kept. For each text it prints a line: the values by
// section and option, or null if there is an exception.
const peer = `
import configparser, io, json, sys

class Keeping(dict):
    def __setitem__(self, key, value):
        former = self.get(key)
        both = isinstance(former, list) and isinstance(value, list)
        super().__setitem__(key, former + value if both else value)

for line in sys.stdin:
    parser = configparser.ConfigParser(
        default_section=None, allow_no_value=True, delimiters=('=',),
        interpolation=None, strict=False, dict_type=Keeping)
    try:
        data = bytes(json.loads(line))
        parser.read_file(io.TextIOWrapper(io.BytesIO(data), encoding='utf-8'))
        answer = {name: {option: None if value is None else value.split('\n')
                         for option, value in parser._sections[name].items()}
                  for name in parser.sections()}
    except Exception:
        answer = None
    print(json.dumps(answer), flush=True)
`

// python is a process that runs peer, one for all tests.
type python struct {
	mu  sync.Mutex
	in  io.Writer
	out *bufio.Reader
}

var startPython = sync.OnceValues(func() (*python, error) {
	cmd := exec.Command("python3", "-c", peer)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return &python{in: in, out: bufio.NewReader(out)}, cmd.Start()
})

// read returns what Python makes of a text; false if it refuses it.
func (p *python) read(t *testing.T, text string) (map[string]map[string][]string, bool) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	numbers := make([]int, len(text)) // so that it need not be UTF-8
	for i := range len(text) {
		numbers[i] = int(text[i])
	}
	line, err := json.Marshal(numbers)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	answer, err := p.out.ReadBytes('\n')
	if err != nil {
		t.Fatalf("python3 has ended: %v", err)
	}
	var values map[string]map[string][]string
	if err := json.Unmarshal(answer, &values); err != nil {
		t.Fatal(err)
	}
	return values, values != nil
}

func usePython(t testing.TB) *python {
	p, err := startPython()
	if errors.Is(err, exec.ErrNotFound) {
		t.Skip("python3 is not installed")
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sameAsPython checks that Scan reads what Python reads. What Python has an
// exception for may be read all the same, or not. In three things Scan is
// stricter, and says so: an option without "=" has no value, and takes none
// away from others; a broken section header is not an option; and a line with
// a NUL is none.
func sameAsPython(t *testing.T, p *python, text string) {
	t.Helper()
	want, ok := p.read(t, text)
	items, issues, err := Scan("f", strings.NewReader(text))
	if !ok || strings.Contains(text, "\x00") {
		return
	}
	if err != nil {
		if e, broken := errors.AsType[*SyntaxError](err); !broken || !strings.HasPrefix(e.Text, "[") {
			t.Errorf("%q: Python reads %v, not so ours: %v", text, want, err)
		}
		return
	}
	got := make(map[string]map[string][]string)
	bare := make(map[[2]string]bool)
	for _, it := range items {
		options := got[it.Section]
		switch {
		case options == nil:
			got[it.Section] = make(map[string][]string)
		case it.Key == "":
		case it.Bare:
			bare[[2]string{it.Section, it.Key}] = true
			options[it.Key] = append(options[it.Key], "")
		default:
			options[it.Key] = append(options[it.Key], it.Value)
		}
	}
	// Empty values count as little as they do for whoever uses the items.
	clean := func(sections map[string]map[string][]string) {
		for section, options := range sections {
			for option, values := range options {
				values = slices.DeleteFunc(values, func(v string) bool { return v == "" || bare[[2]string{section, option}] })
				options[option] = append([]string{}, values...)
			}
		}
	}
	clean(want)
	clean(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%q: Python and ours (complaints: %v):\n%s", text, issues, diff)
	}
}

var pythonSeeds = []string{
	"[Global]\nkato=5\n  6\n\n  7\n[Global]\nKATO = 8\n",
	"[Global]\nkato = 5\nkato =\n",
	"[a] x] y\nb=c\n[a\n",
	"[a]\nb\nc=\n\n\n  d\n# e\n ; f\n  g\n",
	"[a]\n b=1\n c=2\n  d=3\ne=4\n   [f]\n",
	"[a]\nb=c=d=e\nb = # c\n =x\n",
	"\u00a0[a]\n\u2003\u2003b=1\n\x1c\x1c\x1cc=2\n",
	"[DEFAULT]\na=1\n[b]\n[b ]\nc=%(a)s\n",
	"[a]\r\nb=1\r\n  2\rc=3\r",
	"x=1\n[a]\n", "\uFEFF[a]\nb=1\n", "[]\n", "[a]\n[]]\nb=1\n[[]\n",
	"[Controllers]\nexclude=transport=tcp\n\nexclude=traddr=::1\ncontroller = a=b;c=d\n  e=f\n",
}

// TestPython compares on texts that are put together from what matters.
func TestPython(t *testing.T) {
	p := usePython(t)
	for _, text := range pythonSeeds {
		sameAsPython(t, p, text)
	}
	pieces := []string{
		"[Global]", "[Controllers]", "[", "]", "kato", "KATO", "controller", "=", " = ", "5", "x=y;z", "\n", "\n", "\n", "\r\n", "\r",
		" ", "  ", "\t", "#", ";", "\u00a0", "\u2028", "\x1d", "\v", "\x85", "é", "\"", "%(kato)s", ":", "\\",
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		text := "[Global]\n"
		for range random.IntN(40) {
			text += pieces[random.IntN(len(pieces))]
		}
		sameAsPython(t, p, text)
	}
}

func FuzzPython(f *testing.F) {
	for _, text := range pythonSeeds {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		// Of these two characters Python makes another small letter.
		if strings.ContainsAny(text, "İΣ") {
			return
		}
		sameAsPython(t, usePython(t), text)
	})
}
