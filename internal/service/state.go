package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/nvme-stas/stas/internal/atomicfile"
)

// stateVersion is the version of the state file's format. A file of another
// version is ignored: a daemon starts well without one.
const stateVersion = 1

// StateFile keeps what a daemon has to know after a restart: the last known
// members of every source. It is readable by root alone, and at any moment
// either the old or the new one, whole.
type StateFile struct{ Path string }

type stateEnvelope struct {
	Version int             `json:"version"`
	State   json.RawMessage `json:"state"`
}

// Load reads the state. It reports [fs.ErrNotExist] if there is none.
func (f StateFile) Load(state any) error {
	data, err := os.ReadFile(f.Path)
	if err != nil {
		return err
	}
	var envelope stateEnvelope
	if err := json.Unmarshal(data, &envelope); err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	if envelope.Version != stateVersion {
		return fmt.Errorf("%s: version %d of the format is not known", f.Path, envelope.Version)
	}
	if err := json.Unmarshal(envelope.State, state); err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	return nil
}

// Save writes the state.
func (f StateFile) Save(state json.RawMessage) error {
	data, err := json.Marshal(stateEnvelope{stateVersion, state})
	if err != nil {
		return err
	}
	return atomicfile.Write(f.Path, data, 0o600)
}

// State is where a daemon keeps its state.
type State interface {
	Load(state any) error
	Save(state json.RawMessage) error
}

// Restore loads the state at start, and reports whether there is one. Damage
// costs the memory, not the service: what state holds then is of no use.
func (s *Service) Restore(state any) bool {
	var data json.RawMessage
	err := s.env.State.Load(&data)
	own := ownState{}
	if err == nil {
		err = errors.Join(json.Unmarshal(data, state), json.Unmarshal(data, &own))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the last known state cannot be used, starting without it", "error", err)
	}
	if err == nil {
		s.names.restore(own.Names)
	}
	return err == nil
}

// ownState is what the service adds to the state of its policy, which is a JSON
// object.
type ownState struct {
	Names namesState `json:"names,omitzero"`
}

// encode gives the state of policy and service in one object.
func (s *Service) encode(state any) (json.RawMessage, error) {
	data, err := json.Marshal(state)
	own, err2 := json.Marshal(ownState{s.names.state()})
	if err = errors.Join(err, err2); err != nil || len(own) == len("{}") {
		return data, err
	}
	if len(data) == len("{}") {
		return own, nil
	}
	return slices.Concat(own[:len(own)-1], []byte(","), data[1:]), nil
}

// Save writes the daemon's state soon. It belongs to the loop and does not
// block; of several states the last one counts.
func (s *Service) Save(state any) {
	data, err := s.encode(state)
	if err != nil {
		s.log.Error("cannot encode the state", "error", err)
		return
	}
	select {
	case <-s.unsaved: // overtaken
	default:
	}
	s.unsaved <- data
}

// saveStates writes what Save hands over, until ctx ends.
func (s *Service) saveStates(ctx context.Context) error {
	for {
		select {
		case data := <-s.unsaved:
			s.save(data)
		case <-ctx.Done():
			return nil
		}
	}
}

// saveLast writes what Save has handed over last, after the end of the loop.
func (s *Service) saveLast() {
	select {
	case data := <-s.unsaved:
		s.save(data)
	default:
	}
}

func (s *Service) save(data json.RawMessage) {
	if err := s.env.State.Save(data); err != nil {
		s.log.Error("cannot save the state; after a restart now, connections would not be recognised as ours", "error", err)
	}
}
