package fabrics

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	hostKey = "DHHC-1:00:hostKeyThatNobodySees:"
	ctrlKey = "DHHC-1:00:ctrlKeyThatNobodySees:"
)

func secretOptions() Options {
	return Options{
		Transport: "tcp", TrAddr: "192.0.2.1", NQN: "nqn.2014-08.org.example:a",
		DHChapSecret: NewSecret(hostKey), DHChapCtrlSecret: NewSecret(ctrlKey),
	}
}

func TestSecretStaysSecret(t *testing.T) {
	o := secretOptions()
	line, err := o.Encode(everything())
	if err != nil {
		t.Fatal(err)
	}
	type hidden struct {
		o    Options
		s    Secret
		line OptionString
		m    map[Secret]Secret
	}
	connectErr := &ConnectError{Options: o, Errno: unix.EIO}
	values := []any{
		o.DHChapSecret, &o.DHChapSecret, []Secret{o.DHChapSecret}, map[string]Secret{"k": o.DHChapSecret},
		o, &o, []Options{o}, line, &line, connectErr, *connectErr, errors.Join(connectErr),
		hidden{o, o.DHChapSecret, line, map[Secret]Secret{o.DHChapSecret: o.DHChapCtrlSecret}},
		&hidden{o: o},
	}
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
	for _, leak := range []string{"NobodySees", fmt.Sprintf("%x", "NobodySees"), fmt.Sprintf("%X", "NobodySees")} {
		if i := strings.Index(seen.String(), leak); i >= 0 {
			t.Errorf("a secret can be seen: …%q", seen.String()[max(0, i-200):i+len(leak)])
		}
	}
	if !strings.Contains(line.Reveal(), hostKey) || !strings.Contains(line.Reveal(), ctrlKey) {
		t.Error("the kernel does not get the secrets")
	}
	if want := "dhchap_secret=<secret>,dhchap_ctrl_secret=<secret>"; !strings.Contains(o.String(), want) {
		t.Errorf("%s lacks %s", o, want)
	}
}

func TestSecret(t *testing.T) {
	if NewSecret("") != (Secret{}) || NewSecret(string([]byte{'a'})) != NewSecret("a") || NewSecret("a") == NewSecret("b") {
		t.Error("secrets do not compare by content")
	}
	if s := NewSecret("a"); s.Reveal() != "a" || s.String() != "<secret>" {
		t.Errorf("%q, %q", s.Reveal(), s)
	}
	if s := (Secret{}); s.Reveal() != "" || fmt.Sprintf("%v%+v%#v%s", s, s, s, s) != "" {
		t.Error("the empty secret is not empty")
	}
	b, err := json.Marshal(struct{ A, B Secret }{A: NewSecret("a")})
	if err != nil || !strings.Contains(string(b), `"B":""`) || strings.Contains(string(b), `"A":"a"`) {
		t.Errorf("%s, %v", b, err)
	}
}
