package initiator

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/nvme-stas/stas/pkg/nvme"
	"github.com/nvme-stas/stas/pkg/nvmetcp"
)

// Errors that say why a connection is over, or never was.
var (
	ErrClosed          = errors.New("the connection was closed by this host")
	ErrLost            = errors.New("the controller closed the connection")
	ErrKeepAlive       = errors.New("the controller does not answer Keep Alive")
	ErrNotReady        = errors.New("the controller does not get ready in the time that it gave itself (CAP.TO)")
	ErrControllerFatal = errors.New("the controller reports a fatal error (CSTS.CFS)")
	ErrNoKey           = errors.New("the controller wants authentication, and there is no key")
	ErrSecureChannel   = errors.New("the controller wants a secure channel, which is not supported")
)

var (
	errListening = errors.New("asynchronous events are being delivered already")
	errNoRoom    = errors.New("the controller's capsules have no room for a command")
)

// Step is a stage of connecting.
type Step string

// The steps, in their order.
const (
	StepTCP          Step = "opening the connection"
	StepInitialize   Step = "waiting for ICResp"
	StepConnect      Step = "Connect command"
	StepAuthenticate Step = "authentication"
	StepEnable       Step = "enabling the controller"
	StepIdentify     Step = "Identify Controller"
)

// StepError is a connection that did not come about.
type StepError struct {
	Step    Step
	Address string
	Err     error
}

func (e *StepError) Unwrap() error { return e.Err }

func (e *StepError) Error() string {
	return fmt.Sprintf("connecting to %s: %s: %v", e.Address, e.Step, e.Err)
}

// ConnectError is a Connect command that was refused. [errors.Is] compares its
// status.
type ConnectError struct {
	Status nvme.Status
	Result nvme.ConnectResult
}

func (e *ConnectError) Unwrap() error { return e.Status }

// What a controller may find fault with, by offset: fields of the command and
// of its data.
var (
	connectFields = map[uint16]string{
		nvme.ConnectOffRecFmt: "RECFMT", nvme.ConnectOffQID: "QID", nvme.ConnectOffSQSize: "SQSIZE",
		nvme.ConnectOffCAttr: "CATTR", nvme.ConnectOffKATO: "KATO",
	}
	connectDataFields = map[uint16]string{
		nvme.ConnectDataOffHostID: "HOSTID", nvme.ConnectDataOffCntlID: "CNTLID",
		nvme.ConnectDataOffSubNQN: "SUBNQN", nvme.ConnectDataOffHostNQN: "HOSTNQN",
	}
)

func (e *ConnectError) Error() string {
	if !errors.Is(e.Status, nvme.StatusConnectInvalidParameters) {
		return e.Status.Error()
	}
	offset, inData := e.Result.InvalidParameter()
	names := connectFields
	if inData {
		names = connectDataFields
	}
	name, ok := names[offset]
	if !ok {
		name = "at offset " + strconv.Itoa(int(offset))
	}
	return fmt.Sprintf("%v: the field %s", e.Status, name)
}

// TerminatedError is the controller ending the connection by a C2HTermReq: it
// takes something that the host has sent for an error.
type TerminatedError struct {
	FES nvmetcp.FES
	FEI uint32
}

func (e *TerminatedError) Error() string {
	return fmt.Sprintf("the controller ended the connection: %v (FEI %#x)", e.FES, e.FEI)
}

// violation is what a controller sends and must not.
func violation(fes nvmetcp.FES, fei uint32, format string, args ...any) error {
	return &nvmetcp.ProtocolError{FES: fes, FEI: fei, Reason: fmt.Sprintf(format, args...)}
}

// lost makes the end of a connection readable.
func lost(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrLost, err)
	}
	return err
}
