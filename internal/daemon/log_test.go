package daemon

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"
)

func TestLog(t *testing.T) {
	for _, c := range []struct {
		name string
		log  func(*slog.Logger)
		want string
	}{
		{"message", func(l *slog.Logger) { l.Info("stafd starts") }, "stafd starts\n"},
		{"attributes", func(l *slog.Logger) { l.Info("m", "n", 1, "s", "a b", "e", "") }, `m n=1 s="a b" e=""` + "\n"},
		{"quotes", func(l *slog.Logger) { l.Info("m", "error", errors.New(`x="y"`)) }, `m error="x=\"y\""` + "\n"},
		{"inherited attributes", func(l *slog.Logger) { l.With("a", 1).With("b", 2).Info("m", "c", 3) }, "m a=1 b=2 c=3\n"},
		{"siblings", func(l *slog.Logger) { l = l.With("a", 1); _ = l.With("b", 2); l.With("c", 3).Info("m") }, "m a=1 c=3\n"},
		{"group", func(l *slog.Logger) { l.WithGroup("g").Info("m", "a", 1) }, "m a=1\n"},
		{"secret", func(l *slog.Logger) { l.Info("m", "v", secret{}) }, "m v=<secret>\n"},
		{"line breaks", func(l *slog.Logger) { l.Warn("a\nb\r\u0085c", "v", "d\ne") }, "a b  c v=d e\n"},
		{"terminal control", func(l *slog.Logger) { l.Error("a\x1b[2J\u009b2J\x7f") }, "a [2J 2J \n"},
		{"not text", func(l *slog.Logger) { l.Error("a\xffb") }, "a\uFFFDb\n"},
		{"beyond ASCII", func(l *slog.Logger) { l.Error("Gerät") }, "Gerät\n"},
		{"level", func(l *slog.Logger) { l.Debug("m") }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			c.log(NewLogger(&out, false, new(slog.LevelVar)))
			if out.String() != c.want {
				t.Errorf("%q, want %q", out.String(), c.want)
			}
		})
	}
}

type secret struct{}

func (secret) LogValue() slog.Value { return slog.StringValue("<secret>") }

func TestLogLevel(t *testing.T) {
	var out bytes.Buffer
	level := new(slog.LevelVar)
	log := NewLogger(&out, false, level).With("a", 1)
	log.Debug("one")
	level.Set(slog.LevelDebug)
	log.Debug("two")
	level.Set(slog.LevelInfo)
	log.Debug("three")
	if out.String() != "two a=1\n" {
		t.Errorf("logged %q", out.String())
	}
}

func TestLogPriority(t *testing.T) {
	level := new(slog.LevelVar)
	level.Set(slog.LevelDebug)
	var out bytes.Buffer
	lines := slog.New(&lineHandler{level: level, mu: NewLogger(&out, false, level).Handler().(*lineHandler).mu, w: &out, prefix: true})
	var sent []string
	journal := slog.New(&lineHandler{level: level, send: func(message string, p journal.Priority, _ map[string]string) error {
		sent = append(sent, string(rune('0'+p))+" "+message)
		return nil
	}})
	for _, l := range []*slog.Logger{lines, journal} {
		l.Debug("d")
		l.Info("i")
		l.Warn("w\n<0>not a prefix")
		l.Error("e", "a", 1)
	}
	if want := "<7>d\n<6>i\n<4>w <0>not a prefix\n<3>e a=1\n"; out.String() != want {
		t.Errorf("lines %q, want %q", out.String(), want)
	}
	if got, want := strings.Join(sent, "\n"), "7 d\n6 i\n4 w <0>not a prefix\n3 e a=1"; got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
}
