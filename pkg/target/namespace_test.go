package target

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// TestNamespaceStore compares the sparse store with a flat one.
func TestNamespaceStore(t *testing.T) {
	const size = 4*chunk + 512
	n := newNamespace("nqn.2026-11.org.example:a", Namespace{ID: 1, Size: size, BlockSize: 512})
	flat := make([]byte, size)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 2000 {
		at := random.Uint64N(size)
		length := 1 + random.Uint64N(min(size-at, 3*chunk))
		switch random.IntN(3) {
		case 0:
			data := make([]byte, length)
			for j := range data {
				data[j] = byte(random.Uint32())
			}
			n.write(at, data)
			copy(flat[at:], data)
		case 1:
			n.zero(at, length)
			clear(flat[at : at+length])
		case 2:
			data := bytes.Repeat([]byte{0xee}, int(length))
			n.read(at, data)
			if !bytes.Equal(data, flat[at:at+length]) {
				t.Fatalf("step %d: %d bytes at %d differ", i, length, at)
			}
		}
	}
	n.zero(0, size)
	if used := n.used(); used > chunk { // the last chunk is never covered whole
		t.Errorf("after everything was zeroed it takes %v", used)
	}
}

func TestNamespaceSpan(t *testing.T) {
	n := newNamespace("nqn.2026-11.org.example:a", Namespace{ID: 1, Size: 1 << 20, BlockSize: 4096})
	for _, tc := range []struct {
		slba, blocks uint64
		ok           bool
	}{
		{0, 256, true}, {255, 1, true}, {256, 0, true}, {256, 1, false}, {0, 257, false},
		{1 << 63, 1 << 63, false}, {^uint64(0), 1, false}, {1, ^uint64(0), false},
	} {
		if at, length, ok := n.span(tc.slba, tc.blocks); ok != tc.ok || ok && (at != tc.slba*4096 || length != tc.blocks*4096) {
			t.Errorf("span(%d, %d) = %d, %d, %t", tc.slba, tc.blocks, at, length, ok)
		}
	}
}

// TestNamespaceIdentity: hosts drop namespaces whose names are not the same on
// all paths and over restarts, or are those of another subsystem.
func TestNamespaceIdentity(t *testing.T) {
	of := func(subsystem string, id uint32) [16]byte {
		return newNamespace(subsystem, Namespace{ID: id, Size: 4096, BlockSize: 512}).ids
	}
	if first, again := of("nqn.a", 1), of("nqn.a", 1); first != again {
		t.Error("the same namespace has two names")
	}
	if of("nqn.a", 1) == of("nqn.a", 2) || of("nqn.a", 1) == of("nqn.b", 1) {
		t.Error("two namespaces have the same name")
	}
	if serial("nqn.a") == serial("nqn.b") || len(serial("nqn.a")) != 20 {
		t.Errorf("serial number %q", serial("nqn.a"))
	}
}

func TestANAStates(t *testing.T) {
	s := newSubsystem(Subsystem{NQN: "nqn.a", Namespaces: []Namespace{
		{ID: 1, Size: 4096, BlockSize: 512, ANAGroup: 1}, {ID: 2, Size: 4096, BlockSize: 512, ANAGroup: 2},
	}})
	state := func(listener string, group uint32) nvme.ANAState { return s.state.Load().anaState(listener, group) }
	s.setANA(ANA{Listener: "a", Group: 2, State: nvme.ANAInaccessible})
	if state("a", 2) != nvme.ANAInaccessible || state("b", 2) != nvme.ANAOptimized || state("a", 1) != nvme.ANAOptimized {
		t.Error("a state on one listener is not that on one listener")
	}
	s.setANA(ANA{Group: 2, State: nvme.ANAChange})
	if state("a", 2) != nvme.ANAChange || state("b", 2) != nvme.ANAChange {
		t.Error("a state on all listeners is not that on all listeners")
	}
	groups := s.state.Load().anaGroups("a")
	if len(groups) != 2 || groups[1].ID != 2 || groups[1].State != nvme.ANAChange || groups[1].ChangeCount != 2 || len(groups[1].NSIDs) != 1 {
		t.Errorf("groups %+v", groups)
	}
}
