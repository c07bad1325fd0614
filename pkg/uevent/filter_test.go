package uevent

import (
	"encoding/binary"
	"testing"
)

func TestMurmur2(t *testing.T) {
	// From the headers of messages that udevd 257 sent, of all lengths modulo 4.
	for s, want := range map[string]uint32{
		"vc": 0xf4ba3c14, "bdi": 0x2a1884a1, "leds": 0x2903c6c3, "block": 0xf0031db7,
		"module": 0x38e3a30f, "nvme-fabrics": 0xef0ce027, "container": 0xd2392310,
	} {
		if got := murmur2(s, binary.LittleEndian); got != want {
			t.Errorf("%s: %#x, want %#x", s, got, want)
		}
	}
	// What the same algorithm gives elsewhere, by another implementation of it.
	for s, want := range map[string]uint32{"nvme": 0x6fadb5d7, "fc": 0xcde03431, "block": 0xf272d586, "nvme-fabrics": 0xbb0bc97c} {
		if got := murmur2(s, binary.BigEndian); got != want {
			t.Errorf("%s, big endian: %#x, want %#x", s, got, want)
		}
	}
}

// TestFilter sends messages of several subsystems and receives those of two.
func TestFilter(t *testing.T) {
	inNamespace(t)
	c := mustListen(t, Listen)
	send := sender(t, groupUdev)
	// The filter goes by the hash: the parser would have taken this one.
	disguised := patched(udevMessage("ACTION=add", "DEVPATH=/x", "SUBSYSTEM=nvme"), offSubsystemHash, 0)
	if err := send(disguised); err != nil {
		t.Fatal(err)
	}
	for _, subsystem := range []string{"block", "nvme-subsystem", "nvme", "net", "fc", "nvme-generic", "nvme"} {
		if err := send(udevMessage("ACTION=change", "DEVPATH=/x", "SUBSYSTEM="+subsystem)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"nvme", "fc", "nvme"} {
		if e, err := c.Receive(t.Context()); err != nil || e.Subsystem != want || e.Action != "change" {
			t.Errorf("%s %q, %v, want change %s", e.Action, e.Subsystem, err, want)
		}
	}
}
