package nvme

import (
	"errors"
	"fmt"
	"testing"
)

func TestStatus(t *testing.T) {
	for _, tc := range []struct {
		status Status
		text   string
		sct    uint8
		sc     uint8
		dnr    bool
	}{
		{0x4182, "NVMe status 0x4182 Connect Invalid Parameters, do not retry", 1, 0x82, true},
		{0x0181, "NVMe status 0x0181 Connect Controller Busy", 1, 0x81, false},
		{0x4132, "NVMe status 0x4132 Insufficient Discovery Resources, do not retry", 1, 0x32, true},
		{0x4002, "NVMe status 0x4002 Invalid Field in Command, do not retry", 0, 2, true},
		{0x0370, "NVMe status 0x0370 Host Path Error", 3, 0x70, false},
		{0x2109, "NVMe status 0x2109 Invalid Log Page", 1, 9, false},
		{0x07fe, "NVMe status 0x07fe", 7, 0xfe, false},
	} {
		s := tc.status
		if s.Error() != tc.text || s.SCT() != tc.sct || s.SC() != tc.sc || s.DNR() != tc.dnr {
			t.Errorf("%#x: %q, SCT %d, SC %#x, DNR %t", uint16(s), s.Error(), s.SCT(), s.SC(), s.DNR())
		}
	}
	if s := Status(0x3190); !s.MORE() || s.CRD() != 2 {
		t.Errorf("3190h: MORE %t, CRD %d", s.MORE(), s.CRD())
	}
}

func TestStatusIs(t *testing.T) {
	err := fmt.Errorf("reading: %w", Status(0x4190))
	if !errors.Is(err, StatusDiscoverRestart) {
		t.Error("DNR makes another status")
	}
	if errors.Is(err, StatusConnectInvalidHost) || errors.Is(err, errors.New("x")) {
		t.Error("one status is another")
	}
	if s, ok := errors.AsType[Status](err); !ok || s != 0x4190 {
		t.Errorf("%v, %t", s, ok)
	}
}
