package nvme

import "fmt"

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
)

// Status values this project meets, SCT<<8 | SC. Compare by [errors.Is],
// which leaves DNR, MORE and CRD aside.
const (
	StatusInvalidOpcode               Status = 0x001
	StatusInvalidField                Status = 0x002
	StatusCommandSequenceError        Status = 0x00c
	StatusKeepAliveTimeoutInvalid     Status = 0x01a
	StatusInvalidQueueID              Status = 0x101
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
	StatusDiscoverRestart             Status = 0x190
	StatusAuthenticationRequired      Status = 0x191
	StatusHostPathError               Status = 0x370 // made by the host: connection lost
	StatusHostAborted                 Status = 0x371 // made by the host: command aborted
)

var statusNames = map[Status]string{
	StatusInvalidOpcode:               "Invalid Command Opcode",
	StatusInvalidField:                "Invalid Field in Command",
	StatusCommandSequenceError:        "Command Sequence Error",
	StatusKeepAliveTimeoutInvalid:     "Keep Alive Timeout Invalid",
	StatusInvalidQueueID:              "Invalid Queue Identifier",
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
	StatusDiscoverRestart:             "Discover Restart",
	StatusAuthenticationRequired:      "Authentication Required",
	StatusHostPathError:               "Host Path Error",
	StatusHostAborted:                 "Command Aborted By Host",
}

// SC returns the status code within its type.
func (s Status) SC() uint8 { return uint8(s) }

// SCT returns the status code type.
func (s Status) SCT() uint8 { return uint8(s>>8) & 7 }

// DNR (do not retry): the same command will fail again.
func (s Status) DNR() bool { return s&statusDNR != 0 }

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
