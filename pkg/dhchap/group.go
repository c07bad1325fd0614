package dhchap

import (
	"fmt"
	"io"
	"math/big"
	"sync"
)

// Group is a Diffie-Hellman group of the protocol (Base "DH-HMAC-CHAP
// Diffie-Hellman group identifiers"); all but the null group are from RFC 7919.
type Group uint8

// Groups. With GroupNull there is no Diffie-Hellman exchange at all.
const (
	GroupNull Group = 0
	FFDHE2048 Group = 1
	FFDHE3072 Group = 2
	FFDHE4096 Group = 3
	FFDHE6144 Group = 4
	FFDHE8192 Group = 5
)

var groups = [...]struct {
	name  string
	size  int // of the modulus and of values on the wire, bytes
	prime func() *big.Int
}{
	GroupNull: {name: "null"},
	FFDHE2048: {"ffdhe2048", 256, safePrime(2048, 560316)},
	FFDHE3072: {"ffdhe3072", 384, safePrime(3072, 2625351)},
	FFDHE4096: {"ffdhe4096", 512, safePrime(4096, 5736041)},
	FFDHE6144: {"ffdhe6144", 768, safePrime(6144, 15705020)},
	FFDHE8192: {"ffdhe8192", 1024, safePrime(8192, 10965728)},
}

// Groups returns all groups, the smallest first.
func Groups() []Group {
	return []Group{GroupNull, FFDHE2048, FFDHE3072, FFDHE4096, FFDHE6144, FFDHE8192}
}

// ParseGroup is the inverse of String.
func ParseGroup(name string) (Group, error) {
	for _, g := range Groups() {
		if name == groups[g].name {
			return g, nil
		}
	}
	return GroupNull, fmt.Errorf("%q is no DH-HMAC-CHAP group", name)
}

// Size returns the length of the group's values in bytes, 0 for GroupNull and
// for what is no group.
func (g Group) Size() int {
	if !g.known() {
		return 0
	}
	return groups[g].size
}

func (g Group) String() string {
	if !g.known() {
		return fmt.Sprintf("group %#02x", uint8(g))
	}
	return groups[g].name
}

func (g Group) known() bool { return int(g) < len(groups) }

// safePrime returns the modulus of RFC 7919, appendix A, which tells how its
// numbers came about: p = 2^b - 2^(b-64) + (floor(2^(b-130) e) + x) 2^64 - 1.
// It is computed when it is first needed.
func safePrime(b uint, x int64) func() *big.Int {
	return sync.OnceValue(func() *big.Int {
		p := eulersNumber(b - 130)
		p.Add(p, big.NewInt(x))
		p.Lsh(p, 64)
		p.Add(p, power2(b))
		p.Sub(p, power2(b-64))
		return p.Sub(p, big.NewInt(1))
	})
}

// eulersNumber returns floor(2^bits e), from e = 1/0! + 1/1! + 1/2! + ...
func eulersNumber(bits uint) *big.Int {
	const guard = 64 // bits that take up the rounding of each term
	sum := new(big.Int)
	term := power2(bits + guard)
	for k := int64(1); term.Sign() > 0; k++ {
		sum.Add(sum, term)
		term.Quo(term, big.NewInt(k))
	}
	return sum.Rsh(sum, guard)
}

func power2(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }

var (
	one       = big.NewInt(1)
	generator = big.NewInt(2)
)

// exponentSize is the size of private exponents in bytes. The book wants at
// least 256 bits, RFC 7919 at least 400 for its largest group; one size for
// all groups costs milliseconds.
const exponentSize = 64

// exchange is one side of a Diffie-Hellman exchange. Exponentiation by math/big
// takes a time that depends on the exponent. Those who use this package, a lab
// target and a probe, make a new exponent for every transaction, and whoever
// learns it still lacks the key of the HMAC, so that nothing is lost by it.
type exchange struct {
	group    Group
	exponent *big.Int // the secret
	public   []byte   // what goes to the peer, of the group's size
}

// newExchange draws an exponent; g is a known group and not GroupNull.
func newExchange(g Group, rand io.Reader) (*exchange, error) {
	raw := make([]byte, exponentSize)
	if err := readRandom(rand, raw); err != nil {
		return nil, err
	}
	x := new(big.Int).SetBytes(raw)
	y := new(big.Int).Exp(generator, x, groups[g].prime())
	return &exchange{group: g, exponent: x, public: y.FillBytes(make([]byte, g.Size()))}, nil
}

// shared returns the shared secret, big-endian and padded to the size of the
// modulus, or ErrIncorrectPayload for a value that no honest peer sends.
func (x *exchange) shared(peer []byte) ([]byte, error) {
	p := groups[x.group].prime()
	y := new(big.Int).SetBytes(peer)
	if y.Cmp(one) <= 0 || y.Cmp(new(big.Int).Sub(p, one)) >= 0 {
		return nil, fail(ErrIncorrectPayload, "the DH value is not between 1 and p-1 of %v", x.group)
	}
	return y.Exp(y, x.exponent, p).FillBytes(make([]byte, x.group.Size())), nil
}
