package target

import (
	"encoding/binary"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// anaStatus is how commands fail by the ANA state of their namespace.
var anaStatus = map[nvme.ANAState]nvme.Status{
	nvme.ANAInaccessible:   nvme.StatusANAInaccessible,
	nvme.ANAPersistentLoss: nvme.StatusANAPersistentLoss,
	nvme.ANAChange:         nvme.StatusANATransition,
}

// reach finds the namespace of an I/O command.
func (r *request) reach() (*namespace, nvme.Status) {
	state := r.c.sub.state.Load()
	n := state.namespaces[r.cmd.NSID]
	if n == nil {
		return nil, nvme.StatusInvalidNamespace.WithDNR()
	}
	// Without DNR: the host is to try another path.
	return n, anaStatus[state.anaState(r.c.listener.Name, n.ANAGroup)]
}

// span finds the bytes that a command with SLBA and NLB speaks of.
func (r *request) span() (n *namespace, at, length uint64, status nvme.Status) {
	n, status = r.reach()
	if status != 0 {
		return nil, 0, 0, status
	}
	slba := uint64(r.cmd.CDW11)<<32 | uint64(r.cmd.CDW10)
	at, length, ok := n.span(slba, uint64(uint16(r.cmd.CDW12))+1)
	if !ok {
		return nil, 0, 0, nvme.StatusLBAOutOfRange.WithDNR()
	}
	return n, at, length, 0
}

func read(r *request) reply {
	n, at, length, status := r.span()
	switch {
	case status != 0:
		return reply{status: status}
	case length > maxTransfer || length != uint64(r.cmd.SGL.Length):
		return refuse(nvme.StatusSGLLengthInvalid)
	}
	data := make([]byte, length)
	n.read(at, data)
	return reply{data: data}
}

func write(r *request) reply {
	n, at, length, status := r.span()
	switch {
	case status != 0:
		return reply{status: status}
	case length != uint64(len(r.data)):
		return refuse(nvme.StatusSGLLengthInvalid)
	}
	n.write(at, r.data)
	return reply{}
}

func writeZeroes(r *request) reply {
	n, at, length, status := r.span()
	if status != 0 {
		return reply{status: status}
	}
	n.zero(at, length)
	return reply{}
}

// flush has nothing to do: memory is as lasting as it gets.
func flush(r *request) reply {
	if r.cmd.NSID == 0xffffffff {
		return reply{}
	}
	_, status := r.reach()
	return reply{status: status}
}

// deallocate gives memory back (NVM Command Set, "Dataset Management command").
// Ranges of 16 bytes: attributes, length in blocks, first block.
func deallocate(r *request) reply {
	const rangeSize, attributeDeallocate = 16, 1 << 2
	n, status := r.reach()
	if status != 0 {
		return reply{status: status}
	}
	count := int(uint8(r.cmd.CDW10)) + 1
	if len(r.data) < count*rangeSize {
		return refuse(nvme.StatusSGLLengthInvalid)
	}
	if r.cmd.CDW11&attributeDeallocate == 0 {
		return reply{} // hints
	}
	for i := range count {
		b := r.data[i*rangeSize:]
		at, length, ok := n.span(binary.LittleEndian.Uint64(b[8:]), uint64(binary.LittleEndian.Uint32(b[4:])))
		if !ok {
			return refuse(nvme.StatusLBAOutOfRange)
		}
		n.zero(at, length)
	}
	return reply{}
}
