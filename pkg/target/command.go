package target

import "github.com/nvme-stas/stas/pkg/nvme"

// request is a command with the data that came with it.
type request struct {
	q    *queue
	c    *controller // nil before Connect
	cmd  nvme.Command
	data []byte

	corrupt bool // a part of the data had a wrong digest
}

// reply is what a command is answered with.
type reply struct {
	status nvme.Status
	result uint64
	data   []byte  // for the host; cut or filled with zeroes to what it asked for
	exact  bool    // not cut nor filled: a fault
	noFlow bool    // no SQ flow control, as the host wished
	end    *ending // end the connection after this
	later  bool    // the command is kept and will be answered another time
}

// refuse is a reply that will be the same the next time.
func refuse(status nvme.Status) reply { return reply{status: status.WithDNR()} }

// handler executes a command.
type handler func(*request) reply

// The commands by opcode. What is not here is unknown to its controllers.
var (
	fabricsCommands = map[nvme.FCType]handler{
		nvme.FCConnect:     connect,
		nvme.FCPropertyGet: propertyGet,
		nvme.FCPropertySet: propertySet,
		nvme.FCAuthSend:    authSend,
		nvme.FCAuthReceive: authReceive,
		nvme.FCDisconnect:  disconnect,
	}
	adminCommands = map[uint8]handler{
		nvme.OpGetLogPage:        getLogPage,
		nvme.OpIdentify:          identify,
		nvme.OpAbort:             abortCommand,
		nvme.OpSetFeatures:       setFeatures,
		nvme.OpGetFeatures:       getFeatures,
		nvme.OpAsyncEventRequest: asyncEventRequest,
		nvme.OpKeepAlive:         keepAlive,
	}
	discoveryCommands = map[uint8]handler{ // besides the former
		nvme.OpDiscoveryInfoMgmt: registerHost,
	}
	ioCommands = map[uint8]handler{
		nvme.OpFlush:       flush,
		nvme.OpRead:        read,
		nvme.OpWrite:       write,
		nvme.OpWriteZeroes: writeZeroes,
		nvme.OpDSM:         deallocate,
	}
)

// dispatch executes a command, or says why it may not be.
func dispatch(r *request) reply {
	h := find(r)
	switch {
	case r.c == nil && r.cmd.FCType() != nvme.FCConnect, r.c == nil && !r.cmd.Fabrics():
		return refuse(nvme.StatusCommandSequenceError)
	case h == nil:
		return refuse(nvme.StatusInvalidOpcode)
	case r.q.auth != nil && !authenticates(r.cmd):
		return refuse(nvme.StatusAuthenticationRequired)
	case !r.cmd.Fabrics() && !r.c.ready():
		return refuse(nvme.StatusCommandSequenceError)
	}
	return h(r)
}

func find(r *request) handler {
	switch {
	case r.cmd.Fabrics():
		return fabricsCommands[r.cmd.FCType()]
	case r.q.id != 0:
		return ioCommands[r.cmd.Opcode]
	case r.c != nil && r.c.sub == nil && discoveryCommands[r.cmd.Opcode] != nil:
		return discoveryCommands[r.cmd.Opcode]
	}
	return adminCommands[r.cmd.Opcode]
}

// authenticates reports whether a command may come before authentication.
func authenticates(cmd nvme.Command) bool {
	return cmd.Fabrics() && (cmd.FCType() == nvme.FCAuthSend || cmd.FCType() == nvme.FCAuthReceive)
}

// name is how faults and logs call a command.
func (r *request) name() string {
	return nvme.CommandName(r.cmd.Opcode, r.cmd.FCType(), r.q.id != 0)
}
