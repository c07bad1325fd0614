package dhchap

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"testing"
)

// The hashes are of the moduli that OpenSSL 3.0 has under these names.
func TestPrimes(t *testing.T) {
	for g, want := range map[Group]string{
		FFDHE2048: "9cd3b7f336872f46c09428d1bbc19877a4d440512cda8d1c1cf0cd6e33698966",
		FFDHE3072: "0eaf67db3a839156d5013494a5318a772b5697d270d721f37f092efc69ea5a17",
		FFDHE4096: "4648414224ac881b3d0dc59b466f96d06a558278776807797ecf1f66ff397b3e",
		FFDHE6144: "227ac9066b3ddd9e193670cda2388fa884f65ba0cf98b742d1fe77a6687c79c7",
		FFDHE8192: "770b14efaf6f049929c523113b3fa99a8d11dab1b18af3609590122075d19833",
	} {
		t.Run(g.String(), func(t *testing.T) {
			p := groups[g].prime()
			if p.BitLen() != 8*g.Size() || g.String() != fmt.Sprint("ffdhe", p.BitLen()) {
				t.Errorf("%d bits, %d bytes", p.BitLen(), g.Size())
			}
			if sum := sha256.Sum256(p.Bytes()); hex.EncodeToString(sum[:]) != want {
				t.Error("not the prime of RFC 7919")
			}
			if testing.Short() {
				return
			}
			if half := new(big.Int).Rsh(p, 1); !p.ProbablyPrime(0) || !half.ProbablyPrime(0) {
				t.Error("not a safe prime")
			}
		})
	}
}

func TestNames(t *testing.T) {
	for _, g := range Groups() {
		if got, err := ParseGroup(g.String()); err != nil || got != g {
			t.Errorf("%v: %v, %v", g, got, err)
		}
	}
	for _, h := range Hashes() {
		if got, err := ParseHash(h.String()); err != nil || got != h || h.Size() != len(h.sum(nil)) || h.Size() != len(h.mac(nil)) {
			t.Errorf("%v: %v, %v", h, got, err)
		}
	}
	for _, name := range []string{"", "none", "ffdhe1024", "sha1"} {
		if _, err := ParseGroup(name); err == nil {
			t.Errorf("group %q", name)
		}
		if _, err := ParseHash(name); err == nil {
			t.Errorf("hash %q", name)
		}
	}
	if Group(6).String() != "group 0x06" || Hash(0xff).String() != "hash 0xff" || Group(6).Size() != 0 || Hash(4).Size() != 0 {
		t.Error("unknown groups and hash functions")
	}
}

func TestExchange(t *testing.T) {
	for _, g := range Groups()[1:] {
		a, errA := newExchange(g, rand.Reader)
		b, errB := newExchange(g, rand.Reader)
		if err := errors.Join(errA, errB); err != nil {
			t.Fatal(err)
		}
		ab, errA := a.shared(b.public)
		ba, errB := b.shared(a.public)
		if err := errors.Join(errA, errB); err != nil || !bytes.Equal(ab, ba) || len(ab) != g.Size() {
			t.Errorf("%v: the shared secrets have %d and %d bytes, %v", g, len(ab), len(ba), err)
		}
		if len(a.public) != g.Size() || bytes.Equal(a.public, b.public) || a.exponent.BitLen() < 256 {
			t.Errorf("%v: values of %d bytes, exponent of %d bits", g, len(a.public), a.exponent.BitLen())
		}
	}
}

// A shared secret keeps its leading zeros: both Linux and SPDK hash them.
func TestSharedSecretIsPadded(t *testing.T) {
	x := &exchange{group: FFDHE2048, exponent: big.NewInt(3)}
	got, err := x.shared([]byte{0, 0, 0, 5})
	if err != nil || len(got) != 256 || new(big.Int).SetBytes(got).Int64() != 125 {
		t.Errorf("% x, %v", got, err)
	}
}

func TestPublicValueRange(t *testing.T) {
	for _, g := range Groups()[1:] {
		x, err := newExchange(g, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		p := groups[g].prime()
		for _, tc := range []struct {
			value *big.Int
			ok    bool
		}{
			{big.NewInt(0), false},
			{big.NewInt(1), false},
			{big.NewInt(2), true},
			{new(big.Int).Sub(p, big.NewInt(2)), true},
			{new(big.Int).Sub(p, big.NewInt(1)), false},
			{p, false},
			{new(big.Int).Add(p, big.NewInt(2)), false},
		} {
			_, err := x.shared(tc.value.FillBytes(make([]byte, g.Size())))
			if (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrIncorrectPayload) {
				t.Errorf("%v: a value of %d bits ending in %d: %v", g, tc.value.BitLen(), tc.value.Bit(0), err)
			}
		}
	}
}

// The slowest group has to stay bearable for a queue that waits: ffdhe8192
// takes 20 ms a side.
func BenchmarkExchange(b *testing.B) {
	for _, g := range Groups()[1:] {
		b.Run(g.String(), func(b *testing.B) {
			for b.Loop() {
				x, err := newExchange(g, rand.Reader)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := x.shared(x.public); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPrime8192(b *testing.B) {
	for b.Loop() {
		safePrime(8192, 10965728)()
	}
}
