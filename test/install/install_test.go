// Package install tests what "make install" puts where, and that "make
// uninstall" takes it away again.
package install

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func makeTarget(t *testing.T, target, dest string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "make", "--silent", "-C", "../..", target,
		"DESTDIR="+dest, "PREFIX=/usr", "SYSCONFDIR=/etc")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make %s: %v\n%s", target, err, out)
	}
}

// files lists the files below dir with their modes.
func files(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		rel, _ := filepath.Rel(dir, name)
		all = append(all, info.Mode().String()+" "+rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the programs")
	}
	dest := t.TempDir()
	makeTarget(t, "install", dest)
	installed := files(t, dest)
	for _, want := range []string{
		"-rwxr-xr-x usr/sbin/stafd", "-rwxr-xr-x usr/sbin/stacd",
		"-rwxr-xr-x usr/bin/stafctl", "-rwxr-xr-x usr/bin/stacctl", "-rwxr-xr-x usr/bin/stasadm",
		"-rwxr-xr-x usr/bin/stas-lab", "-rw-r--r-- usr/share/man/man1/stas-lab.1", "-rw-r--r-- usr/share/man/man5/stas-lab.yaml.5",
		"-rw-r--r-- usr/lib/systemd/system/stafd.service", "-rw-r--r-- usr/lib/systemd/system/stacd.service",
		"-rw-r--r-- usr/lib/systemd/system/stas-config.target", "-rw-r--r-- usr/lib/systemd/system/stas-config@.service",
		"-rw-r--r-- usr/share/dbus-1/system.d/org.nvmexpress.staf.conf", "-rw-r--r-- usr/share/dbus-1/system.d/org.nvmexpress.stac.conf",
		"-rw-r--r-- usr/share/man/man8/stafd.8", "-rw-r--r-- usr/share/man/man1/stasadm.1", "-rw-r--r-- usr/share/man/man5/sys.conf.5",
		"-rw-r--r-- usr/share/bash-completion/completions/stafctl", "-rw-r--r-- usr/share/zsh/vendor-completions/_stacctl",
		"-rw-r--r-- usr/share/fish/vendor_completions.d/stasadm.fish",
		"-rw-r--r-- etc/stas/stafd.conf", "-rw-r--r-- etc/stas/stacd.conf", "-rw-r--r-- etc/stas/sys.conf.doc",
	} {
		if !slices.Contains(installed, want) {
			t.Errorf("not installed: %s", want)
		}
	}
	for _, unit := range []string{"stafd.service", "stacd.service", "stas-config@.service"} {
		text, err := os.ReadFile(filepath.Join(dest, "usr/lib/systemd/system", unit))
		if err != nil || strings.Contains(string(text), "@SBINDIR@") || strings.Contains(string(text), "@BINDIR@") {
			t.Errorf("%s still has a placeholder: %v", unit, err)
		}
	}

	// A configuration that somebody has changed outlives both.
	changed := filepath.Join(dest, "etc/stas/stafd.conf")
	if err := os.WriteFile(changed, []byte("# mine\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	makeTarget(t, "install", dest)
	makeTarget(t, "uninstall", dest)
	if left := files(t, dest); !slices.Equal(left, []string{"-rw-r--r-- etc/stas/stafd.conf"}) {
		t.Errorf("left behind: %q", left)
	}
	if text, err := os.ReadFile(changed); err != nil || string(text) != "# mine\n" {
		t.Errorf("the changed configuration is %q, %v", text, err)
	}
}
