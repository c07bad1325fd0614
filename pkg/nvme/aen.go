package nvme

import (
	"fmt"
	"strconv"
	"strings"
)

// AEN is dword 0 of a completed Asynchronous Event Request (Base
// "Asynchronous Event Request command", figure "Completion Queue Entry Dword 0").
type AEN uint32

// Notices, each of a log page that has changed.
const (
	DiscoveryLogChanged AEN = 0x70f002
	NamespaceChanged    AEN = 0x040002 // and what Identify says of namespaces
	ANAChanged          AEN = 0x0c0302
)

// AENType is the class of an asynchronous event.
type AENType uint8

// The event types.
const (
	AENError     AENType = 0
	AENHealth    AENType = 1
	AENNotice    AENType = 2
	AENImmediate AENType = 3
	AENOneShot   AENType = 4
	AENIOCommand AENType = 6
	AENVendor    AENType = 7
)

// ParseAEN reads the NVME_AEN of a uevent: hexadecimal in either case, with or
// without the prefix 0x (drivers/nvme/host/core.c, nvme_aen_uevent).
func ParseAEN(s string) (AEN, error) {
	digits := s
	if len(s) >= 2 && strings.EqualFold(s[:2], "0x") {
		digits = s[2:]
	}
	v, err := strconv.ParseUint(digits, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not an asynchronous event", s)
	}
	return AEN(v), nil
}

// Type returns the class of the event, bits 2:0.
func (a AEN) Type() AENType { return AENType(a & 7) }

// Info returns the event within its class, bits 15:8.
func (a AEN) Info() uint8 { return uint8(a >> 8) }

// LogPage returns the log page that tells more, bits 23:16.
func (a AEN) LogPage() uint8 { return uint8(a >> 16) }

// String spells the event as the kernel does.
func (a AEN) String() string { return fmt.Sprintf("%#06x", uint32(a)) }
