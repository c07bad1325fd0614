package fabrics

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// fakeLog is a controller's discovery log. before is called ahead of each
// command and may change the log or make the command fail.
type fakeLog struct {
	gen, claim uint64
	recFmt     uint16
	entries    []byte
	calls      []string
	before     func(call int, offset uint64) error
}

func newFakeLog(t *testing.T, n int) *fakeLog {
	t.Helper()
	l := &fakeLog{gen: 42}
	l.resize(t, n)
	return l
}

func (l *fakeLog) resize(t *testing.T, n int) {
	t.Helper()
	l.claim, l.entries = uint64(n), nil
	for i := range n {
		var err error
		l.entries, err = nvme.DiscoveryLogEntry{
			TrType: nvme.TCP, SubType: nvme.NVMSubsystem, SubNQN: fmt.Sprint("nqn.", i), TrAddr: "192.0.2.1",
		}.AppendBinary(l.entries)
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (l *fakeLog) GetLogPage(lid, lsp uint8, rae bool, offset uint64, buf []byte) error {
	l.calls = append(l.calls, fmt.Sprintf("%#x/%d rae=%t %d+%d", lid, lsp, rae, offset, len(buf)))
	if l.before != nil {
		if err := l.before(len(l.calls), offset); err != nil {
			return err
		}
	}
	page, err := nvme.DiscoveryLogHeader{GenCtr: l.gen, NumRec: l.claim, RecFmt: l.recFmt}.AppendBinary(nil)
	if err != nil {
		return err
	}
	page = append(page, l.entries...)
	clear(buf) // beyond the end there are zeroes
	if offset < uint64(len(page)) {
		copy(buf, page[offset:])
	}
	return nil
}

func TestReadDiscoveryLog(t *testing.T) {
	for _, n := range []int{0, 1, 3, 4, 5, 8, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			fake := newFakeLog(t, n)
			log, err := ReadDiscoveryLog(t.Context(), fake, nvme.LSPPortLocal)
			if err != nil || log.GenCtr != 42 || len(log.Entries) != n || len(log.Bad) != 0 {
				t.Fatalf("%d entries, %d bad, generation %d, %v", len(log.Entries), len(log.Bad), log.GenCtr, err)
			}
			for i, e := range log.Entries {
				if e.SubNQN != fmt.Sprint("nqn.", i) {
					t.Fatalf("entry %d is %q", i, e.SubNQN)
				}
			}
			if want := []string{"0x70/2 rae=false 0+20"}; n == 0 && strings.Join(fake.calls, "\n") != strings.Join(want, "\n") {
				t.Errorf("%q", fake.calls)
			}
		})
	}
}

func TestReadDiscoveryLogCommands(t *testing.T) {
	fake := newFakeLog(t, 9)
	if _, err := ReadDiscoveryLog(t.Context(), fake, 0); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"0x70/0 rae=false 0+20",
		"0x70/0 rae=true 1024+4096", "0x70/0 rae=true 5120+4096", "0x70/0 rae=false 9216+1024",
		"0x70/0 rae=false 0+20",
	}
	if strings.Join(fake.calls, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q", fake.calls)
	}
}

func TestReadDiscoveryLogChanges(t *testing.T) {
	fake := newFakeLog(t, 5)
	fake.before = func(call int, _ uint64) error {
		if call == 3 {
			fake.gen++
			fake.resize(t, 2)
		}
		return nil
	}
	log, err := ReadDiscoveryLog(t.Context(), fake, 0)
	if err != nil || log.GenCtr != 43 || len(log.Entries) != 2 {
		t.Errorf("%d entries of generation %d, %v", len(log.Entries), log.GenCtr, err)
	}

	fake = newFakeLog(t, 5)
	headers := 0
	fake.before = func(_ int, offset uint64) error {
		if offset == 0 {
			headers++
			fake.gen++
		}
		return nil
	}
	log, err = ReadDiscoveryLog(t.Context(), fake, 0)
	if !errors.Is(err, ErrGenerationMoved) || len(log.Entries) != 0 || headers != 2*maxRounds {
		t.Errorf("%d entries, %d headers, %v", len(log.Entries), headers, err)
	}
}

func TestReadDiscoveryLogRestart(t *testing.T) {
	fake := newFakeLog(t, 5)
	fake.before = func(call int, _ uint64) error {
		if call == 2 {
			return fmt.Errorf("wrapped: %w", nvme.Status(0x4190))
		}
		return nil
	}
	if log, err := ReadDiscoveryLog(t.Context(), fake, 0); err != nil || len(log.Entries) != 5 {
		t.Errorf("%d entries, %v", len(log.Entries), err)
	}
	fake = newFakeLog(t, 5)
	fake.before = func(int, uint64) error { return nvme.StatusDiscoverRestart }
	if log, err := ReadDiscoveryLog(t.Context(), fake, 0); !errors.Is(err, ErrGenerationMoved) || len(log.Entries) != 0 {
		t.Errorf("%d entries, %v", len(log.Entries), err)
	}
}

// Whatever fails, nothing is known of the log.
func TestReadDiscoveryLogFails(t *testing.T) {
	boom := errors.New("boom")
	for call := 1; call <= 4; call++ {
		fake := newFakeLog(t, 5)
		fake.before = func(n int, _ uint64) error {
			if n == call {
				return boom
			}
			return nil
		}
		log, err := ReadDiscoveryLog(t.Context(), fake, 0)
		if !errors.Is(err, boom) || len(log.Entries) != 0 || len(fake.calls) != call {
			t.Errorf("call %d: %d entries, %v, %d calls", call, len(log.Entries), err, len(fake.calls))
		}
	}

	fake := newFakeLog(t, 5)
	fake.before = func(n int, _ uint64) error { fake.claim = uint64(5 - n/4); return nil }
	if log, err := ReadDiscoveryLog(t.Context(), fake, 0); !errors.Is(err, ErrCountChanged) || len(log.Entries) != 0 {
		t.Errorf("%d entries, %v", len(log.Entries), err)
	}

	fake = newFakeLog(t, 5)
	fake.recFmt = 1
	if log, err := ReadDiscoveryLog(t.Context(), fake, 0); err == nil || len(log.Entries) != 0 {
		t.Errorf("unknown record format: %d entries, %v", len(log.Entries), err)
	}
}

func TestReadDiscoveryLogLies(t *testing.T) {
	for _, claim := range []uint64{MaxEntries + 1, 1 << 54, 1<<64 - 1} {
		fake := newFakeLog(t, 5)
		fake.claim = claim
		log, err := ReadDiscoveryLog(t.Context(), fake, 0)
		if !errors.Is(err, ErrTooManyEntries) || !strings.Contains(err.Error(), fmt.Sprint(claim)) || len(log.Entries) != 0 || len(fake.calls) != 1 {
			t.Errorf("%d entries, %v, %d calls", len(log.Entries), err, len(fake.calls))
		}
	}
	// A claim within bounds costs no more than what arrives before it breaks.
	boom := errors.New("boom")
	fake := newFakeLog(t, 5)
	fake.claim = MaxEntries
	fake.before = func(n int, _ uint64) error {
		if n == 3 {
			return boom
		}
		return nil
	}
	var start, end runtime.MemStats
	runtime.ReadMemStats(&start)
	if _, err := ReadDiscoveryLog(t.Context(), fake, 0); !errors.Is(err, boom) {
		t.Error(err)
	}
	runtime.ReadMemStats(&end)
	allocated := end.TotalAlloc - start.TotalAlloc
	if allocated > 1<<20 {
		t.Errorf("%d bytes for a few records", allocated)
	}
}

func TestReadDiscoveryLogBadEntries(t *testing.T) {
	fake := newFakeLog(t, 6)
	fake.entries[0*nvme.EntrySize+512] = 0x1b // in TRADDR
	fake.entries[5*nvme.EntrySize+256] = 0xff // in SUBNQN
	log, err := ReadDiscoveryLog(t.Context(), fake, 0)
	if err != nil || len(log.Entries) != 4 || len(log.Bad) != 2 {
		t.Fatalf("%d entries, %v, %v", len(log.Entries), log.Bad, err)
	}
	if !strings.Contains(log.Bad[0].Error(), "record 0") || !strings.Contains(log.Bad[1].Error(), "record 5") {
		t.Errorf("%v", log.Bad)
	}
}

func TestReadDiscoveryLogCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	fake := newFakeLog(t, 100)
	fake.before = func(n int, _ uint64) error {
		if n == 3 {
			cancel()
		}
		return nil
	}
	log, err := ReadDiscoveryLog(ctx, fake, 0)
	if !errors.Is(err, context.Canceled) || len(log.Entries) != 0 || len(fake.calls) != 3 {
		t.Errorf("%d entries, %v, %d calls", len(log.Entries), err, len(fake.calls))
	}
}
