package nvme

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Opcodes of the admin queue (Base "Admin Command Set"). OpFabrics is one of
// all queues.
const (
	OpGetLogPage        uint8 = 0x02
	OpIdentify          uint8 = 0x06
	OpAbort             uint8 = 0x08
	OpSetFeatures       uint8 = 0x09
	OpGetFeatures       uint8 = 0x0a
	OpAsyncEventRequest uint8 = 0x0c
	OpKeepAlive         uint8 = 0x18
	OpDiscoveryInfoMgmt uint8 = 0x21
	OpFabrics           uint8 = 0x7f
)

// Opcodes of I/O queues (NVM Command Set Specification).
const (
	OpFlush       uint8 = 0x00
	OpWrite       uint8 = 0x01
	OpRead        uint8 = 0x02
	OpWriteZeroes uint8 = 0x08
	OpDSM         uint8 = 0x09
)

// CommandID is what tells one kind of command from all others.
type CommandID struct {
	Opcode uint8
	FCType FCType // of a Fabrics command
	IO     bool   // of an I/O queue; Fabrics commands belong to no kind of queue
}

var commandNames = map[CommandID]string{
	{Opcode: OpGetLogPage}:        "get-log-page",
	{Opcode: OpIdentify}:          "identify",
	{Opcode: OpAbort}:             "abort",
	{Opcode: OpSetFeatures}:       "set-features",
	{Opcode: OpGetFeatures}:       "get-features",
	{Opcode: OpAsyncEventRequest}: "async-event-request",
	{Opcode: OpKeepAlive}:         "keep-alive",
	{Opcode: OpDiscoveryInfoMgmt}: "discovery-info-mgmt",

	{Opcode: OpFabrics, FCType: FCPropertySet}: "property-set",
	{Opcode: OpFabrics, FCType: FCConnect}:     "connect",
	{Opcode: OpFabrics, FCType: FCPropertyGet}: "property-get",
	{Opcode: OpFabrics, FCType: FCAuthSend}:    "auth-send",
	{Opcode: OpFabrics, FCType: FCAuthReceive}: "auth-receive",
	{Opcode: OpFabrics, FCType: FCDisconnect}:  "disconnect",

	{Opcode: OpFlush, IO: true}:       "flush",
	{Opcode: OpWrite, IO: true}:       "write",
	{Opcode: OpRead, IO: true}:        "read",
	{Opcode: OpWriteZeroes, IO: true}: "write-zeroes",
	{Opcode: OpDSM, IO: true}:         "dataset-mgmt",
}

var commandIDs = inverse(commandNames)

// Names of commands that have none: one of these and the number.
const (
	unknownAdmin   = "admin-0x"
	unknownIO      = "io-0x"
	unknownFabrics = "fabrics-0x"
)

// CommandName names a command the way fault files and output do: "connect",
// "get-log-page", "read"; "admin-0x80" if it has no name here.
func CommandName(opcode uint8, fctype FCType, io bool) string {
	if opcode == OpFabrics {
		return CommandID{Opcode: opcode, FCType: fctype}.String()
	}
	return CommandID{Opcode: opcode, IO: io}.String()
}

func (id CommandID) String() string {
	if n, ok := commandNames[id]; ok {
		return n
	}
	switch {
	case id.Opcode == OpFabrics:
		return fmt.Sprintf("%s%02x", unknownFabrics, uint8(id.FCType))
	case id.IO:
		return fmt.Sprintf("%s%02x", unknownIO, id.Opcode)
	}
	return fmt.Sprintf("%s%02x", unknownAdmin, id.Opcode)
}

// ParseCommandName is the inverse of CommandName.
func ParseCommandName(s string) (CommandID, bool) {
	if id, ok := commandIDs[s]; ok {
		return id, true
	}
	for _, prefix := range []string{unknownAdmin, unknownIO, unknownFabrics} {
		digits, ok := strings.CutPrefix(s, prefix)
		if !ok {
			continue
		}
		v, err := strconv.ParseUint(digits, 16, 8)
		id := CommandID{Opcode: uint8(v), IO: prefix == unknownIO}
		if prefix == unknownFabrics {
			id = CommandID{Opcode: OpFabrics, FCType: FCType(v)}
		}
		return id, err == nil && id.String() == s // no second name for anything
	}
	return CommandID{}, false
}

// KnownCommand reports whether a command may be called so.
func KnownCommand(s string) bool {
	_, ok := ParseCommandName(s)
	return ok
}

// CommandNames returns the names there are, sorted.
func CommandNames() []string { return slices.Sorted(maps.Keys(commandIDs)) }

func inverse[K, V comparable](m map[K]V) map[V]K {
	inv := make(map[V]K, len(m))
	for k, v := range m {
		inv[v] = k
	}
	return inv
}
