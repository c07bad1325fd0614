package uevent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
)

var aen = []string{
	"ACTION=change", "DEVPATH=/devices/virtual/nvme-fabrics/ctl/nvme3", "SUBSYSTEM=nvme", "NVME_AEN=0x70f002",
	"DEVNAME=/dev/nvme3", "NVME_TRTYPE=tcp", "NVME_TRADDR=192.0.2.1", "ID_ODD=a=b==c", "SEQNUM=1234",
}

// udevMessage builds a message the way udevd does.
func udevMessage(variables ...string) []byte {
	var props []byte
	for _, v := range variables {
		props = append(append(props, v...), 0)
	}
	b := make([]byte, udevHeader, udevHeader+len(props))
	copy(b, udevPrefix)
	binary.BigEndian.PutUint32(b[offMagic:], udevMagic)
	binary.NativeEndian.PutUint32(b[offHeaderSize:], udevHeader)
	binary.NativeEndian.PutUint32(b[offPropsOff:], udevHeader)
	binary.NativeEndian.PutUint32(b[offPropsLen:], uint32(len(props)))
	for _, v := range variables {
		if subsystem, ok := strings.CutPrefix(v, "SUBSYSTEM="); ok {
			binary.BigEndian.PutUint32(b[offSubsystemHash:], murmur2(subsystem, binary.NativeEndian))
		}
	}
	return append(b, props...)
}

func kernelMessage(title string, variables ...string) []byte {
	b := append([]byte(title), 0)
	for _, v := range variables {
		b = append(append(b, v...), 0)
	}
	return b
}

// patched changes one 32-bit field of the header.
func patched(b []byte, off int, v uint32) []byte {
	b = bytes.Clone(b)
	binary.NativeEndian.PutUint32(b[off:], v)
	return b
}

func swapped(b []byte, off int) []byte {
	b = bytes.Clone(b)
	slices.Reverse(b[off : off+4])
	return b
}

func checkAEN(t *testing.T, e Event, err error) {
	t.Helper()
	if err != nil || e.Action != "change" || e.DevPath != "/devices/virtual/nvme-fabrics/ctl/nvme3" || e.Subsystem != "nvme" ||
		e.DevName != "nvme3" || e.Seqnum != 1234 || e.Env["NVME_AEN"] != "0x70f002" || e.Env["ID_ODD"] != "a=b==c" || len(e.Env) != len(aen) {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestParseUdev(t *testing.T) {
	e, err := parseUdev(udevMessage(aen...))
	checkAEN(t, e, err)

	// A longer header of a later version is stepped over.
	b := udevMessage(aen...)
	longer := append(bytes.Clone(b[:udevHeader]), make([]byte, 8)...)
	longer = append(longer, b[udevHeader:]...)
	e, err = parseUdev(patched(patched(longer, offHeaderSize, udevHeader+8), offPropsOff, udevHeader+8))
	checkAEN(t, e, err)
}

func TestParseKernel(t *testing.T) {
	variables := strings.Split(strings.ReplaceAll(strings.Join(aen, "\n"), "/dev/nvme3", "nvme3"), "\n")
	e, err := parseKernel(kernelMessage("change@/devices/virtual/nvme-fabrics/ctl/nvme3", variables...))
	checkAEN(t, e, err)
}

func TestParseFC(t *testing.T) {
	e, err := parseUdev(udevMessage("ACTION=change", "DEVPATH=/devices/virtual/fc/fc_udev_device", "SUBSYSTEM=fc", "FC_EVENT=nvmediscovery"))
	if err != nil || e.Env["FC_EVENT"] != "nvmediscovery" || e.DevName != "" || e.Seqnum != 0 {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestParseHostile(t *testing.T) {
	good := udevMessage(aen...)
	end := uint32(len(good))
	for name, b := range map[string][]byte{
		"empty":                    nil,
		"prefix alone":             []byte(udevPrefix),
		"header less one byte":     good[:udevHeader-1],
		"header alone":             good[:udevHeader],
		"another prefix":           append([]byte("libuser\x00"), good[8:]...),
		"magic in the wrong order": swapped(good, offMagic),
		"magic 0":                  patched(good, offMagic, 0),
		"small header":             patched(good, offHeaderSize, 8),
		"huge header":              patched(good, offHeaderSize, 1<<32-1),
		"offset in the header":     patched(good, offPropsOff, 8),
		"offset beyond the end":    patched(good, offPropsOff, end+1),
		"huge offset":              patched(good, offPropsOff, 1<<32-1),
		"length beyond the end":    patched(good, offPropsLen, end-udevHeader+1),
		"huge length":              patched(good, offPropsLen, 1<<32-1),
		"both huge":                patched(patched(good, offPropsLen, 1<<32-1), offPropsOff, 1<<32-1),
		"no properties":            patched(good, offPropsLen, 0),
		"properties at the end":    patched(patched(good, offPropsOff, end), offPropsLen, 0),
		"no = at all":              udevMessage("ACTION", "DEVPATH", "SUBSYSTEM"),
		"no action":                udevMessage(aen[1:]...),
		"no subsystem":             udevMessage("ACTION=add", "DEVPATH=/x"),
		"bad sequence number":      udevMessage("ACTION=add", "DEVPATH=/x", "SUBSYSTEM=nvme", "SEQNUM=-1"),
		"another subsystem":        udevMessage("ACTION=add", "DEVPATH=/x", "SUBSYSTEM=block", "X=SUBSYSTEM=nvme"),
		"two subsystems":           udevMessage("ACTION=add", "DEVPATH=/x", "SUBSYSTEM=block", "SUBSYSTEM=nvme"),
		"message of the kernel":    kernelMessage("change@/devices/x", aen...),
	} {
		if e, err := parseUdev(b); err == nil {
			t.Errorf("%s: %+v", name, e)
		}
	}
	for name, b := range map[string][]byte{
		"empty":           nil,
		"no NUL":          []byte("add@/devices/x"),
		"no @":            kernelMessage("add", aen...),
		"no variables":    kernelMessage("add@/devices/x"),
		"message of udev": good,
	} {
		if e, err := parseKernel(b); err == nil {
			t.Errorf("kernel, %s: %+v", name, e)
		}
	}
}

func TestParseOddVariables(t *testing.T) {
	e, err := parseUdev(udevMessage("=x", "", "junk", "ACTION=add", "ACTION=remove", "DEVPATH=/x@y", "SUBSYSTEM=nvme", "EMPTY="))
	if err != nil || e.Action != "add" || e.DevPath != "/x@y" || len(e.Env) != 4 {
		t.Errorf("%+v, %v", e, err)
	}
	// The last variable may lack its NUL.
	e, err = parseUdev(patched(udevMessage(aen...)[:udevHeader+20], offPropsLen, 20))
	if !errors.Is(err, errOtherSubsystem) {
		t.Errorf("%+v, %v", e, err)
	}
}

func FuzzParseUdev(f *testing.F) {
	good := udevMessage(aen...)
	f.Add(good)
	f.Add(patched(good, offPropsOff, 1<<32-1))
	f.Add(patched(good, offPropsLen, 1<<32-1))
	f.Add([]byte(udevPrefix))
	f.Fuzz(func(t *testing.T, b []byte) { checkFuzzed(t, parseUdev, b) })
}

func FuzzParseKernel(f *testing.F) {
	f.Add(kernelMessage("change@/devices/x", aen...))
	f.Add([]byte("add@/"))
	f.Fuzz(func(t *testing.T, b []byte) { checkFuzzed(t, parseKernel, b) })
}

func checkFuzzed(t *testing.T, parse func([]byte) (Event, error), b []byte) {
	b = bytes.Clone(b)
	e, err := parse(b)
	if err != nil {
		return
	}
	if e.Action == "" || e.DevPath == "" || e.Subsystem != "nvme" && e.Subsystem != "fc" {
		t.Errorf("%+v", e)
	}
	// The buffer is used again for the next message: nothing may point there.
	before := strings.Clone(e.DevPath)
	clear(b)
	if e.DevPath != before {
		t.Error("the event points into the buffer")
	}
}
