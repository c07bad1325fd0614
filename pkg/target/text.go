package target

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration that is written "1m30s" in files.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; a bare number is seconds.
func (d *Duration) UnmarshalText(text []byte) error {
	unit := ""
	if _, err := strconv.ParseFloat(string(text), 64); err == nil {
		unit = "s"
	}
	v, err := time.ParseDuration(string(text) + unit)
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no time span; write 90s, 1m30s or 250ms", text)
	}
	*d = Duration(v)
	return nil
}

// Size is a number of bytes that is written "64MiB" in files.
type Size uint64

var sizeUnits = []struct {
	name  string
	bytes uint64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && uint64(s)%u.bytes == 0 {
			return strconv.FormatUint(uint64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatUint(uint64(s), 10)
}

// MarshalText implements encoding.TextMarshaler.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: bytes, or a number of
// KiB, MiB, GiB or TiB; "64M" means the same as "64MiB".
func (s *Size) UnmarshalText(text []byte) error {
	digits, unit := string(text), uint64(1)
	for _, u := range sizeUnits {
		for _, name := range []string{u.name, u.name[:1]} {
			if d, ok := strings.CutSuffix(digits, name); ok {
				digits, unit = strings.TrimSpace(d), u.bytes
				break
			}
		}
	}
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil || n > (1<<60)/unit {
		return fmt.Errorf("%q is no size; write 64MiB, 1GiB or a number of bytes", text)
	}
	*s = Size(n * unit)
	return nil
}

// Bytes are bytes that are written in hexadecimal in files.
type Bytes []byte

// MarshalText implements encoding.TextMarshaler.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(b)), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	v, err := hex.DecodeString(strings.ReplaceAll(string(text), " ", ""))
	if err != nil {
		return fmt.Errorf("%q are no bytes in hexadecimal", text)
	}
	*b = v
	return nil
}
