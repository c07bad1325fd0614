package dhchap

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"slices"
	"strings"
	"unique"
)

// Text form of a key (Base "Secret representation"): prefix, two digits of
// Hash, ":", base64 of the key and its CRC-32, ":".
const (
	keyPrefix = "DHHC-1:"
	keyEnd    = ":"
	crcSize   = 4
)

// keySizes are the sizes of a key in bytes; any goes with any Hash.
var keySizes = []int{32, 48, 64}

// Key is a DH-HMAC-CHAP key. However it is printed, logged or encoded, what
// comes out says only whether there is one. Keys are comparable; the zero value
// is no key.
//
// The bytes are behind a pointer because fmt, when it meets an unexported
// field, calls no methods and prints what it finds.
type Key struct {
	transform Hash
	secret    unique.Handle[string]
}

// redacted stands for a key.
const redacted = "<secret>"

// ParseKey reads the text form, "DHHC-1:01:...:". Its errors do not repeat the
// text.
func ParseKey(text string) (Key, error) {
	k, err := parseKey(text)
	if err != nil {
		return Key{}, fmt.Errorf("DH-HMAC-CHAP key: %w", err)
	}
	return k, nil
}

func parseKey(text string) (Key, error) {
	rest, ok := strings.CutPrefix(text, keyPrefix)
	if !ok {
		return Key{}, fmt.Errorf("it does not begin with %q", keyPrefix)
	}
	digits, encoded, ok := strings.Cut(rest, ":")
	if !ok || len(digits) != 2 || digits[0] != '0' || digits[1] < '0' || digits[1] > '3' {
		return Key{}, fmt.Errorf("no 00:, 01:, 02: or 03: follows on %q", keyPrefix)
	}
	encoded, ok = strings.CutSuffix(encoded, keyEnd)
	if !ok {
		return Key{}, fmt.Errorf("it does not end in %q", keyEnd)
	}
	if strings.ContainsAny(encoded, "\r\n") { // which base64 skips
		return Key{}, errors.New("it has a line break")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return Key{}, errors.New("it is not base64")
	}
	secret, crc := raw[:max(0, len(raw)-crcSize)], raw[max(0, len(raw)-crcSize):]
	if err := checkKeySize(len(secret)); err != nil {
		return Key{}, err
	}
	if crc32.ChecksumIEEE(secret) != binary.LittleEndian.Uint32(crc) {
		return Key{}, errors.New("its checksum is wrong: a character was lost or changed")
	}
	return Key{Hash(digits[1] - '0'), unique.Make(string(secret))}, nil
}

func checkKeySize(n int) error {
	if !slices.Contains(keySizes, n) {
		return fmt.Errorf("it has %d bytes, 32, 48 or 64 are allowed", n)
	}
	return nil
}

// GenerateKey makes a key of size bytes (32, 48 or 64) that is transformed by
// transform (HashNone: not at all). A random that is nil is [rand.Reader].
func GenerateKey(transform Hash, size int, random io.Reader) (Key, error) {
	if int(transform) >= len(hashes) {
		return Key{}, fmt.Errorf("DH-HMAC-CHAP key: no hash function has the number %d", transform)
	}
	if err := checkKeySize(size); err != nil {
		return Key{}, fmt.Errorf("DH-HMAC-CHAP key: %w", err)
	}
	secret := make([]byte, size)
	if err := readRandom(cmp.Or(random, rand.Reader), secret); err != nil {
		return Key{}, err
	}
	return Key{transform, unique.Make(string(secret))}, nil
}

// IsZero reports that there is no key.
func (k Key) IsZero() bool { return k == Key{} }

// Reveal returns the text form, for the file or the kernel that has to know it
// and nobody else. It is empty if there is no key.
func (k Key) Reveal() string {
	if k.IsZero() {
		return ""
	}
	raw := []byte(k.secret.Value())
	raw = binary.LittleEndian.AppendUint32(raw, crc32.ChecksumIEEE(raw))
	return fmt.Sprintf("%s%02d:%s%s", keyPrefix, k.transform, base64.StdEncoding.EncodeToString(raw), keyEnd)
}

// forNQN returns the key as the HMAC of a response uses it: transformed for the
// NQN of the one who proves its identity by it (Base "DH-HMAC-CHAP Security
// Requirements").
func (k Key) forNQN(nqn string) []byte {
	secret := []byte(k.secret.Value())
	if k.transform == HashNone {
		return secret
	}
	return k.transform.mac(secret, []byte(nqn), []byte("NVMe-over-Fabrics"))
}

func (k Key) String() string {
	if k.IsZero() {
		return ""
	}
	return redacted
}

// GoString makes %#v as silent as String.
func (k Key) GoString() string { return k.String() }

// Format makes every verb of fmt as silent as String.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// MarshalText makes JSON and its kin as silent as String.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// LogValue makes slog as silent as String.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }
