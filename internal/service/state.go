package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
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

// maxState bounds what is read, in bytes: a thousand discovery controllers with
// a hundred entries each take half of it.
const maxState = 128 << 20

// versionError says that a file was written by another version.
type versionError int

func (v versionError) Error() string {
	return fmt.Sprintf("version %d of the format is not known", int(v))
}

// Load reads the state. It reports [fs.ErrNotExist] if there is none.
func (f StateFile) Load(state any) error {
	file, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxState+1))
	if err != nil {
		return err
	}
	if len(data) > maxState {
		return fmt.Errorf("%s has more than %d bytes", f.Path, maxState)
	}
	var envelope stateEnvelope
	if err := json.Unmarshal(data, &envelope); err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	if envelope.Version != stateVersion {
		return fmt.Errorf("%s: %w", f.Path, versionError(envelope.Version))
	}
	if err := json.Unmarshal(envelope.State, state); err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	return nil
}

// SetAside keeps a file that Load could not use, for whoever can, and returns
// its new name: that of the version, so that going back to it finds it, or of
// something bad. There is one of each at most.
func (f StateFile) SetAside(why error) (string, error) {
	name := f.Path + ".bad"
	if v, ok := errors.AsType[versionError](why); ok && v > stateVersion {
		name = fmt.Sprintf("%s.v%d", f.Path, int(v))
		others, err := filepath.Glob(f.Path + ".v*")
		for _, other := range others {
			err = errors.Join(err, os.Remove(other))
		}
		if err != nil {
			return "", err
		}
	}
	return name, os.Rename(f.Path, name)
}

// Sweep removes what is left of writing by an instance that was killed.
func (f StateFile) Sweep() error { return atomicfile.Sweep(f.Path) }

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
		s.unusable = err
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

// tidyState sets aside what Restore could not use. Not earlier than now: until
// the daemon has its name on the bus, the file may be that of another instance.
func (s *Service) tidyState() {
	file, ok := s.env.State.(interface {
		SetAside(error) (string, error)
		Sweep() error
	})
	if !ok {
		return
	}
	if err := file.Sweep(); err != nil {
		s.log.Warn("cannot remove what an instance that was killed has left", "error", err)
	}
	if s.unusable == nil {
		return
	}
	if name, err := file.SetAside(s.unusable); err != nil {
		s.log.Warn("the state that cannot be used is overwritten", "error", err)
	} else {
		s.log.Warn("the state that cannot be used is kept as " + name)
	}
}

// saveStates writes what Save hands over, until ctx ends.
func (s *Service) saveStates(ctx context.Context) error {
	s.tidyState()
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
