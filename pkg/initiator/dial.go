package initiator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/nvme-stas/stas/pkg/dhchap"
	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmetcp"
)

// Probe finds out whether somebody speaks NVMe/TCP at an address: it opens a
// connection, exchanges ICReq and ICResp, and closes. Of the target's
// discovery or storage it learns nothing. Of the options, address, dialer and
// digests count. Failure is a [*StepError].
func Probe(ctx context.Context, o Options) (nvmetcp.ICResp, error) {
	o = o.withDefaults()
	conn, ic, err := o.initialize(ctx)
	if err != nil {
		return nvmetcp.ICResp{}, err
	}
	conn.Close()
	return *ic, nil
}

// initialize opens a connection and exchanges ICReq and ICResp (TCP
// "Connection Establishment").
func (o *Options) initialize(ctx context.Context) (*nvmetcp.Conn, *nvmetcp.ICResp, error) {
	nc, err := o.Dialer(ctx, "tcp", o.Address)
	if err != nil {
		return nil, nil, o.failed(StepTCP, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) }) // long ago
	conn, ic, err := o.exchangeIC(nc)
	if !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		nc.Close()
		return nil, nil, o.failed(StepInitialize, lost(err))
	}
	return conn, ic, nil
}

func (o *Options) failed(s Step, err error) error {
	return &StepError{Step: s, Address: o.Address, Err: err}
}

func (o *Options) exchangeIC(nc net.Conn) (*nvmetcp.Conn, *nvmetcp.ICResp, error) {
	conn := nvmetcp.NewConn(nc, nvmetcp.Host, nvmetcp.Limits{Data: maxTransfer})
	if err := conn.Write(&nvmetcp.ICReq{HeaderDigest: o.HeaderDigest, DataDigest: o.DataDigest}); err != nil {
		return nil, nil, err
	}
	pdu, err := conn.Read()
	if err != nil {
		return nil, nil, err
	}
	if term, ok := pdu.(*nvmetcp.TermReq); ok {
		return nil, nil, &TerminatedError{term.FES, term.FEI}
	}
	ic, ok := pdu.(*nvmetcp.ICResp)
	if !ok {
		return nil, nil, fmt.Errorf("%T came instead", pdu)
	}
	// Linux is no more tolerant.
	switch {
	case ic.CPDA != 0:
		return nil, nil, fmt.Errorf("ICResp: the controller wants data aligned (CPDA %d), which is not supported", ic.CPDA)
	case ic.HeaderDigest != o.HeaderDigest || ic.DataDigest != o.DataDigest:
		return nil, nil, fmt.Errorf("ICResp: header and data digest are %t and %t, wanted %t and %t",
			ic.HeaderDigest, ic.DataDigest, o.HeaderDigest, o.DataDigest)
	case ic.MaxH2CData < nvmetcp.MinMaxH2CData || ic.MaxH2CData%4 != 0:
		return nil, nil, fmt.Errorf("ICResp: MAXH2CDATA is %d", ic.MaxH2CData)
	}
	conn.SetDigests(ic.HeaderDigest, ic.DataDigest)
	return conn, ic, nil
}

// Dial connects to a controller, and enables and identifies it. The context
// bounds that and has no part in what follows. Failure is a [*StepError].
func Dial(ctx context.Context, o Options) (*Controller, error) {
	o = o.withDefaults()
	conn, ic, err := o.initialize(ctx)
	if err != nil {
		return nil, err
	}
	c := &Controller{o: o, admin: newQueue(conn, ic, o.QueueSize, nvmetcp.AdminInCapsule)}
	c.workers.Go(func() {
		c.admin.run()
		c.endIO()
	})
	for _, step := range []struct {
		name Step
		do   func(context.Context) error
	}{
		{StepConnect, c.connect}, {StepEnable, c.enable}, {StepIdentify, c.identify},
	} {
		if err := step.do(ctx); err != nil {
			c.Close()
			if _, named := errors.AsType[*StepError](err); named {
				return nil, err
			}
			return nil, o.failed(step.name, err)
		}
	}
	if o.KATO > 0 {
		c.workers.Go(c.keepAlive)
	}
	return c, nil
}

// connect makes the admin queue a queue of a controller.
func (c *Controller) connect(ctx context.Context) error {
	result, err := c.connectQueue(ctx, c.admin, nvme.Connect{SQSize: c.o.QueueSize - 1, KATO: c.o.KATO}, nvme.CntlIDDynamic)
	c.id = result.CntlID()
	return err
}

// connectQueue sends the Connect command of a queue, and authenticates if the
// controller wants that.
func (c *Controller) connectQueue(ctx context.Context, q *queue, connect nvme.Connect, cntlID uint16) (nvme.ConnectResult, error) {
	data, err := nvme.ConnectData{
		HostID: c.o.HostID, CntlID: cntlID, SubNQN: c.o.SubNQN, HostNQN: c.o.HostNQN,
	}.AppendBinary(nil)
	if err != nil {
		return 0, c.o.failed(StepConnect, err)
	}
	cpl, err := q.do(ctx, connect.Command(), data)
	result := nvme.ConnectResult(cpl.Result)
	if cpl.Status != 0 {
		err = &ConnectError{Status: cpl.Status, Result: result}
	}
	if err != nil {
		return 0, c.o.failed(StepConnect, err)
	}
	if result.ATR() || result.ASCR() {
		if err := c.authenticate(ctx, q, result); err != nil {
			return 0, c.o.failed(StepAuthenticate, err)
		}
	}
	return result, nil
}

// authRoom is the room for a message of the controller. The longest is a
// DH-HMAC-CHAP_Challenge in the largest group, with 1104 bytes.
const authRoom = 4096

// authenticate is a DH-HMAC-CHAP transaction. Each queue has its own (Base
// "NVMe In-band Authentication").
func (c *Controller) authenticate(ctx context.Context, q *queue, result nvme.ConnectResult) error {
	switch {
	case result.ASCR():
		return ErrSecureChannel
	case c.o.HostKey.IsZero():
		return ErrNoKey
	}
	host := dhchap.NewHost(dhchap.HostConfig{
		HostNQN: c.o.HostNQN, SubNQN: c.o.SubNQN, Key: c.o.HostKey, ControllerKey: c.o.ControllerKey,
		TID: uint16(c.transactions.Add(1) - 1), Hashes: c.o.Hashes, Groups: c.o.Groups,
	})
	room := make([]byte, authRoom)
	for received := []byte(nil); ; received = room {
		message, done, err := host.Next(received)
		if len(message) > 0 {
			send := nvme.AuthSend(nvme.AuthParams{Length: uint32(len(message))})
			if _, errSend := q.do(ctx, send, message); errSend != nil && err == nil {
				err = fmt.Errorf("authentication send: %w", errSend)
			}
		}
		if err != nil || done {
			return err
		}
		clear(room)
		if _, err := q.do(ctx, nvme.AuthReceive(nvme.AuthParams{Length: authRoom}), room); err != nil {
			return fmt.Errorf("authentication receive: %w", err)
		}
	}
}
