package nvme

import "testing"

func TestFeatures(t *testing.T) {
	set := SetFeatures(FeatureAsyncEvents, AENConfigDiscovery)
	checkCommand(t, set, at{0, "\x09"}, at{39, "\x5a"}, at{40, "\x0b"}, at{44, "\x00\x00\x00\x80"})
	if fid, value := ParseFeature(set); fid != FeatureAsyncEvents || value != AENConfigDiscovery {
		t.Errorf("%#x, %#x", fid, value)
	}
	set.CDW10 |= 1 << 31 // SV
	if fid, _ := ParseFeature(set); fid != FeatureAsyncEvents {
		t.Errorf("%#x", fid)
	}
	get := GetFeatures(FeatureKATO)
	checkCommand(t, get, at{0, "\x0a"}, at{39, "\x5a"}, at{40, "\x0f"})
}

func TestQueueCount(t *testing.T) {
	for _, tc := range []struct {
		n    uint16
		want uint32
	}{{1, 0}, {2, 0x00010001}, {8, 0x00070007}, {65535, 0xfffefffe}} {
		if got := QueueCount(tc.n); got != tc.want || ParseQueueCount(got) != int(tc.n) {
			t.Errorf("%d queues: %#x, which are %d", tc.n, got, ParseQueueCount(got))
		}
	}
	if QueueCount(0) != 0 || ParseQueueCount(0x00030007) != 4 || ParseQueueCount(0xffffffff) != 65536 {
		t.Error("none, unequal numbers, all")
	}
}
