//go:build linux

package scenario

import (
	"os/exec"
	"strings"
	"testing"
)

// TestGuestLinks runs those tests of internal/mdns that need links, which are here
// what they are elsewhere only by chance: VLANs, VRFs, an avahi-daemon.
func TestGuestLinks(t *testing.T) {
	if !InGuest() {
		t.Skip("go run ./test/vm test runs this in a guest")
	}
	_ = exec.Command("systemctl", "stop", "avahi-daemon.service", "avahi-daemon.socket").Run() // it has one of its own
	for _, name := range []string{"TestLinks", "TestAttribution", "TestVLANs", "TestManyInstances", "TestBesideAvahi"} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.Command("/stage/mdns.test", "-test.v", "-test.run=^"+name+"$").CombinedOutput()
			t.Logf("%s", out)
			if err != nil || strings.Contains(string(out), "--- SKIP") || !strings.Contains(string(out), "--- PASS") {
				t.Errorf("it has not passed: %v", err)
			}
		})
	}
}
