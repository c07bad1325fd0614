package nvme

import "testing"

// Numbers that no layout contains, as the specification has them.
func TestNumbers(t *testing.T) {
	for _, group := range []struct {
		name string
		got  []uint64
		want []uint64
	}{
		{
			"CNS", wide(CNSNamespace, CNSController, CNSActiveNamespaces, CNSDescriptors, CNSCommandSetNamespace, CNSCommandSetController),
			wide(0, 1, 2, 3, 5, 6),
		},
		{
			"FID", wide(FeatureVolatileCache, FeatureNumberOfQueues, FeatureAsyncEvents, FeatureTimestamp, FeatureKATO, FeatureHostBehavior, FeatureHostID),
			wide(0x06, 0x07, 0x0b, 0x0e, 0x0f, 0x16, 0x81),
		},
		{
			"LID", wide(LogSupportedPages, LogError, LogSMART, LogChangedNamespaces, LogEffects, LogANA, LogDiscovery),
			wide(0x00, 0x01, 0x02, 0x04, 0x05, 0x0c, 0x70),
		},
		{
			"OAES", wide(uint64(AENConfigNamespace), AENConfigFirmware, AENConfigANA, AENConfigPullDDC, AENConfigAVE, AENConfigHostDiscovery, AENConfigDiscovery),
			wide(uint64(0x100), 0x200, 0x800, 0x1000_0000, 0x2000_0000, 0x4000_0000, 0x8000_0000),
		},
		{"LSP", wide(LSPExtended, LSPPortLocal, LSPAllSubsystems, LSPGroupsOnly), wide(1, 2, 4, 1)},
		{"CATTR", wide(CAttrDisableSQFlow, CAttrDeleteQueues, CAttrDiscovery), wide(0x04, 0x08, 0x10)},
		{
			"CAP", wide(uint64(CAPContiguous), CAPNVM, CAPCommandSets, CAPNoIO, CAPCRWMS, CAPCRIMS),
			wide(uint64(0x1_0000), 0x20_0000_0000, 0x800_0000_0000, 0x1000_0000_0000, 0x800_0000_0000_0000, 0x1000_0000_0000_0000),
		},
		{"CC", wide(CCEnable, CCShutdownMask, CCShutdownNormal, CCShutdownAbrupt, CCEntrySizes), wide(1, 0xc000, 0x4000, 0x8000, 0x46_0000)},
		{"CSTS", wide(CSTSReady, CSTSFatal, CSTSShutdownMask, CSTSShutdownOccurs, CSTSShutdownComplete), wide(1, 2, 0xc, 4, 8)},
		{
			"status", wide(StatusDataTransferError, StatusAbortRequested, StatusSGLTypeInvalid, StatusHostPathError, StatusHostAborted),
			wide(0x004, 0x007, 0x011, 0x370, 0x371),
		},
	} {
		for i, got := range group.got {
			if got != group.want[i] {
				t.Errorf("%s %d: %#x, want %#x", group.name, i, got, group.want[i])
			}
		}
	}
}

func wide[T ~int | ~uint8 | ~uint16 | ~uint32 | ~uint64](values ...T) []uint64 {
	all := make([]uint64, len(values))
	for i, v := range values {
		all[i] = uint64(v)
	}
	return all
}
