package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// hostPackage is a Debian package this program needs on the machine it runs
// on, with a file that shows it is installed, whatever the distribution.
type hostPackage struct {
	name string
	file string
}

// hostPackages lists what building and booting the guest takes.
func hostPackages() []hostPackage {
	p := []hostPackage{
		{"qemu-system-x86", "/usr/bin/qemu-system-x86_64"},
		{"seabios", "/usr/share/seabios/bios-256k.bin"},
		{"mmdebstrap", "/usr/bin/mmdebstrap"},
		{"e2fsprogs", "/usr/sbin/mke2fs"},
		{"debian-archive-keyring", "/usr/share/keyrings/debian-archive-keyring.gpg"},
	}
	if os.Geteuid() != 0 {
		p = append(p, hostPackage{"uidmap", "/usr/bin/newuidmap"})
	}
	return p
}

// ensureHost makes sure of the host packages: it installs them where it may,
// and says what to type where it may not.
func ensureHost(ctx context.Context) error {
	var missing []string
	for _, p := range hostPackages() {
		if _, err := os.Stat(p.file); err != nil {
			missing = append(missing, p.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	install := append([]string{"apt-get", "install", "-y", "--no-install-recommends"}, missing...)
	if !hasApt() {
		return fmt.Errorf("missing on this machine, by their Debian names: %s", strings.Join(missing, " "))
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("missing packages; as root, type: apt-get update && %s", strings.Join(install, " "))
	}
	progress("installing %s", strings.Join(missing, " "))
	for _, args := range [][]string{{"apt-get", "update"}, install} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, lastLines(out, 20))
		}
	}
	return nil
}

// hasApt reports whether the machine runs Debian, Ubuntu or one of their kin.
func hasApt() bool {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(release)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if key != "ID" && key != "ID_LIKE" {
			continue
		}
		ids := strings.Fields(strings.Trim(value, `"`))
		if slices.Contains(ids, "debian") || slices.Contains(ids, "ubuntu") {
			return true
		}
	}
	return false
}

// lastLines returns the end of a text, of at most n lines.
func lastLines(text []byte, n int) []byte {
	lines := bytes.Split(bytes.TrimRight(text, "\r\n"), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-n):], []byte("\n"))
}
