package fabrics

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
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

// IsDHChapKey reports whether the secret has the form of a DH-HMAC-CHAP key,
// "DHHC-1:NN:BASE64:". The kernel checks the rest (drivers/nvme/host/fabrics.c,
// NVMF_OPT_DHCHAP_SECRET).
func (s Secret) IsDHChapKey() bool {
	text := s.Reveal()
	return strings.HasPrefix(text, "DHHC-1:") && len(text) >= len("DHHC-1:00:x") && !strings.ContainsAny(text, ", \t")
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
