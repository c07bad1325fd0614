package target

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/nvme-stas/stas/pkg/nvme"
)

const (
	maxNamespaces = 1024
	maxANAGroups  = 128

	// chunk is the unit in which a namespace takes memory.
	chunk = 64 << 10
)

// namespace is storage in memory. What was never written, or was written with
// zeroes by command, takes none and reads as zeroes.
type namespace struct {
	Namespace
	ids [16]byte // UUID and NGUID: of subsystem and ID, so that paths and restarts agree

	mu     sync.RWMutex
	chunks map[uint64]*[chunk]byte // by offset / chunk
}

func newNamespace(subsystem string, n Namespace) *namespace {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s namespace %d", subsystem, n.ID))
	ids := [16]byte(sum[:16])
	ids[6] = ids[6]&0x0f | 0x80 // UUID version 8: made by an algorithm of its own (RFC 9562)
	ids[8] = ids[8]&0x3f | 0x80
	return &namespace{Namespace: n, ids: ids, chunks: make(map[uint64]*[chunk]byte)}
}

func (n *namespace) blocks() uint64 { return uint64(n.Size) / uint64(n.BlockSize) }

// span turns logical blocks into bytes; false if they are not all there.
func (n *namespace) span(slba, blocks uint64) (at, length uint64, ok bool) {
	if slba > n.blocks() || blocks > n.blocks()-slba {
		return 0, 0, false
	}
	return slba * uint64(n.BlockSize), blocks * uint64(n.BlockSize), true
}

// each calls do for the parts of chunks that a range of bytes consists of.
func each(at, length uint64, do func(number, from, to uint64)) {
	for end := at + length; at < end; {
		from := at % chunk
		to := min(chunk, from+end-at)
		do(at/chunk, from, to)
		at += to - from
	}
}

func (n *namespace) read(at uint64, p []byte) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	each(at, uint64(len(p)), func(number, from, to uint64) {
		if c := n.chunks[number]; c != nil {
			copy(p, c[from:to])
		} else {
			clear(p[:to-from])
		}
		p = p[to-from:]
	})
}

func (n *namespace) write(at uint64, p []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	each(at, uint64(len(p)), func(number, from, to uint64) {
		c := n.chunks[number]
		if c == nil {
			c = new([chunk]byte)
			n.chunks[number] = c
		}
		copy(c[from:to], p)
		p = p[to-from:]
	})
}

func (n *namespace) zero(at, length uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	each(at, length, func(number, from, to uint64) {
		if from == 0 && to == chunk {
			delete(n.chunks, number)
		} else if c := n.chunks[number]; c != nil {
			clear(c[from:to])
		}
	})
}

// used returns how many bytes of memory the namespace takes.
func (n *namespace) used() Size {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return Size(len(n.chunks) * chunk)
}

// identify returns the Identify Namespace data structure (NVM Command Set,
// "Identify Namespace").
func (n *namespace) identify(shared bool) nvme.IdentifyNamespace {
	shift := uint8(9)
	if n.BlockSize == 4096 {
		shift = 12
	}
	id := nvme.IdentifyNamespace{
		NSZE: n.blocks(), NCAP: n.blocks(), NUSE: n.blocks(),
		ANAGrpID: n.ANAGroup, NGUID: n.ids,
		LBAFormats: []nvme.LBAFormat{{DataShift: shift}},
	}
	if shared {
		id.NMIC = 1
	}
	return id
}

// descriptors returns the Namespace Identification Descriptor list.
func (n *namespace) descriptors() []nvme.NamespaceDescriptor {
	return []nvme.NamespaceDescriptor{
		{Type: nvme.NIDUUID, ID: n.ids[:]},
		{Type: nvme.NIDNGUID, ID: n.ids[:]},
	}
}

// serial makes a serial number of a name, so that it survives a restart.
func serial(name string) string {
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprintf("STAS%016X", binary.BigEndian.Uint64(sum[:]))
}
