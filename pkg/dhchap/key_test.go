package dhchap

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"strings"
	"testing"
)

// exampleKey is bytes 1 to 32, and known to be taken by the kernel.
const exampleKey = "DHHC-1:00:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAl7OaH:"

func key(t testing.TB, text string) Key {
	t.Helper()
	k, err := ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// keyText encodes a key of the given bytes without the code under test.
func keyText(transform string, secret []byte) string {
	sum := crc32.ChecksumIEEE(secret)
	raw := append(bytes.Clone(secret), byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24))
	return "DHHC-1:" + transform + ":" + base64.StdEncoding.EncodeToString(raw) + ":"
}

func count(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i + 1)
	}
	return b
}

func TestParseKey(t *testing.T) {
	if exampleKey != keyText("00", count(32)) {
		t.Fatal("the example and this test do not agree about the text form")
	}
	spec := "ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n" // the example of the book
	for _, text := range []string{
		exampleKey,
		"DHHC-1:00:" + spec + ":", "DHHC-1:01:" + spec + ":", "DHHC-1:02:" + spec + ":", "DHHC-1:03:" + spec + ":",
		keyText("02", count(48)), keyText("03", count(64)), keyText("01", count(64)), keyText("00", make([]byte, 32)),
	} {
		k, err := ParseKey(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if k.IsZero() || k.Reveal() != text {
			t.Errorf("%s comes back as %s", text, k.Reveal())
		}
	}
}

func TestParseKeyRefuses(t *testing.T) {
	const body = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAl7OaH"
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "begin"},
		{"other prefix", "DHHC-2:00:" + body + ":", "begin"},
		{"blank before", " " + exampleKey, "begin"},
		{"no digits", "DHHC-1:" + body + ":", "00:, 01:, 02: or 03:"},
		{"one digit", "DHHC-1:0:" + body + ":", "00:, 01:, 02: or 03:"},
		{"unknown hash", "DHHC-1:04:" + body + ":", "00:, 01:, 02: or 03:"},
		{"only a prefix", "DHHC-1:00", "00:, 01:, 02: or 03:"},
		{"no end", "DHHC-1:00:" + body, "does not end"},
		{"newline after", exampleKey + "\n", "does not end"},
		{"newline within", "DHHC-1:00:" + body[:20] + "\n" + body[20:] + ":", "line break"},
		{"not base64", "DHHC-1:00:" + body[:47] + "!:", "base64"},
		{"bits behind the end", strings.Replace(keyText("02", count(48)), "==:", "", 1)[:79] + "B==:", "base64"},
		{"cut", "DHHC-1:00:" + body[:47] + ":", "base64"},
		{"two colons", "DHHC-1:00:" + body + "::", "base64"},
		{"no key", "DHHC-1:00::", "has 0 bytes"},
		{"a checksum alone", "DHHC-1:00:AAAAAA==:", "has 0 bytes"},
		{"31 bytes", keyText("00", count(31)), "has 31 bytes"},
		{"65 bytes", keyText("00", count(65)), "has 65 bytes"},
		{"changed", "DHHC-1:00:B" + body[1:] + ":", "checksum"},
		{"checksum changed", "DHHC-1:00:" + body[:47] + "I:", "checksum"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k, err := ParseKey(tc.text)
			if err == nil || k != (Key{}) {
				t.Fatalf("%q was taken", tc.text)
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%q does not contain %q", err, tc.want)
			}
			for i := 0; i+6 <= len(body); i++ {
				if strings.Contains(err.Error(), body[i:i+6]) {
					t.Errorf("the error shows some of the key: %v", err)
				}
			}
		})
	}
}

func TestGenerateKey(t *testing.T) {
	seen := make(map[Key]bool)
	for _, transform := range []Hash{HashNone, SHA256, SHA384, SHA512} {
		for _, size := range []int{32, 48, 64} {
			k, err := GenerateKey(transform, size, nil)
			if err != nil {
				t.Fatal(err)
			}
			if key(t, k.Reveal()) != k {
				t.Errorf("%v, %d bytes: another key after a round trip", transform, size)
			}
			if seen[k] {
				t.Error("the same key twice")
			}
			seen[k] = true
		}
	}
	fixed, err := GenerateKey(SHA256, 32, bytes.NewReader(count(32)))
	if want := keyText("01", count(32)); err != nil || fixed.Reveal() != want {
		t.Errorf("%s, %v; want %s", fixed.Reveal(), err, want)
	}
	if _, err := GenerateKey(4, 32, nil); err == nil {
		t.Error("a key with an unknown hash function")
	}
	if _, err := GenerateKey(SHA256, 33, nil); err == nil {
		t.Error("a key of 33 bytes")
	}
	if _, err := GenerateKey(SHA256, 64, bytes.NewReader(count(63))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a key without random numbers: %v", err)
	}
}

// Expected values are from Python's hmac.
func TestKeyTransform(t *testing.T) {
	const nqn = "nqn.2014-08.org.example:host"
	for digits, want := range map[string]string{
		"00": "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20",
		"01": "fd5d96d97b4663d7784de749c2f2015e0047f35f6b2efbfa46010be023252d13",
		"02": "d076a4ddfd88dcd5e2fc4b8754dd047e5a478492ded55ae6af7551116d415c82b99ed667caa014d97b0921a8cfe1232a",
		"03": "e1a636c4932fd3950949e353cbbb534af329f670e5d2fd376105b844c4df2eb48d5573a2a55255864ce6b2000094a0cc1a21756ca37f4f8ad5a741efc6c5e2e2",
	} {
		if got := hex.EncodeToString(key(t, keyText(digits, count(32))).forNQN(nqn)); got != want {
			t.Errorf("%s: %s, want %s", digits, got, want)
		}
	}
}

func TestKeyStaysSecret(t *testing.T) {
	const secret = "NobodySeesThisKey,32BytesOfText!"
	k := key(t, keyText("01", []byte(secret)))
	type hidden struct {
		k    Key
		p    *Key
		list []Key
		m    map[Key]Key
		cfg  ControllerConfig
	}
	cc := ControllerConfig{HostNQN: "h", SubNQN: "s", HostKey: k, ControllerKey: k}
	hc := HostConfig{HostNQN: "h", SubNQN: "s", Key: k, ControllerKey: k}
	host, ctrl := NewHost(hc), NewController(cc)
	send, _, err := host.Next(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := ctrl.Send(send); err != nil {
		t.Fatal(err)
	}
	h := hidden{k, &k, []Key{k}, map[Key]Key{k: k}, cc}
	values := []any{k, &k, []Key{k}, map[string]Key{"k": k}, cc, &cc, hc, h, &h, host, *host, ctrl, *ctrl, ctrl.Send(nil)}

	var seen bytes.Buffer
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T", "%100v", "%.3s"} {
			fmt.Fprintf(&seen, verb+"\n", v)
		}
		if b, err := json.Marshal(v); err == nil {
			seen.Write(b)
		}
		slog.New(slog.NewTextHandler(&seen, nil)).Info("text", "v", v)
		slog.New(slog.NewJSONHandler(&seen, nil)).Info("json", "v", v)
	}
	part := "NobodySees"
	for _, leak := range []string{part, fmt.Sprintf("%x", part), fmt.Sprintf("%X", part), strings.Trim(fmt.Sprintf("%d", []byte(part)), "[]"),
		base64.StdEncoding.EncodeToString([]byte(secret))[:12], ctrl.exchangeText()} {
		if i := strings.Index(seen.String(), leak); i >= 0 {
			t.Errorf("a secret can be seen: …%q", seen.String()[max(0, i-200):i+len(leak)])
		}
	}
	if !strings.Contains(seen.String(), redacted) {
		t.Error("nothing was printed at all")
	}
	if fmt.Sprintf("%v%+v%#v%s", Key{}, Key{}, Key{}, Key{}) != "" || !(Key{}).IsZero() || (Key{}).Reveal() != "" {
		t.Error("no key is not nothing")
	}
}

// exchangeText is what would be seen if the private exponent were.
func (c *Controller) exchangeText() string {
	if c.exchange == nil {
		return "no exchange"
	}
	return c.exchange.exponent.String()[:20]
}

func TestKeysCompare(t *testing.T) {
	a, b := keyText("00", count(32)), keyText("01", count(32))
	if first, again := key(t, a), key(t, a); first != again || first == key(t, b) || first == (Key{}) {
		t.Error("keys do not compare by content")
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(exampleKey)
	f.Add(keyText("03", count(64)))
	f.Add("DHHC-1:00::")
	f.Fuzz(func(t *testing.T, text string) {
		k, err := ParseKey(text)
		if err != nil {
			return
		}
		if k.Reveal() != text {
			t.Errorf("%q comes back as %q", text, k.Reveal())
		}
	})
}
