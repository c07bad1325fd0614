package uevent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// The header of udev's messages (systemd, sd-device device-monitor.c,
// monitor_netlink_header); hashes for socket filters follow, see filter.go.
const (
	udevPrefix = "libudev\x00"
	udevMagic  = 0xfeedcafe

	offMagic      = 8 // big endian, all others in host order
	offHeaderSize = 12
	offPropsOff   = 16
	offPropsLen   = 20
	udevHeader    = 40
)

var errOtherSubsystem = errors.New("event of another subsystem")

// parseUdev reads a message of the udev group: a header, then the variables.
func parseUdev(b []byte) (Event, error) {
	if len(b) < udevHeader || !bytes.HasPrefix(b, []byte(udevPrefix)) {
		return Event{}, errors.New("not a message of udev")
	}
	if magic := binary.BigEndian.Uint32(b[offMagic:]); magic != udevMagic {
		return Event{}, fmt.Errorf("udev message with magic number %#x", magic)
	}
	size := uint64(binary.NativeEndian.Uint32(b[offHeaderSize:]))
	off := uint64(binary.NativeEndian.Uint32(b[offPropsOff:]))
	length := uint64(binary.NativeEndian.Uint32(b[offPropsLen:]))
	if size < udevHeader || off < size || off+length > uint64(len(b)) {
		return Event{}, fmt.Errorf("udev message of %d bytes claims a header of %d and %d bytes at %d", len(b), size, length, off)
	}
	return parseVariables(b[off : off+length])
}

// parseKernel reads a message of the kernel group: "action@devpath", then the
// variables, which repeat both (lib/kobject_uevent.c).
func parseKernel(b []byte) (Event, error) {
	title, variables, ok := bytes.Cut(b, []byte{0})
	if !ok || !bytes.Contains(title, []byte("@/")) {
		return Event{}, errors.New("not a message of the kernel")
	}
	return parseVariables(variables)
}

// parseVariables reads KEY=VALUE strings, each ended by a NUL. The subsystem
// is looked for first: a host has many events and few of NVMe.
func parseVariables(b []byte) (Event, error) {
	var e Event
	for key, value := range variables(b) {
		if string(key) == "SUBSYSTEM" {
			e.Subsystem = string(value)
			break
		}
	}
	if e.Subsystem != "nvme" && e.Subsystem != "fc" {
		return Event{}, errOtherSubsystem
	}
	e.Env = make(map[string]string)
	for key, value := range variables(b) {
		if _, twice := e.Env[string(key)]; !twice {
			e.Env[string(key)] = string(value)
		}
	}
	e.Action, e.DevPath = e.Env["ACTION"], e.Env["DEVPATH"]
	if e.Action == "" || e.DevPath == "" {
		return Event{}, errors.New("event without ACTION or DEVPATH")
	}
	// The kernel gives the bare name, udev the path.
	e.DevName = strings.TrimPrefix(e.Env["DEVNAME"], "/dev/")
	if s, ok := e.Env["SEQNUM"]; ok {
		var err error
		if e.Seqnum, err = strconv.ParseUint(s, 10, 64); err != nil {
			return Event{}, fmt.Errorf("event with SEQNUM %q", s)
		}
	}
	return e, nil
}

// variables splits at the first "=" only: values may contain more of them.
// What has no "=" or no name is no variable.
func variables(b []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		for field := range bytes.SplitSeq(b, []byte{0}) {
			key, value, ok := bytes.Cut(field, []byte{'='})
			if ok && len(key) > 0 && !yield(key, value) {
				return
			}
		}
	}
}
