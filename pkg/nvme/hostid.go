package nvme

import (
	"encoding/hex"
	"fmt"
)

// HostID is a host identifier: the bytes of a UUID in the order of its text.
type HostID [16]byte

// ParseHostID reads a host identifier: a UUID, in either case.
func ParseHostID(s string) (HostID, error) {
	var id HostID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return HostID{}, fmt.Errorf("%q is not a host ID (xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)", s)
	}
	if _, err := hex.Decode(id[:], []byte(s[0:8]+s[9:13]+s[14:18]+s[19:23]+s[24:36])); err != nil {
		return HostID{}, fmt.Errorf("%q is not a host ID: %w", s, err)
	}
	return id, nil
}

// String returns the UUID in lower case.
func (id HostID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16])
}

// IsZero reports whether there is no host identifier.
func (id HostID) IsZero() bool { return id == HostID{} }

// MarshalText implements [encoding.TextMarshaler] by String.
func (id HostID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler] by ParseHostID.
func (id *HostID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseHostID(string(text))
	return err
}
