package nvme

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Status is the status field of a completion without its phase bit, as the
// kernel's passthrough returns it (Base "Status Field Definition"). It is an
// error; success is no Status at all.
type Status uint16

// Bits of a Status.
const (
	statusCode Status = 0x07ff // SCT and SC together
	statusCRD  Status = 0x1800 // command retry delay
	statusMORE Status = 0x2000
	statusDNR  Status = 0x4000
	statusBits        = 15
)

// Status values this project meets, SCT<<8 | SC. Compare by [errors.Is],
// which leaves DNR, MORE and CRD aside.
const (
	StatusInvalidOpcode               Status = 0x001
	StatusInvalidField                Status = 0x002
	StatusDataTransferError           Status = 0x004
	StatusInternalError               Status = 0x006
	StatusAbortRequested              Status = 0x007
	StatusInvalidNamespace            Status = 0x00b
	StatusCommandSequenceError        Status = 0x00c
	StatusSGLLengthInvalid            Status = 0x00f
	StatusSGLTypeInvalid              Status = 0x011
	StatusKeepAliveTimeoutInvalid     Status = 0x01a
	StatusTransientTransportError     Status = 0x022
	StatusLBAOutOfRange               Status = 0x080
	StatusNamespaceNotReady           Status = 0x082
	StatusInvalidQueueID              Status = 0x101
	StatusAERLimitExceeded            Status = 0x105
	StatusInvalidLogPage              Status = 0x109
	StatusInvalidDiscoveryInformation Status = 0x12f
	StatusZoningDataStructureLocked   Status = 0x130
	StatusZoningDataStructureNotFound Status = 0x131
	StatusInsufficientDiscovery       Status = 0x132
	StatusRequestedFunctionDisabled   Status = 0x133
	StatusZoneGroupOriginatorInvalid  Status = 0x134
	StatusConnectIncompatibleFormat   Status = 0x180
	StatusConnectControllerBusy       Status = 0x181
	StatusConnectInvalidParameters    Status = 0x182
	StatusConnectRestartDiscovery     Status = 0x183
	StatusConnectInvalidHost          Status = 0x184
	StatusInvalidQueueType            Status = 0x185 // of Disconnect
	StatusDiscoverRestart             Status = 0x190
	StatusAuthenticationRequired      Status = 0x191
	StatusANAPersistentLoss           Status = 0x301
	StatusANAInaccessible             Status = 0x302
	StatusANATransition               Status = 0x303
	StatusHostPathError               Status = 0x370 // made by the host: connection lost
	StatusHostAborted                 Status = 0x371 // made by the host: command aborted
)

var statusNames = map[Status]string{
	StatusInvalidOpcode:               "Invalid Command Opcode",
	StatusInvalidField:                "Invalid Field in Command",
	StatusDataTransferError:           "Data Transfer Error",
	StatusInternalError:               "Internal Error",
	StatusAbortRequested:              "Command Abort Requested",
	StatusInvalidNamespace:            "Invalid Namespace or Format",
	StatusCommandSequenceError:        "Command Sequence Error",
	StatusSGLLengthInvalid:            "Data SGL Length Invalid",
	StatusSGLTypeInvalid:              "SGL Descriptor Type Invalid",
	StatusKeepAliveTimeoutInvalid:     "Keep Alive Timeout Invalid",
	StatusTransientTransportError:     "Transient Transport Error",
	StatusLBAOutOfRange:               "LBA Out of Range",
	StatusNamespaceNotReady:           "Namespace Not Ready",
	StatusInvalidQueueID:              "Invalid Queue Identifier",
	StatusAERLimitExceeded:            "Asynchronous Event Request Limit Exceeded",
	StatusInvalidLogPage:              "Invalid Log Page",
	StatusInvalidDiscoveryInformation: "Invalid Discovery Information",
	StatusZoningDataStructureLocked:   "Zoning Data Structure Locked",
	StatusZoningDataStructureNotFound: "Zoning Data Structure Not Found",
	StatusInsufficientDiscovery:       "Insufficient Discovery Resources",
	StatusRequestedFunctionDisabled:   "Requested Function Disabled",
	StatusZoneGroupOriginatorInvalid:  "ZoneGroup Originator Invalid",
	StatusConnectIncompatibleFormat:   "Connect Incompatible Format",
	StatusConnectControllerBusy:       "Connect Controller Busy",
	StatusConnectInvalidParameters:    "Connect Invalid Parameters",
	StatusConnectRestartDiscovery:     "Connect Restart Discovery",
	StatusConnectInvalidHost:          "Connect Invalid Host",
	StatusInvalidQueueType:            "Invalid Queue Type",
	StatusDiscoverRestart:             "Discover Restart",
	StatusAuthenticationRequired:      "Authentication Required",
	StatusANAPersistentLoss:           "Asymmetric Access Persistent Loss",
	StatusANAInaccessible:             "Asymmetric Access Inaccessible",
	StatusANATransition:               "Asymmetric Access Transition",
	StatusHostPathError:               "Host Path Error",
	StatusHostAborted:                 "Command Aborted By Host",
}

// statusTokens are the names as Name spells them.
var statusTokens = func() map[Status]string {
	tokens := make(map[Status]string)
	for s, n := range statusNames {
		tokens[s] = strings.ToLower(strings.ReplaceAll(n, " ", "-"))
	}
	return tokens
}()

var statusByToken = inverse(statusTokens)

// dnrSuffix marks a name of a Status with DNR.
const dnrSuffix = "+dnr"

// Name names the status the way fault files and output do:
// "connect-invalid-host", with DNR "connect-invalid-host+dnr"; one without a
// name, or with other bits, as the number, "0x2184".
func (s Status) Name() string {
	n, ok := statusTokens[s&^statusDNR]
	switch {
	case !ok:
		return fmt.Sprintf("%#04x", uint16(s))
	case s.DNR():
		return n + dnrSuffix
	}
	return n
}

// ParseStatus is the inverse of Name. It takes any number in hexadecimal with
// 0x, DNR and all.
func ParseStatus(text string) (Status, error) {
	name, dnr := strings.CutSuffix(text, dnrSuffix)
	if s, ok := statusByToken[name]; ok {
		if dnr {
			s = s.WithDNR()
		}
		return s, nil
	}
	digits, ok := strings.CutPrefix(text, "0x")
	v, err := strconv.ParseUint(digits, 16, statusBits)
	if !ok || err != nil {
		return 0, fmt.Errorf("%q is no status; write a name, as connect-invalid-host, or a number, as 0x4184", text)
	}
	return Status(v), nil
}

// StatusNames returns the names there are, sorted.
func StatusNames() []string { return slices.Sorted(maps.Keys(statusByToken)) }

// MarshalText implements [encoding.TextMarshaler] by Name.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.Name()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler] by ParseStatus.
func (s *Status) UnmarshalText(text []byte) (err error) {
	*s, err = ParseStatus(string(text))
	return err
}

// SC returns the status code within its type.
func (s Status) SC() uint8 { return uint8(s) }

// PathRelated is the status code type of what happened on the way to the
// controller, or was made up by the host.
const PathRelated = 3

// SCT returns the status code type.
func (s Status) SCT() uint8 { return uint8(s>>8) & 7 }

// DNR (do not retry): the same command will fail again.
func (s Status) DNR() bool { return s&statusDNR != 0 }

// WithDNR returns the status with DNR set.
func (s Status) WithDNR() Status { return s | statusDNR }

// MORE reports that the Error Information log page says more.
func (s Status) MORE() bool { return s&statusMORE != 0 }

// CRD returns which of the controller's retry delays applies, 0 for none.
func (s Status) CRD() uint8 { return uint8(s & statusCRD >> 11) }

// Is makes [errors.Is] compare what happened and not how to retry.
func (s Status) Is(target error) bool {
	t, ok := target.(Status)
	return ok && s&statusCode == t&statusCode
}

func (s Status) Error() string {
	text := fmt.Sprintf("NVMe status %#04x", uint16(s))
	if n, ok := statusNames[s&statusCode]; ok {
		text += " " + n
	}
	if s.DNR() {
		text += ", do not retry"
	}
	return text
}
