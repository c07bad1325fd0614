package initiator

import (
	"context"
	"fmt"
	"math"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// Namespace is storage of an I/O controller.
type Namespace struct {
	ID        uint32
	BlockSize uint32 // bytes
	Blocks    uint64
}

// Namespace finds out about a namespace.
func (c *Controller) Namespace(ctx context.Context, nsid uint32) (Namespace, error) {
	buf := make([]byte, nvme.IdentifySize)
	if _, err := c.Do(ctx, nvme.Identify{CNS: nvme.CNSNamespace, NSID: nsid}.Command(), buf); err != nil {
		return Namespace{}, fmt.Errorf("namespace %d: %w", nsid, err)
	}
	id, err := nvme.DecodeIdentifyNamespace(buf)
	switch {
	case err != nil:
		return Namespace{}, fmt.Errorf("namespace %d: %w", nsid, err)
	case id.NSZE == 0:
		return Namespace{}, fmt.Errorf("there is no namespace %d", nsid)
	case id.BlockSize() == 0:
		return Namespace{}, fmt.Errorf("namespace %d has blocks of no known size", nsid)
	}
	return Namespace{ID: nsid, BlockSize: id.BlockSize(), Blocks: id.NSZE}, nil
}

// Queue is an I/O queue. It has a connection of its own, which ends with that
// of the Controller, and may be used by several goroutines.
type Queue struct {
	*queue
}

// ConnectIO connects up to n I/O queues; the controller may grant less. It is
// for calling once.
func (c *Controller) ConnectIO(ctx context.Context, n int) ([]*Queue, error) {
	value, err := c.SetFeatures(ctx, nvme.FeatureNumberOfQueues, nvme.QueueCount(uint16(min(n, math.MaxUint16))), nil)
	if err != nil {
		return nil, err
	}
	var queues []*Queue
	for id := range min(n, nvme.ParseQueueCount(value)) {
		q, err := c.connectIO(ctx, uint16(id+1))
		if err != nil {
			for _, q := range queues {
				q.Close()
			}
			return nil, fmt.Errorf("I/O queue %d: %w", id+1, err)
		}
		queues = append(queues, q)
	}
	return queues, nil
}

func (c *Controller) connectIO(ctx context.Context, qid uint16) (*Queue, error) {
	const entrySize = 16 // unit of IOCCSZ
	inCapsule := int64(c.identity.IOCCSz)*entrySize - nvme.CommandSize
	if inCapsule < 0 {
		return nil, fmt.Errorf("%w (IOCCSZ %d)", errNoRoom, c.identity.IOCCSz)
	}
	conn, ic, err := c.o.initialize(ctx)
	if err != nil {
		return nil, err
	}
	size := uint16(min(ioQueueSize, max(minQueueSize, nvme.CAPMaxEntries(c.cap))))
	q := &Queue{newQueue(conn, ic, size, int(min(inCapsule, maxTransfer)))}
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		q.Close()
		return nil, c.Err()
	}
	c.io = append(c.io, q)
	c.workers.Go(q.run)
	c.mu.Unlock()
	if _, err := c.connectQueue(ctx, q.queue, nvme.Connect{QID: qid, SQSize: size - 1}, c.id); err != nil {
		q.Close()
		return nil, err
	}
	return q, nil
}

// endIO closes the I/O queues for good.
func (c *Controller) endIO() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, q := range c.io {
		q.Close()
	}
	c.io, c.ended = nil, true
}

// Close closes the connection of the queue.
func (q *Queue) Close() { _ = q.end(ErrClosed) }

// Done is closed when the connection is over.
func (q *Queue) Done() <-chan struct{} { return q.over }

// Err returns why the connection is over, nil while it is not.
func (q *Queue) Err() error { return q.failure() }

// Do executes an I/O command and transfers data, whose direction is in the
// opcode. SGL and CID are for Do to fill.
func (q *Queue) Do(ctx context.Context, cmd nvme.Command, data []byte) (nvme.Completion, error) {
	return q.do(ctx, cmd, data)
}

// Read reads whole blocks from block lba on, as many as fill data.
func (q *Queue) Read(ctx context.Context, ns Namespace, lba uint64, data []byte) error {
	return q.transfer(ctx, "read", nvme.OpRead, ns, lba, data)
}

// Write writes whole blocks from block lba on.
func (q *Queue) Write(ctx context.Context, ns Namespace, lba uint64, data []byte) error {
	return q.transfer(ctx, "write", nvme.OpWrite, ns, lba, data)
}

// WriteZeroes makes blocks read as zeroes.
func (q *Queue) WriteZeroes(ctx context.Context, ns Namespace, lba uint64, blocks int) error {
	return q.blocks(ctx, "write zeroes", nvme.OpWriteZeroes, ns, lba, blocks, nil)
}

// Flush waits until what was written is safe.
func (q *Queue) Flush(ctx context.Context, ns Namespace) error {
	if _, err := q.Do(ctx, nvme.Command{Opcode: nvme.OpFlush, NSID: ns.ID}, nil); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

func (q *Queue) transfer(ctx context.Context, name string, opcode uint8, ns Namespace, lba uint64, data []byte) error {
	if ns.BlockSize == 0 || len(data)%int(ns.BlockSize) != 0 {
		return fmt.Errorf("%s: %d bytes are no blocks of %d", name, len(data), ns.BlockSize)
	}
	return q.blocks(ctx, name, opcode, ns, lba, len(data)/int(ns.BlockSize), data)
}

const maxBlocks = 1 << 16 // NLB has 16 bits and is zero's based

func (q *Queue) blocks(ctx context.Context, name string, opcode uint8, ns Namespace, lba uint64, n int, data []byte) error {
	if n < 1 || n > maxBlocks {
		return fmt.Errorf("%s: %d blocks, 1 to %d are allowed", name, n, maxBlocks)
	}
	_, err := q.Do(ctx, nvme.Command{
		Opcode: opcode, NSID: ns.ID,
		CDW10: uint32(lba), CDW11: uint32(lba >> 32), CDW12: uint32(n - 1),
	}, data)
	if err != nil {
		return fmt.Errorf("%s: %d blocks at %d: %w", name, n, lba, err)
	}
	return nil
}
