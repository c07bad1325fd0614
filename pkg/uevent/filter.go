package uevent

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// offSubsystemHash is where a message of udev has the hash of its subsystem,
// big endian, so that uninterested sockets need not wake up.
const offSubsystemHash = 24

// subsystemFilter is a socket filter that lets pass what parseUdev is
// interested in. A host has many events, and few of NVMe controllers: the
// others would wake the daemon for nothing, and fill its socket in a storm.
func subsystemFilter() []unix.SockFilter {
	const accept, drop = 0xffffffff, 0
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	skipUnless := func(value uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jt: yes, Jf: no}
	}
	end := func(verdict uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: verdict}
	}
	return []unix.SockFilter{
		load(offMagic),
		skipUnless(udevMagic, 0, 4), // the parser complains of what is no message
		load(offSubsystemHash),
		skipUnless(murmur2("nvme", binary.NativeEndian), 2, 0),
		skipUnless(murmur2("fc", binary.NativeEndian), 1, 0),
		end(drop),
		end(accept),
	}
}

func attachFilter(fd int) error {
	filter := subsystemFilter()
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: unsafe.SliceData(filter)})
}

// murmur2 is the hash that udev puts into its messages: MurmurHash2 with seed
// 0 (systemd, string_hash32 in device-monitor.c), which reads four bytes at a
// time in the order of the machine, so that each kind of machine has its own.
func murmur2(s string, order binary.ByteOrder) uint32 {
	const m, r = 0x5bd1e995, 24
	h := uint32(len(s))
	b := []byte(s)
	for ; len(b) >= 4; b = b[4:] {
		k := order.Uint32(b) * m
		k ^= k >> r
		h = h*m ^ k*m
	}
	switch len(b) {
	case 3:
		h ^= uint32(b[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(b[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(b[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}
