package fabrics

import (
	"fmt"
	"io"
	"log/slog"
	"unique"
)

// Secret is a text that must not be seen, such as a DH-HMAC-CHAP key. However
// it is printed, logged or encoded, what comes out says only whether there is
// one. Secrets are comparable; the zero value is the empty one.
//
// The text is behind a pointer because fmt, when it meets an unexported field,
// calls no methods and prints what it finds.
type Secret struct {
	text unique.Handle[string]
}

// redacted stands for a secret that is not empty.
const redacted = "<secret>"

// NewSecret hides text.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{unique.Make(text)}
}

// Reveal returns the hidden text, for the kernel and nobody else.
func (s Secret) Reveal() string {
	if s == (Secret{}) {
		return ""
	}
	return s.text.Value()
}

func (s Secret) String() string {
	if s == (Secret{}) {
		return ""
	}
	return redacted
}

// GoString makes %#v as silent as String.
func (s Secret) GoString() string { return s.String() }

// Format makes every verb of fmt as silent as String.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText makes JSON and its kin as silent as String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue makes slog as silent as String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }
