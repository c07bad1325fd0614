// Package udevrule keeps nvme-cli's udev rule, which connects what a discovery
// controller lists, out of force while somebody better does that.
package udevrule

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/nvme-stas/stas/internal/atomicfile"
)

// DefaultPath shadows nvme-cli's file of the same name in
// /usr/lib/udev/rules.d (udev(7)).
const DefaultPath = "/run/udev/rules.d/70-nvmf-autoconnect.rules"

// marker begins a file of ours. Any other is somebody else's.
const marker = "# Written by stafd, which removes it when it ends: see stafd(8).\n"

// fcRule is what nvme-cli's file does for hosts whose Fibre Channel adapters
// announce discovery controllers by events of their own. %s is systemctl.
const fcRule = `ACTION=="change", SUBSYSTEM=="fc", ENV{FC_EVENT}=="nvmediscovery", ENV{NVMEFC_HOST_TRADDR}=="?*", ENV{NVMEFC_TRADDR}=="?*", ` +
	`RUN+="%s --no-block restart nvmf-connect@--device\x3dnone\x09--transport\x3dfc\x09--traddr\x3d$env{NVMEFC_TRADDR}\x09--trsvcid\x3dnone\x09--host-traddr\x3d$env{NVMEFC_HOST_TRADDR}.service"` + "\n"

// Override is the file that shadows nvme-cli's.
type Override struct {
	Path string
	Log  *slog.Logger
}

// Hold keeps the file in place until ctx ends. What goes wrong is logged; then
// nvme-cli connects things, too.
func (o Override) Hold(ctx context.Context) error {
	if err := o.put(); err != nil {
		o.Log.Warn("nvme-cli's udev rule stays in force, and connects by itself what discovery controllers list", "error", err)
		return nil
	}
	<-ctx.Done()
	if err := o.Restore(); err != nil {
		o.Log.Error("nvme-cli's udev rule stays without effect until the next start or reboot", "error", err)
	}
	return nil
}

// put writes the file, unless somebody else has one there. Where there is no
// udev there is no rule to override.
func (o Override) put() error {
	if _, err := os.Stat(filepath.Dir(filepath.Dir(o.Path))); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	switch ours, err := o.ours(); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case !ours:
		return fmt.Errorf("%s is somebody else's", o.Path)
	}
	text := marker
	if systemctl, err := exec.LookPath("systemctl"); err == nil {
		text += fmt.Sprintf(fcRule, systemctl)
	}
	return atomicfile.Write(o.Path, []byte(text), 0o644)
}

// ours reports whether the file that exists is ours.
func (o Override) ours() (bool, error) {
	if info, err := os.Lstat(o.Path); err != nil || !info.Mode().IsRegular() {
		return false, err // a link to /dev/null is somebody else's, too
	}
	f, err := os.Open(o.Path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, len(marker))
	n, err := f.Read(head)
	return err == nil && bytes.Equal(head[:n], []byte(marker)), nil
}

// Restore puts nvme-cli's rule in force again. Somebody else's file stays.
func (o Override) Restore() error {
	ours, err := o.ours()
	if ours {
		err = os.Remove(o.Path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
