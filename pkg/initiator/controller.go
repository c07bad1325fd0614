package initiator

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nvme-stas/stas/pkg/nvme"
)

// Controller is a connection to a controller: its admin queue and, of an I/O
// controller, the queues of [Controller.ConnectIO]. It may be used by several
// goroutines.
//
// A refusal by the controller is an error for which [errors.Is] finds the
// [nvme.Status]. Contexts bound the waiting for an answer. A command whose
// context has ended may still be carried out.
type Controller struct {
	o            Options
	admin        *queue
	id           uint16
	cap          uint64
	version      uint32
	identity     nvme.IdentifyController
	transactions atomic.Uint32 // T_ID of the next authentication
	workers      sync.WaitGroup

	mu        sync.Mutex // guards what follows
	ended     bool       // the connection is over, and no worker may start
	listening bool
	io        []*Queue
}

// CC.CSS for the command sets of a controller that has more than one of them.
const ccAllCommandSets = 6 << 4

// How often CSTS is read, and for how long at least.
const (
	firstPoll  = 10 * time.Millisecond
	lastPoll   = 100 * time.Millisecond
	minTimeout = 500 * time.Millisecond // the unit of CAP.TO
)

// enable brings the controller to life (Base "Memory-based and Message-based
// Controller Initialization").
func (c *Controller) enable(ctx context.Context) error {
	var err error
	if c.cap, err = c.PropertyGet(ctx, nvme.PropCAP); err != nil {
		return err
	}
	if err := c.PropertySet(ctx, nvme.PropCC, c.config()); err != nil {
		return err
	}
	limited, cancel := context.WithTimeoutCause(ctx, max(nvme.CAPTimeout(c.cap), minTimeout), ErrNotReady)
	defer cancel()
	if err := c.waitStatus(limited, nvme.CSTSReady, nvme.CSTSReady); err != nil {
		return err
	}
	version, err := c.PropertyGet(ctx, nvme.PropVS)
	c.version = uint32(version)
	return err
}

// config returns CC of the enabled controller.
func (c *Controller) config() uint64 {
	cc := uint64(nvme.CCEntrySizes | nvme.CCEnable)
	if c.cap&nvme.CAPCommandSets != 0 {
		cc |= ccAllCommandSets
	}
	return cc
}

// waitStatus reads CSTS until the bits of mask are those of want.
func (c *Controller) waitStatus(ctx context.Context, mask, want uint64) error {
	for pause := firstPoll; ; pause = min(2*pause, lastPoll) {
		csts, err := c.PropertyGet(ctx, nvme.PropCSTS)
		switch {
		case err != nil:
			return err
		case csts&nvme.CSTSFatal != 0:
			return ErrControllerFatal
		case csts&mask == want:
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.admin.over:
			return c.admin.err
		}
	}
}

func (c *Controller) identify(ctx context.Context) error {
	id, err := c.Identify(ctx)
	switch {
	case err != nil:
		return err
	case id.CntlID != c.id:
		return fmt.Errorf("its CNTLID is %d, Connect said %d", id.CntlID, c.id)
	}
	c.identity = id
	return nil
}

// ID returns the controller ID, CNTLID.
func (c *Controller) ID() uint16 { return c.id }

// Capabilities returns the property CAP.
func (c *Controller) Capabilities() uint64 { return c.cap }

// Version returns the property VS.
func (c *Controller) Version() uint32 { return c.version }

// Identity returns what Identify Controller said when connecting.
func (c *Controller) Identity() nvme.IdentifyController { return c.identity }

// Do executes an admin command and transfers data, whose direction is in the
// opcode. SGL and CID are for Do to fill.
func (c *Controller) Do(ctx context.Context, cmd nvme.Command, data []byte) (nvme.Completion, error) {
	return c.admin.do(ctx, cmd, data)
}

// Identify asks for the Identify Controller data structure.
func (c *Controller) Identify(ctx context.Context) (nvme.IdentifyController, error) {
	buf := make([]byte, nvme.IdentifySize)
	if _, err := c.Do(ctx, nvme.Identify{CNS: nvme.CNSController}.Command(), buf); err != nil {
		return nvme.IdentifyController{}, err
	}
	return nvme.DecodeIdentifyController(buf)
}

// PropertyGet reads a property.
func (c *Controller) PropertyGet(ctx context.Context, offset uint32) (uint64, error) {
	cpl, err := c.Do(ctx, nvme.PropertyGet(nvme.Property{Offset: offset, Wide: offset == nvme.PropCAP}), nil)
	if err != nil {
		return 0, fmt.Errorf("property %#02x: %w", offset, err)
	}
	return cpl.Result, nil
}

// PropertySet writes a property.
func (c *Controller) PropertySet(ctx context.Context, offset uint32, value uint64) error {
	_, err := c.Do(ctx, nvme.PropertySet(nvme.Property{Offset: offset, Wide: offset == nvme.PropCAP, Value: value}), nil)
	if err != nil {
		return fmt.Errorf("property %#02x: %w", offset, err)
	}
	return nil
}

// LogPage fills buf with a part of a log page; its size goes for get.Length.
func (c *Controller) LogPage(ctx context.Context, get nvme.GetLogPage, buf []byte) error {
	get.Length = uint32(len(buf))
	cmd, err := get.Command()
	if err == nil {
		_, err = c.Do(ctx, cmd, buf)
	}
	if err != nil {
		return fmt.Errorf("log page %#02x: %w", get.LID, err)
	}
	return nil
}

// commandTimeout is how long a command may take that has no context; the
// kernel gives admin commands as much.
const commandTimeout = time.Minute

// GetLogPage fills buf with a part of a log page, within a minute. With it a
// Controller is a reader of logs as pkg/fabrics defines it.
func (c *Controller) GetLogPage(lid, lsp uint8, rae bool, offset uint64, buf []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	return c.LogPage(ctx, nvme.GetLogPage{LID: lid, LSP: lsp, RAE: rae, Offset: offset}, buf)
}

// ManageDiscovery registers, de-registers or updates discovery information.
func (c *Controller) ManageDiscovery(ctx context.Context, d nvme.DiscoveryInformation) error {
	data, err := d.AppendBinary(nil)
	if err == nil {
		_, err = c.Do(ctx, d.Command(), data)
	}
	if err != nil {
		return fmt.Errorf("%v discovery information: %w", d.Task, err)
	}
	return nil
}

// SetFeatures sets a feature, and returns what the controller made of it. Most
// features are set by value alone and have no data.
func (c *Controller) SetFeatures(ctx context.Context, fid uint8, value uint32, data []byte) (uint32, error) {
	cpl, err := c.Do(ctx, nvme.SetFeatures(fid, value), data)
	if err != nil {
		return 0, fmt.Errorf("set feature %#02x: %w", fid, err)
	}
	return uint32(cpl.Result), nil
}

// GetFeatures reads a feature, and the data that some have.
func (c *Controller) GetFeatures(ctx context.Context, fid uint8, data []byte) (uint32, error) {
	cpl, err := c.Do(ctx, nvme.GetFeatures(fid), data)
	if err != nil {
		return 0, fmt.Errorf("get feature %#02x: %w", fid, err)
	}
	return uint32(cpl.Result), nil
}

// eventBacklog is how many events wait for their reader. While there are as
// many the controller is not asked for more, and keeps them.
const eventBacklog = 16

// AsyncEvents enables events, AENConfig bits, and has them delivered. It can
// be called once. The channel is closed with the connection, or when the
// controller refuses to deliver.
//
// With 0 the configuration is left alone: a discovery controller to which one
// is connected with a KATO announces changes of its log anyway.
func (c *Controller) AsyncEvents(ctx context.Context, enable uint32) (<-chan nvme.AEN, error) {
	if enable != 0 {
		if _, err := c.SetFeatures(ctx, nvme.FeatureAsyncEvents, enable, nil); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended:
		return nil, c.Err()
	case c.listening:
		return nil, errListening
	}
	c.listening = true
	events := make(chan nvme.AEN, eventBacklog)
	c.workers.Go(func() { c.listen(events) })
	return events, nil
}

// listen keeps one Asynchronous Event Request with the controller.
func (c *Controller) listen(events chan<- nvme.AEN) {
	defer close(events)
	for {
		cpl, err := c.Do(context.Background(), nvme.Command{Opcode: nvme.OpAsyncEventRequest}, nil)
		if err != nil {
			return
		}
		select {
		case events <- nvme.AEN(cpl.Result):
		case <-c.admin.over:
			return
		}
	}
}

// keepAlive sends Keep Alive in time (Base "Keep Alive"), and ends the
// connection if the controller does not answer.
func (c *Controller) keepAlive() {
	tick := time.NewTicker(max(c.o.KATO/2, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.admin.over:
			return
		}
		ctx, cancel := context.WithTimeoutCause(context.Background(), c.o.KATO, ErrKeepAlive)
		_, err := c.Do(ctx, nvme.Command{Opcode: nvme.OpKeepAlive}, nil)
		cancel()
		if err != nil {
			_ = c.admin.end(fmt.Errorf("keep alive: %w", err))
			return
		}
	}
}

// Done is closed when the connection of the admin queue is over.
func (c *Controller) Done() <-chan struct{} { return c.admin.over }

// Err returns why the connection is over, nil while it is not.
func (c *Controller) Err() error { return c.admin.failure() }

// Disconnect shuts the controller down and closes all connections, also if the
// controller has none of it.
func (c *Controller) Disconnect(ctx context.Context) error {
	c.endIO()
	err := c.PropertySet(ctx, nvme.PropCC, c.config()|nvme.CCShutdownNormal)
	if err == nil {
		err = c.waitStatus(ctx, nvme.CSTSShutdownMask, nvme.CSTSShutdownComplete)
	}
	c.Close()
	if err != nil {
		return fmt.Errorf("shutting down the controller: %w", err)
	}
	return nil
}

// Close closes all connections without telling the controller, as a host does
// that dies. Commands under way end by ErrClosed.
func (c *Controller) Close() {
	_ = c.admin.end(ErrClosed)
	c.endIO()
	c.workers.Wait()
}
