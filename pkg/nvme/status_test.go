package nvme

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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

func TestStatusNames(t *testing.T) {
	for _, tc := range []struct {
		status Status
		want   string
	}{
		{0x001, "invalid-command-opcode"}, {0x002, "invalid-field-in-command"}, {0x006, "internal-error"},
		{0x00b, "invalid-namespace-or-format"}, {0x00c, "command-sequence-error"}, {0x00f, "data-sgl-length-invalid"},
		{0x01a, "keep-alive-timeout-invalid"}, {0x022, "transient-transport-error"}, {0x080, "lba-out-of-range"},
		{0x082, "namespace-not-ready"}, {0x101, "invalid-queue-identifier"},
		{0x105, "asynchronous-event-request-limit-exceeded"}, {0x109, "invalid-log-page"},
		{0x12f, "invalid-discovery-information"}, {0x130, "zoning-data-structure-locked"},
		{0x131, "zoning-data-structure-not-found"}, {0x132, "insufficient-discovery-resources"},
		{0x133, "requested-function-disabled"}, {0x134, "zonegroup-originator-invalid"},
		{0x180, "connect-incompatible-format"}, {0x181, "connect-controller-busy"}, {0x182, "connect-invalid-parameters"},
		{0x183, "connect-restart-discovery"}, {0x184, "connect-invalid-host"}, {0x185, "invalid-queue-type"},
		{0x190, "discover-restart"}, {0x191, "authentication-required"}, {0x301, "asymmetric-access-persistent-loss"},
		{0x302, "asymmetric-access-inaccessible"}, {0x303, "asymmetric-access-transition"},
		{0x4184, "connect-invalid-host+dnr"}, {0x2184, "0x2184"}, {0x6184, "0x6184"}, {0x47fe, "0x47fe"}, {0, "0x0000"},
	} {
		got, err := ParseStatus(tc.want)
		if tc.status.Name() != tc.want || err != nil || got != tc.status {
			t.Errorf("%#x is %q, want %q, which is %#x, %v", uint16(tc.status), tc.status.Name(), tc.want, uint16(got), err)
		}
		text, err := json.Marshal(tc.status)
		var back Status
		if err != nil || string(text) != `"`+tc.want+`"` || json.Unmarshal(text, &back) != nil || back != tc.status {
			t.Errorf("%#x: %s, %v", uint16(tc.status), text, err)
		}
	}
	if s, err := ParseStatus("0x4182"); err != nil || s != StatusConnectInvalidParameters.WithDNR() {
		t.Errorf("%v, %v", s, err)
	}
	for _, bad := range []string{
		"", "0x", "4182", "0x8000", "0x-1", "0X4182", "+dnr", "connect-invalid-host+", "Connect Invalid Host", "0x182+dnr",
		"connect-invalid-host+dnr+dnr",
	} {
		if s, err := ParseStatus(bad); err == nil {
			t.Errorf("%q is %#x", bad, uint16(s))
		}
	}
	names := StatusNames()
	if len(names) != len(statusNames) || !slices.IsSorted(names) {
		t.Errorf("%q", names)
	}
}

func FuzzParseStatus(f *testing.F) {
	for _, s := range []string{"connect-invalid-host+dnr", "0x4182", "invalid-log-page"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseStatus(text)
		if err != nil {
			return
		}
		if again, err := ParseStatus(s.Name()); err != nil || again != s {
			t.Errorf("%q is %q, which is %v, %v", text, s.Name(), again, err)
		}
	})
}
