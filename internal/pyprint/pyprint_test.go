package pyprint

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
)

func decode(t testing.TB, text string) any {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestRepr(t *testing.T) {
	for text, want := range map[string]string{
		`null`: "None", `true`: "True", `false`: "False", `[]`: "[]", `{}`: "{}", `""`: "''",
		`"a"`: `'a'`, `"it's"`: `"it's"`, `"'\""`: `'\'"'`, `"a\\b\n\t\r"`: `'a\\b\n\t\r'`,
		`"\u0000\u001b\u007f\u0085\u00a0\u00ad\u202e\ufeff"`: `'\x00\x1b\x7f\x85\xa0\xad\u202e\ufeff'`,
		`"é漢\ud83d\ude00"`:                                   "'é漢😀'", `"\udb40\udc41"`: `'\U000e0041'`,
		`1`: "1", `-0`: "0", `123456789012345678901234567890`: "123456789012345678901234567890",
		`1.0`: "1.0", `-0.0`: "-0.0", `1e5`: "100000.0", `1e15`: "1000000000000000.0", `1e16`: "1e+16", `1e-4`: "0.0001", `1e-5`: "1e-05",
		`0.1`: "0.1", `123456789.125`: "123456789.125", `1e999`: "inf", `-1e999`: "-inf",
		`{"b":1,"a":[1,"x",{"c":null}]}`: `{'a': [1, 'x', {'c': None}], 'b': 1}`,
	} {
		if got := Repr(decode(t, text)); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	if got, want := Repr([]map[string]string{{"a": "b"}}), "[{'a': 'b'}]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := Repr(Dict{{"b", true}, {"a", nil}}), "{'b': True, 'a': None}"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := Repr(map[string]any{"n": 3, "f": 2.5}), "{'f': 2.5, 'n': 3}"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestFormat has the rules of line breaking, one by one.
func TestFormat(t *testing.T) {
	for _, c := range []struct {
		name, value string
		width       int
		want        string
	}{
		{"fits", `[1,2]`, 6, "[1, 2]"},
		{"broken list", `[1,2]`, 5, "[1,\n 2]"},
		{"broken dict", `{"a":1,"b":[10,20]}`, 10, "{'a': 1,\n 'b': [10,\n       20]}"},
		{"bracket counts", `[[1,2]]`, 8, "[[1, 2]]"},
		{"bracket breaks", `[[1,2]]`, 7, "[[1,\n  2]]"},
		{"comma counts", `[[1,2],3]`, 7, "[[1,\n  2],\n 3]"},
		{"words", `["aa bb cc"]`, 8, "['aa '\n 'bb '\n 'cc']"},
		{"one word", `["aaaaaaaaaaaa"]`, 8, "['aaaaaaaaaaaa']"},
		{"whole string", `"aa bb cc"`, 10, "'aa bb cc'"},
		{"whole string, broken", `"aa bb cc"`, 9, "('aa bb '\n 'cc')"},
		{"lines", `"aa\nbb\ncc"`, 9, "('aa\\n'\n 'bb\\n'\n 'cc')"},
		{"empty at the margin", `{"aaaa":{}}`, 3, "{'aaaa': {}}"},
	} {
		if diff := cmp.Diff(c.want, Format(decode(t, c.value), c.width)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// python pretty-prints the JSON texts on its standard input, one a line, for
// the widths before them.
const python = `
import sys, json, pprint
for line in sys.stdin.buffer.read().decode().split("\n"):
    if line:
        width, _, text = line.partition(" ")
        out = pprint.pformat(json.loads(text), width=int(width))
        print(json.dumps([out, repr(json.loads(text))]))
`

type peer struct{ path string }

func findPeer(t testing.TB) peer {
	path, err := exec.LookPath("python3")
	if err != nil {
		if os.Getenv("STAS_REQUIRE_ALL") == "1" {
			t.Fatal(err)
		}
		t.Skip("python3 is not installed")
	}
	return peer{path}
}

// compare has Python print the same, and reports what differs.
func (p peer) compare(t testing.TB, cases []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.path, "-c", python)
	cmd.Stdin = strings.NewReader(strings.Join(cases, "\n"))
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if len(lines) != len(cases) {
		t.Fatalf("%d answers to %d questions", len(lines), len(cases))
	}
	for i, c := range cases {
		var want [2]string
		if err := json.Unmarshal(lines[i], &want); err != nil {
			t.Fatal(err)
		}
		var width int
		text := ""
		if _, err := fmt.Sscanf(c, "%d", &width); err == nil {
			_, text, _ = strings.Cut(c, " ")
		}
		v := decode(t, text)
		if diff := cmp.Diff(want, [2]string{Format(v, width), Repr(v)}); diff != "" {
			t.Errorf("%s (-python +ours):\n%s", c, diff)
		}
	}
}

// alphabet has what matters: quotes, line ends, white space of all kinds,
// characters of every width, and some that cannot be printed.
var alphabet = []rune("aaabbc  \n\r\t\v\f'\"\\,:{}[]\x1c\x1f\x00\x7f\u0085\u00a0é漢\u2028\u2029\u200b\u3000😀\U000e0041\ufeff")

func randomValue(r *rand.Rand, depth int) any {
	switch n := r.IntN(8); {
	case n < 2 && depth > 0:
		list := make([]any, r.IntN(5))
		for i := range list {
			list[i] = randomValue(r, depth-1)
		}
		return list
	case n < 4 && depth > 0:
		m := make(map[string]any)
		for range r.IntN(5) {
			m[randomText(r, 12)] = randomValue(r, depth-1)
		}
		return m
	case n == 4:
		return r.IntN(100000) - 50000
	case n == 5:
		return []any{nil, true, false, 1.5, 1e22, 3e-7}[r.IntN(6)]
	}
	return randomText(r, 60)
}

func randomText(r *rand.Rand, most int) string {
	text := make([]rune, r.IntN(most))
	for i := range text {
		text[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(text)
}

func TestAgainstPython(t *testing.T) {
	p := findPeer(t)
	r := rand.New(rand.NewPCG(1, 2))
	var cases []string
	for range 4000 {
		text, err := json.Marshal(randomValue(r, 4))
		if err != nil {
			t.Fatal(err)
		}
		width := 5 + r.IntN(116)
		if r.IntN(3) == 0 {
			width = 120
		}
		cases = append(cases, fmt.Sprintf("%d %s", width, text))
	}
	p.compare(t, cases)
}

func FuzzAgainstPython(f *testing.F) {
	f.Add(`{"a":["b c d",{"e":null}]}`, uint8(10))
	f.Add(`"a b\nc"`, uint8(4))
	p := findPeer(f)
	f.Fuzz(func(t *testing.T, text string, width uint8) {
		var v any
		if json.Unmarshal([]byte(text), &v) != nil || width == 0 || hasSurprises(v) {
			return
		}
		back, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		p.compare(t, []string{fmt.Sprintf("%d %s", width, back)})
	})
}

// hasSurprises tells values on which the two may differ for reasons that are
// none of ours: characters that only one of the two Unicode versions has.
func hasSurprises(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.ContainsFunc(v, func(r rune) bool { return r > unicode.MaxLatin1 && !strings.ContainsRune(string(alphabet), r) })
	case []any:
		return slices.ContainsFunc(v, hasSurprises)
	case map[string]any:
		for k, e := range v {
			if hasSurprises(k) || hasSurprises(e) {
				return true
			}
		}
	}
	return false
}
