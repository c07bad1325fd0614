package fabrics

import (
	"context"
	"errors"
	"fmt"

	"github.com/nvme-stas/stas/pkg/nvme"
)

const (
	// MaxEntries bounds a discovery log. Port IDs have 16 bits, and a fabric
	// whose every port number names a path is far beyond what a host can
	// connect to; a controller that claims more is broken or hostile.
	MaxEntries = 1<<16 - 1

	// maxRounds is how often a log that changes under the reader is read.
	maxRounds = 10

	// chunkSize is what any controller can transfer in one command.
	chunkSize = 4096
)

// Failures of ReadDiscoveryLog that are not those of a single command.
var (
	ErrGenerationMoved = errors.New("the discovery log keeps changing while it is read")
	ErrCountChanged    = errors.New("the number of records changed, the generation did not")
	ErrTooManyEntries  = errors.New("too many records")
)

// LogReader reads parts of a controller's log pages.
type LogReader interface {
	// GetLogPage fills buf from offset. With rae the reading does not re-arm
	// the asynchronous event that goes with the log page.
	GetLogPage(lid, lsp uint8, rae bool, offset uint64, buf []byte) error
}

// ReadDiscoveryLog reads the whole Discovery log page, as of one moment. An
// error means that nothing is known of the log, least of all that it is empty.
// Single entries that make no sense do not spoil the others: see
// DiscoveryLog.Bad.
//
// The generation counter is read before and after the entries, as the
// specification wants it (Base "Discovery Log Page"); a change in between
// starts another round.
func ReadDiscoveryLog(ctx context.Context, r LogReader, lsp uint8) (nvme.DiscoveryLog, error) {
	for range maxRounds {
		log, err := readRound(ctx, r, lsp)
		if errors.Is(err, ErrGenerationMoved) || errors.Is(err, nvme.StatusDiscoverRestart) {
			continue
		}
		return log, err
	}
	return nvme.DiscoveryLog{}, fmt.Errorf("%w, %d times in a row", ErrGenerationMoved, maxRounds)
}

// readRound reads the log once; ErrGenerationMoved if it changed meanwhile.
func readRound(ctx context.Context, r LogReader, lsp uint8) (nvme.DiscoveryLog, error) {
	before, err := readHeader(ctx, r, lsp)
	if err != nil {
		return nvme.DiscoveryLog{}, err
	}
	log := nvme.DiscoveryLog{GenCtr: before.GenCtr}
	if before.NumRec == 0 {
		return log, nil
	}
	// Nothing is allocated on the word of the header: the log grows with what
	// really arrives.
	var chunk [chunkSize]byte
	total := before.NumRec * nvme.EntrySize
	for at := uint64(0); at < total; at += chunkSize {
		if err := ctx.Err(); err != nil {
			return nvme.DiscoveryLog{}, err
		}
		part := chunk[:min(chunkSize, total-at)]
		clear(part)
		last := at+chunkSize >= total
		if err := r.GetLogPage(nvme.LogDiscovery, lsp, !last, nvme.LogHeaderSize+at, part); err != nil {
			return nvme.DiscoveryLog{}, fmt.Errorf("discovery log at record %d: %w", at/nvme.EntrySize, err)
		}
		for i := 0; i < len(part); i += nvme.EntrySize {
			e, err := nvme.DecodeLogEntry(part[i:])
			if err != nil {
				log.Bad = append(log.Bad, fmt.Errorf("record %d: %w", (at+uint64(i))/nvme.EntrySize, err))
				continue
			}
			log.Entries = append(log.Entries, e)
		}
	}
	after, err := readHeader(ctx, r, lsp)
	switch {
	case err != nil:
		return nvme.DiscoveryLog{}, err
	case after.GenCtr != before.GenCtr:
		return nvme.DiscoveryLog{}, ErrGenerationMoved
	case after.NumRec != before.NumRec:
		return nvme.DiscoveryLog{}, fmt.Errorf("discovery log: %w: %d, then %d", ErrCountChanged, before.NumRec, after.NumRec)
	}
	return log, nil
}

// readHeader reads the header in a way that counts as having read the log:
// only then does the controller announce the next change.
func readHeader(ctx context.Context, r LogReader, lsp uint8) (nvme.DiscoveryLogHeader, error) {
	if err := ctx.Err(); err != nil {
		return nvme.DiscoveryLogHeader{}, err
	}
	var buf [nvme.LogHeaderUsed]byte
	if err := r.GetLogPage(nvme.LogDiscovery, lsp, false, 0, buf[:]); err != nil {
		return nvme.DiscoveryLogHeader{}, fmt.Errorf("discovery log header: %w", err)
	}
	h, err := nvme.DecodeLogHeader(buf[:])
	switch {
	case err != nil:
		return nvme.DiscoveryLogHeader{}, err
	case h.RecFmt != 0:
		return nvme.DiscoveryLogHeader{}, fmt.Errorf("discovery log: unknown record format %d", h.RecFmt)
	case h.NumRec > MaxEntries:
		return nvme.DiscoveryLogHeader{}, fmt.Errorf("discovery log: %w: the controller claims %d, %d are allowed", ErrTooManyEntries, h.NumRec, MaxEntries)
	}
	return h, nil
}
