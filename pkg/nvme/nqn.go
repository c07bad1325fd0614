package nvme

import (
	"errors"
	"fmt"
	"strings"
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
