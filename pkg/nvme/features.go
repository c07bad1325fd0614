package nvme

// Feature identifiers, FID (Base "Feature Identifiers").
const (
	FeatureVolatileCache  uint8 = 0x06
	FeatureNumberOfQueues uint8 = 0x07
	FeatureAsyncEvents    uint8 = 0x0b // AENConfig bits
	FeatureTimestamp      uint8 = 0x0e // TimestampSize bytes of data
	FeatureKATO           uint8 = 0x0f // ms
	FeatureHostBehavior   uint8 = 0x16 // HostBehaviorSize bytes of data
	FeatureHostID         uint8 = 0x81
)

// Sizes of the data of features in bytes.
const (
	TimestampSize    = 8
	HostBehaviorSize = 512
)

// Bits of the Asynchronous Event Configuration feature, and of OAES: the
// events that are enabled, and those that can be.
const (
	AENConfigNamespace     = 1 << 8
	AENConfigFirmware      = 1 << 9
	AENConfigANA           = 1 << 11
	AENConfigPullDDC       = 1 << 28 // pull model DDC request log page
	AENConfigAVE           = 1 << 29 // AVE discovery log page
	AENConfigHostDiscovery = 1 << 30
	AENConfigDiscovery     = 1 << 31 // discovery log page
)

// SetFeatures returns the command that sets a feature by dword 11 alone (Base
// "Set Features command"). A feature with data wants an SGL.
func SetFeatures(fid uint8, value uint32) Command {
	return Command{Opcode: OpSetFeatures, Flags: FlagSGL, SGL: InTransport(0), CDW10: uint32(fid), CDW11: value}
}

// GetFeatures returns the command that reads the current value of a feature
// (Base "Get Features command"); the value comes in the result.
func GetFeatures(fid uint8) Command {
	return Command{Opcode: OpGetFeatures, Flags: FlagSGL, SGL: InTransport(0), CDW10: uint32(fid)}
}

// ParseFeature reads a Set Features or Get Features command: which feature,
// and to what it is set.
func ParseFeature(cmd Command) (fid uint8, value uint32) { return uint8(cmd.CDW10), cmd.CDW11 }

// QueueCount is a number of I/O queues as FeatureNumberOfQueues spells it: of
// submission and of completion queues, zero's based. None at all cannot be
// said; it becomes one.
func QueueCount(n uint16) uint32 {
	zeroBased := uint32(max(n, 1) - 1)
	return zeroBased | zeroBased<<16
}

// ParseQueueCount returns how many pairs of I/O queues a value of
// FeatureNumberOfQueues means: the smaller of the two numbers.
func ParseQueueCount(value uint32) int { return int(min(value&0xffff, value>>16)) + 1 }
