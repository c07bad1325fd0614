package nvme

// AuthParams are the parameters of Authentication Send and Authentication
// Receive (Base "Authentication Send command and Authentication Receive
// command").
type AuthParams struct {
	Length uint32 // bytes: of the message, or of the room for one
}

// authProtocol is what there is in dword 10: SPSP0 1 and SPSP1 1, DH-HMAC-CHAP
// and what else may come, in the security protocol E9h of NVMe.
const authProtocol = 0xe9<<24 | 1<<16 | 1<<8

// AuthSend returns the command that sends a message, which comes along.
func AuthSend(p AuthParams) Command { return p.command(FCAuthSend, InCapsule(p.Length)) }

// AuthReceive returns the command that asks for a message.
func AuthReceive(p AuthParams) Command { return p.command(FCAuthReceive, InTransport(p.Length)) }

func (p AuthParams) command(t FCType, data SGL) Command {
	cmd := fabricsCommand(t, data)
	cmd.CDW10, cmd.CDW11 = authProtocol, p.Length
	return cmd
}

// ParseAuth reads an Authentication Send or Receive command. Another protocol
// is StatusInvalidField.
func ParseAuth(cmd Command) (AuthParams, error) {
	const reserved = 0xff
	if cmd.CDW10&^reserved != authProtocol {
		return AuthParams{}, StatusInvalidField
	}
	return AuthParams{Length: cmd.CDW11}, nil
}
