package lab

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/target"
)

// faultKey is a value of a fault as "stas-lab ctl fault add" takes it and
// "stas-lab ctl show faults" shows it.
type faultKey struct {
	name, value, about string
	set                func(*target.Fault, string) error
	get                func(*target.Fault) string // empty if it is not set
}

// key makes a faultKey of a field, and of how its values are read and written.
func key[T comparable](name, value, about string, at func(*target.Fault) *T, parse func(string) (T, error), format func(T) string) faultKey {
	return faultKey{
		name: name, value: value, about: about,
		set: func(f *target.Fault, text string) (err error) {
			*at(f), err = parse(text)
			return err
		},
		get: func(f *target.Fault) string {
			if *at(f) == *new(T) {
				return ""
			}
			return format(*at(f))
		},
	}
}

func textKey(name, value, about string, at func(*target.Fault) *string) faultKey {
	return key(name, value, about, at,
		func(text string) (string, error) { return text, nil },
		func(v string) string { return v })
}

func intKey(name, about string, at func(*target.Fault) *int) faultKey {
	return key(name, "N", about, at, parseCount, strconv.Itoa)
}

func uintKey(name, about string, at func(*target.Fault) *uint64) faultKey {
	return key(name, "N", about, at, parseUint[uint64](64), func(v uint64) string { return fmt.Sprintf("%#x", v) })
}

func timeKey(name, about string, at func(*target.Fault) *target.Duration) faultKey {
	return key(name, "TIME", about, at, parseDuration, func(v target.Duration) string { return time.Duration(v).String() })
}

var faultKeys = []faultKey{
	textKey("listener", "NAME", "only at this listener", func(f *target.Fault) *string { return &f.Listener }),
	textKey("subsystem", "NQN", "only of hosts that have connected by this NQN", func(f *target.Fault) *string { return &f.Subsystem }),
	textKey("host", "NQN", "only of this host", func(f *target.Fault) *string { return &f.Host }),
	textKey("command", "NAME", "only of this command: connect, identify, get-log-page, read, ...", func(f *target.Fault) *string { return &f.Command }),
	textKey("queue", "KIND", "only of the admin queue, or of io queues", func(f *target.Fault) *string { return &f.Queue }),
	{
		name: "lid", value: "N", about: "only of Get Log Page for this log page",
		set: func(f *target.Fault, text string) error {
			lid, err := parseUint[uint8](8)(text)
			f.LID = &lid
			return err
		},
		get: func(f *target.Fault) string {
			if f.LID == nil {
				return ""
			}
			return fmt.Sprintf("%#02x", *f.LID)
		},
	},
	uintKey("from", "only of Get Log Page from this offset on", func(f *target.Fault) *uint64 { return &f.From }),
	intKey("skip", "let so many pass first", func(f *target.Fault) *int { return &f.Skip }),
	intKey("times", "then do it so often; for ever without", func(f *target.Fault) *int { return &f.Times }),
	timeKey("delay", "how late; of what happens by itself: when", func(f *target.Fault) *target.Duration { return &f.Delay }),
	timeKey("every", "of what happens by itself: again after so long", func(f *target.Fault) *target.Duration { return &f.Every }),
	timeKey("pause", "how long nobody listens", func(f *target.Fault) *target.Duration { return &f.Pause }),
	key("status", "STATUS", "connect-invalid-host, with DNR connect-invalid-host+dnr, or 0x4184",
		func(f *target.Fault) *nvme.Status { return &f.Status }, nvme.ParseStatus, nvme.Status.Name),
	intKey("offset", "where in the data, or in the PDU", func(f *target.Fault) *int { return &f.Offset }),
	{
		name: "bytes", value: "HEX", about: "what is written there",
		set: func(f *target.Fault, text string) error { return f.Bytes.UnmarshalText([]byte(text)) },
		get: func(f *target.Fault) string {
			text, _ := f.Bytes.MarshalText() // never fails
			return string(text)
		},
	},
	uintKey("value", "a number; what it means depends on the fault", func(f *target.Fault) *uint64 { return &f.Value }),
}

func parseCount(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%q is no number", text)
	}
	return n, nil
}

// parseUint reads numbers of so many bits, in hexadecimal with 0x.
func parseUint[T uint8 | uint16 | uint32 | uint64](bits int) func(string) (T, error) {
	return func(text string) (T, error) {
		n, err := strconv.ParseUint(text, 0, bits)
		if err != nil {
			return 0, fmt.Errorf("%q is no number of %d bits", text, bits)
		}
		return T(n), nil
	}
}

func parseDuration(text string) (d target.Duration, err error) {
	err = d.UnmarshalText([]byte(text))
	return d, err
}

// parseFault reads a fault from words: its kind, then KEY=VALUE.
func parseFault(words []string) (target.Fault, error) {
	f := target.Fault{Do: words[0]}
	for _, word := range words[1:] {
		name, value, ok := strings.Cut(word, "=")
		if !ok {
			return f, fmt.Errorf("%q is not KEY=VALUE", word)
		}
		k, ok := findFaultKey(name)
		if !ok {
			var all []string
			for _, k := range faultKeys {
				all = append(all, k.name)
			}
			return f, fmt.Errorf("there is no key %q; there are %s", name, strings.Join(all, ", "))
		}
		if err := k.set(&f, value); err != nil {
			return f, fmt.Errorf("%s: %w", name, err)
		}
	}
	return f, nil
}

func findFaultKey(name string) (faultKey, bool) {
	for _, k := range faultKeys {
		if k.name == name {
			return k, true
		}
	}
	return faultKey{}, false
}

// faultKeyHelp is a line for each key.
func faultKeyHelp() (lines []string) {
	for _, k := range faultKeys {
		lines = append(lines, fmt.Sprintf("%-17s %s", k.name+"="+k.value, k.about))
	}
	return lines
}
