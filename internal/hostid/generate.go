package hostid

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/nvme-stas/stas/internal/conf"
)

// uuidPrefix makes an NQN of a UUID (Base 4.7).
const uuidPrefix = "nqn.2014-08.org.nvmexpress:uuid:"

// Sources are the files from which a host NQN can be derived, so that the same
// host always gets the same.
type Sources struct {
	MachineID     string
	ProductUUID   string // DMI
	PartitionUUID string // PowerVM
}

// DefaultSources are the files of a real host.
var DefaultSources = Sources{
	MachineID:     "/etc/machine-id",
	ProductUUID:   "/sys/class/dmi/id/product_uuid",
	PartitionUUID: "/proc/device-tree/ibm,partition-uuid",
}

// NewNQN makes a host NQN from the first source that has something to offer.
// If none has, it is a random one, and random says so.
func NewNQN(s Sources) (nqn string, random bool, err error) {
	if text, err := conf.FirstLine(s.MachineID); err == nil && len(text) >= 32 {
		if id, err := hex.DecodeString(text[:32]); err == nil {
			return uuidPrefix + machineUUID(id), false, nil
		}
	}
	text, err := conf.FirstLine(s.ProductUUID)
	switch {
	case errors.Is(err, fs.ErrPermission):
		// Somebody with more rights would get another result.
		return "", false, fmt.Errorf("%s has no machine ID, and %w; run this as root", s.MachineID, err)
	case err == nil && len(text) >= 36:
		if uuid, err := CheckUUID(text[:36]); err == nil {
			return uuidPrefix + swapped(uuid), false, nil
		}
	}
	if text, err := conf.FirstLine(s.PartitionUUID); err == nil && len(text) >= 36 {
		if uuid, err := CheckUUID(text[:36]); err == nil {
			return uuidPrefix + uuid, false, nil
		}
	}
	return uuidPrefix + NewID(), true, nil
}

// NewID makes a host ID, a random UUID.
func NewID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	return version4(b)
}

// machineUUID derives the UUID that nvme-stas has always derived from the
// machine ID: systemd's recipe for application specific IDs, but with key and
// message the other way round. A host must not change its name, so it stays.
func machineUUID(machineID []byte) string {
	mac := hmac.New(sha256.New, []byte("$nvmexpress.org$"))
	mac.Write(machineID)
	return version4(mac.Sum(nil)[:16])
}

func version4(b []byte) string {
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return format(b)
}

func format(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// swapped reverses the bytes of the first three fields, as nvme-cli and
// nvme-stas do. Linux has done that already for modern firmware, but a host
// must not change its name.
func swapped(uuid string) string {
	b, _ := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	slices.Reverse(b[0:4])
	slices.Reverse(b[4:6])
	slices.Reverse(b[6:8])
	return format(b)
}

// CheckUUID returns a UUID in lower case, or says what is wrong with it.
func CheckUUID(text string) (string, error) {
	uuid := strings.ToLower(text)
	b, err := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	if err != nil || len(b) != 16 || format(b) != uuid {
		return "", fmt.Errorf("%q is not a UUID (xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx)", text)
	}
	return uuid, nil
}
