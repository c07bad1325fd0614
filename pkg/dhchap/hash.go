package dhchap

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
)

// Hash is a hash function of the protocol (Base "DH-HMAC-CHAP hash function
// identifiers"). In the text form of a key it says how the key is transformed.
type Hash uint8

// Hash functions. HashNone is in keys only: the key is used as it is.
const (
	HashNone Hash = 0
	SHA256   Hash = 1
	SHA384   Hash = 2
	SHA512   Hash = 3
)

var hashes = [...]struct {
	name string
	size int
	new  func() hash.Hash
}{
	HashNone: {name: "none"},
	SHA256:   {"sha256", sha256.Size, sha256.New},
	SHA384:   {"sha384", sha512.Size384, sha512.New384},
	SHA512:   {"sha512", sha512.Size, sha512.New},
}

// Hashes returns all hash functions that can be negotiated, the shortest first.
func Hashes() []Hash { return []Hash{SHA256, SHA384, SHA512} }

// ParseHash is the inverse of String for what Hashes returns.
func ParseHash(name string) (Hash, error) {
	for _, h := range Hashes() {
		if name == hashes[h].name {
			return h, nil
		}
	}
	return HashNone, fmt.Errorf("%q is no DH-HMAC-CHAP hash function", name)
}

// Size returns the length of a hash in bytes: HL on the wire. It is 0 for what
// is no hash function.
func (h Hash) Size() int {
	if int(h) >= len(hashes) {
		return 0
	}
	return hashes[h].size
}

func (h Hash) String() string {
	if int(h) >= len(hashes) {
		return fmt.Sprintf("hash %#02x", uint8(h))
	}
	return hashes[h].name
}

// sum hashes data; h must be one of Hashes.
func (h Hash) sum(data []byte) []byte {
	f := hashes[h].new()
	f.Write(data)
	return f.Sum(nil)
}

// mac is HMAC over the concatenation of parts; h must be one of Hashes.
func (h Hash) mac(key []byte, parts ...[]byte) []byte {
	m := hmac.New(hashes[h].new, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}
