package target

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// subsystem is an NVM subsystem. The lock of the target guards it, but for its
// state, which commands read without a lock.
type subsystem struct {
	Subsystem
	withdrawn bool
	state     atomic.Pointer[subsystemState]
}

// subsystemState is what commands look at; it is replaced, never changed.
type subsystemState struct {
	namespaces map[uint32]*namespace
	ids        []uint32 // of the namespaces, ascending
	ana        map[anaKey]nvme.ANAState
	anaChanges uint64
}

type anaKey struct {
	listener string
	group    uint32
}

func newSubsystem(s Subsystem) *subsystem {
	sub := &subsystem{Subsystem: s}
	state := &subsystemState{namespaces: make(map[uint32]*namespace), ana: make(map[anaKey]nvme.ANAState)}
	for _, n := range s.Namespaces {
		state.namespaces[n.ID] = newNamespace(s.NQN, n)
	}
	for _, a := range s.ANA {
		state.ana[anaKey{a.Listener, max(a.Group, 1)}] = a.State
	}
	state.ids = slices.Sorted(maps.Keys(state.namespaces))
	sub.state.Store(state)
	return sub
}

// offeredOn reports whether a listener shows the subsystem.
func (s *subsystem) offeredOn(listener string) bool {
	return !s.withdrawn && (len(s.Listeners) == 0 || slices.Contains(s.Listeners, listener))
}

// admits reports whether a host may connect.
func (s *subsystem) admits(host string) bool {
	return len(s.Hosts) == 0 || slices.Contains(s.Hosts, host)
}

// edit replaces the state by a changed copy.
func (s *subsystem) edit(do func(*subsystemState)) {
	old := s.state.Load()
	state := &subsystemState{
		namespaces: maps.Clone(old.namespaces),
		ana:        maps.Clone(old.ana),
		anaChanges: old.anaChanges,
	}
	do(state)
	state.ids = slices.Sorted(maps.Keys(state.namespaces))
	s.state.Store(state)
}

func (s *subsystem) addNamespace(n Namespace) error {
	ids := s.state.Load().ids
	next := uint32(1)
	if len(ids) > 0 {
		next = ids[len(ids)-1] + 1
	}
	if err := n.check(next); err != nil {
		return fmt.Errorf("subsystem %s: %w", s.NQN, err)
	}
	if slices.Contains(ids, n.ID) {
		return fmt.Errorf("subsystem %s: namespace %d: %w", s.NQN, n.ID, ErrExists)
	}
	s.edit(func(state *subsystemState) { state.namespaces[n.ID] = newNamespace(s.NQN, n) })
	return nil
}

func (s *subsystem) removeNamespace(id uint32) error {
	if s.state.Load().namespaces[id] == nil {
		return fmt.Errorf("subsystem %s: namespace %d: %w", s.NQN, id, ErrNotFound)
	}
	s.edit(func(state *subsystemState) { delete(state.namespaces, id) })
	return nil
}

func (s *subsystem) setANA(a ANA) {
	s.edit(func(state *subsystemState) {
		state.ana[anaKey{a.Listener, max(a.Group, 1)}] = a.State
		state.anaChanges++
		if a.Listener != "" {
			return
		}
		// All listeners: what was said of single ones is over.
		maps.DeleteFunc(state.ana, func(k anaKey, _ nvme.ANAState) bool {
			return k.listener != "" && k.group == max(a.Group, 1)
		})
	})
}

// anaState returns the state of a group as a listener's controllers see it.
func (s *subsystemState) anaState(listener string, group uint32) nvme.ANAState {
	for _, k := range []anaKey{{listener, group}, {"", group}} {
		if state, ok := s.ana[k]; ok {
			return state
		}
	}
	return nvme.ANAOptimized
}

// anaGroups returns the groups of namespaces with their members.
func (s *subsystemState) anaGroups(listener string) []nvme.ANAGroup {
	members := make(map[uint32][]uint32)
	for _, id := range s.ids {
		group := s.namespaces[id].ANAGroup
		members[group] = append(members[group], id)
	}
	var groups []nvme.ANAGroup
	for _, id := range slices.Sorted(maps.Keys(members)) {
		groups = append(groups, nvme.ANAGroup{
			ID: id, ChangeCount: s.anaChanges, State: s.anaState(listener, id), NSIDs: members[id],
		})
	}
	return groups
}
