package udevrule_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/nvme-stas/stas/internal/udevrule"
)

// stubSystemctl makes the host have a systemctl, or none.
func stubSystemctl(t *testing.T, there bool) string {
	dir := t.TempDir()
	path := filepath.Join(dir, "systemctl")
	if there {
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	return path
}

func override(t *testing.T) (o udevrule.Override, log *bytes.Buffer) {
	log = new(bytes.Buffer)
	return udevrule.Override{
		Path: filepath.Join(t.TempDir(), "rules.d", "70-nvmf-autoconnect.rules"),
		Log:  slog.New(slog.NewTextHandler(log, nil)),
	}, log
}

// hold holds the file and returns its text meanwhile.
func hold(t *testing.T, o udevrule.Override) (text string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- o.Hold(ctx) }()
		synctest.Wait()
		b, _ := os.ReadFile(o.Path)
		text = string(b)
		cancel()
		// What failed at once has ended already, and waits here.
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return text
}

func TestHold(t *testing.T) {
	for _, there := range []bool{true, false} {
		systemctl := stubSystemctl(t, there)
		o, log := override(t)
		text := hold(t, o)
		rule := `ACTION=="change", SUBSYSTEM=="fc", ENV{FC_EVENT}=="nvmediscovery", ENV{NVMEFC_HOST_TRADDR}=="?*", ENV{NVMEFC_TRADDR}=="?*", RUN+="` +
			systemctl + ` --no-block restart nvmf-connect@--device\x3dnone\x09--transport\x3dfc\x09--traddr\x3d$env{NVMEFC_TRADDR}\x09--trsvcid\x3dnone\x09--host-traddr\x3d$env{NVMEFC_HOST_TRADDR}.service"` + "\n"
		var rules string
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") {
				rules += line
			}
		}
		if !there {
			rule = ""
		}
		if text == "" || rules != rule {
			t.Errorf("systemctl %v: the file is %q", there, text)
		}
		if _, err := os.Stat(o.Path); err == nil || log.Len() > 0 {
			t.Errorf("it stays: %v; %s", err, log)
		}
	}
}

// A file that a killed instance has left is ours; any other stays as it is.
func TestWhoseItIs(t *testing.T) {
	stubSystemctl(t, true)
	o, log := override(t)
	ours := hold(t, o)
	put := func(text string) {
		if err := os.WriteFile(o.Path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(ours + "# an older one\n")
	if got := hold(t, o); got != ours || log.Len() > 0 {
		t.Errorf("a stale file becomes %q; %s", got, log)
	}
	if _, err := os.Stat(o.Path); err == nil {
		t.Error("a stale file stays")
	}
	for _, text := range []string{"", "# mine\n", "#\n" + ours} {
		log.Reset()
		put(text)
		if got := hold(t, o); got != text || !strings.Contains(log.String(), "somebody else's") {
			t.Errorf("%q becomes %q; %s", text, got, log)
		}
		if got, err := os.ReadFile(o.Path); string(got) != text {
			t.Errorf("%q has become %q, %v", text, got, err)
		}
	}
	if err := os.Remove(o.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", o.Path); err != nil {
		t.Fatal(err)
	}
	hold(t, o)
	if to, err := os.Readlink(o.Path); to != "/dev/null" {
		t.Errorf("a masked rule has become %q, %v", to, err)
	}
}

func TestRestore(t *testing.T) {
	stubSystemctl(t, true)
	o, _ := override(t)
	if err := o.Restore(); err != nil {
		t.Errorf("nothing to restore: %v", err)
	}
	ours := hold(t, o)
	for text, stays := range map[string]bool{ours: false, "# mine\n": true} {
		if err := os.WriteFile(o.Path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := o.Restore(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(o.Path); (err == nil) != stays {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestNoUdev(t *testing.T) {
	o, log := override(t)
	o.Path = filepath.Join(filepath.Dir(o.Path), "udev", "rules.d", "x.rules")
	if text := hold(t, o); text != "" || log.Len() > 0 {
		t.Errorf("%q; %s", text, log)
	}
}

// udevd takes the file for a good one.
func TestUdevadmVerify(t *testing.T) {
	udevadm, err := exec.LookPath("udevadm")
	if err != nil {
		t.Skip("no udevadm")
	}
	stubSystemctl(t, true)
	o, _ := override(t)
	text := hold(t, o)
	path := filepath.Join(t.TempDir(), "70-nvmf-autoconnect.rules")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(udevadm, "verify", "--no-style", path).CombinedOutput()
	if err != nil {
		t.Errorf("udevadm: %v\n%s", err, out)
	}
}
