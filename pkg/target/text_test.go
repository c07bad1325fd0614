package target

import (
	"testing"
	"time"
)

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "1m30s": 90 * time.Second, "250ms": 250 * time.Millisecond, "5": 5 * time.Second, "0.5": 500 * time.Millisecond,
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%q: %v, %v", text, time.Duration(d), err)
		}
	}
	for _, text := range []string{"", "x", "-1s", "-1", "1 h 2", "NaN", "Inf", "1e300"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: %v", text, time.Duration(d))
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "512": 512, "64MiB": 64 << 20, "64M": 64 << 20, "1 GiB": 1 << 30, "2TiB": 2 << 40, "3K": 3 << 10,
	} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || uint64(s) != want {
			t.Errorf("%q: %d, %v", text, uint64(s), err)
		}
		var again Size
		written, _ := s.MarshalText()
		if err := again.UnmarshalText(written); err != nil || again != s {
			t.Errorf("%q is written %q, which is %d, %v", text, written, again, err)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1.5GiB", "99999999999TiB", "1X"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: %v", text, s)
		}
	}
}

func TestBytes(t *testing.T) {
	var b Bytes
	if err := b.UnmarshalText([]byte("de ad be ef")); err != nil || string(b) != "\xde\xad\xbe\xef" {
		t.Errorf("%x, %v", b, err)
	}
	if text, _ := b.MarshalText(); string(text) != "deadbeef" {
		t.Errorf("%s", text)
	}
	if err := b.UnmarshalText([]byte("xyz")); err == nil {
		t.Error("xyz are bytes")
	}
}
