package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"unicode"

	"github.com/coreos/go-systemd/v22/journal"
)

// NewLogger returns the daemons' logger. The message is one readable line,
// attributes follow as key=value. With syslog it goes to the journal, else to
// w. Level may be changed at any time.
func NewLogger(w io.Writer, syslog bool, level *slog.LevelVar) *slog.Logger {
	h := &lineHandler{level: level, mu: new(sync.Mutex), w: w}
	if syslog {
		if onJournal, err := journal.StderrIsJournalStream(); err == nil && onJournal {
			// The manager has connected us already; a prefix gives the priority.
			h.w, h.prefix = os.Stderr, true
		} else if journal.Enabled() {
			h.send = journal.Send
		}
	}
	return slog.New(h)
}

// lineHandler writes a record as one line.
type lineHandler struct {
	level  *slog.LevelVar
	mu     *sync.Mutex
	w      io.Writer
	prefix bool // sd-daemon(3) priority prefixes
	send   func(message string, p journal.Priority, vars map[string]string) error
	attrs  string
}

func (h *lineHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *lineHandler) Handle(_ context.Context, r slog.Record) error {
	var line strings.Builder
	line.WriteString(r.Message)
	line.WriteString(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&line, a)
		return true
	})
	// One record is one line, whatever a hostile target put into a name.
	text := strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, line.String())
	p := priority(r.Level)
	if h.send != nil {
		return h.send(text, p, nil)
	}
	if h.prefix {
		text = fmt.Sprintf("<%d>%s", p, text)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, text+"\n")
	return err
}

func (h *lineHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var text strings.Builder
	for _, a := range attrs {
		writeAttr(&text, a)
	}
	with := *h
	with.attrs += text.String()
	return &with
}

// WithGroup ignores the group: the daemons' attributes are flat.
func (h *lineHandler) WithGroup(string) slog.Handler { return h }

func writeAttr(b *strings.Builder, a slog.Attr) {
	v := a.Value.Resolve().String()
	if strings.ContainsAny(v, " \"=") || v == "" {
		v = fmt.Sprintf("%q", v)
	}
	fmt.Fprintf(b, " %s=%s", a.Key, v)
}

func priority(l slog.Level) journal.Priority {
	switch {
	case l >= slog.LevelError:
		return journal.PriErr
	case l >= slog.LevelWarn:
		return journal.PriWarning
	case l >= slog.LevelInfo:
		return journal.PriInfo
	}
	return journal.PriDebug
}
