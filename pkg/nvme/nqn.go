package nvme

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// WellKnownDiscoveryNQN is the name under which every discovery controller
// can be reached (Base 4.7, NVMe Qualified Names).
const WellKnownDiscoveryNQN = "nqn.2014-08.org.nvmexpress.discovery"

// MaxNQN is the length of the longest NQN in bytes (Base 4.7).
const MaxNQN = 223

// CheckNQN tells what is wrong with an NQN. Beyond the specification it
// refuses white space, commas and whatever cannot be printed: the name has to
// survive the kernel's comma-separated option string, and a log line.
func CheckNQN(nqn string) error {
	switch {
	case nqn == "":
		return errors.New("the NQN is empty")
	case len(nqn) > MaxNQN:
		return fmt.Errorf("the NQN has %d bytes, %d are allowed", len(nqn), MaxNQN)
	case !utf8.ValidString(nqn):
		return fmt.Errorf("the NQN %q is not UTF-8", nqn)
	case !strings.HasPrefix(nqn, "nqn."):
		return fmt.Errorf("the NQN %q does not begin with \"nqn.\"", nqn)
	}
	for _, r := range nqn {
		if r == ',' || unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return fmt.Errorf("the NQN %q contains %q", nqn, r)
		}
	}
	return nil
}

// timeoutSuffix stands before the number of milliseconds that a target
// advertises in its NQN.
const timeoutSuffix = ":timeout_ms="

// maxTimeout bounds what a target may advertise: no outage is waited for longer
// than the kernel can be told to, in seconds of 31 bits.
const maxTimeout = (1<<31 - 1) * time.Second

// AdvertisedTimeout is how long the outages of a target last, as far as its NQN
// says so at its end, in milliseconds: "nqn.2026-01.org.example:a:timeout_ms=2500".
// A number with anything but digits, 0, or one that is too large says nothing.
func AdvertisedTimeout(nqn string) (time.Duration, bool) {
	i := strings.LastIndex(nqn, timeoutSuffix)
	if i < 0 {
		return 0, false
	}
	digits := nqn[i+len(timeoutSuffix):]
	n, err := strconv.ParseUint(digits, 10, 64) // digits only: no sign, no blank
	if err != nil || n == 0 || n > uint64(maxTimeout/time.Millisecond) {
		return 0, false
	}
	return time.Duration(n) * time.Millisecond, true
}
