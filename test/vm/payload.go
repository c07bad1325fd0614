package main

import (
	"archive/tar"
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed guest/run
var runFiles embed.FS

// testBinary is the name of the scenario tests in the guest.
const testBinary = "scenario.test"

// testBinaries are the tests in the guest: the scenarios, and those of packages
// that need links of a real kernel, which a scenario runs.
var testBinaries = map[string]string{
	testBinary:  "./test/scenario",
	"mdns.test": "./internal/mdns",
}

// payload is the disk that carries files into the guest, a tar unpacked over
// its root file system before systemd starts. Errors of writing it are kept
// until it is complete.
type payload struct {
	dir  string // temporary; holds the disk and what goes into it
	file *os.File
	tar  *tar.Writer
	err  error
}

func newPayload() (*payload, error) {
	dir, err := os.MkdirTemp("", "stas-vm-")
	if err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(dir, "payload.tar"))
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return &payload{dir: dir, file: f, tar: tar.NewWriter(f)}, nil
}

// remove takes away everything temporary.
func (p *payload) remove() {
	p.file.Close()
	os.RemoveAll(p.dir)
}

// add puts a file into the guest.
func (p *payload) add(name string, mode int64, data []byte) {
	p.entry(&tar.Header{Name: name, Mode: mode, Typeflag: tar.TypeReg, Size: int64(len(data))}, data)
}

func (p *payload) entry(h *tar.Header, data []byte) {
	if p.err != nil {
		return
	}
	h.ModTime = began
	if p.err = p.tar.WriteHeader(h); p.err == nil {
		_, p.err = p.tar.Write(data)
	}
}

// embedded returns one of the files under guest/run.
func (p *payload) embedded(name string) []byte {
	data, err := runFiles.ReadFile("guest/run/" + name)
	p.err = errors.Join(p.err, err)
	return data
}

// addScripts adds the demo, and what other scripts can build on.
func (p *payload) addScripts() {
	for _, name := range []string{"demo.sh", "state.sh", "target.sh"} {
		p.add("stage/"+name, 0o755, p.embedded(name))
	}
}

// addAgent has the guest run its main command, and report.
func (p *payload) addAgent() {
	p.add("stage/agent.sh", 0o755, p.embedded("agent.sh"))
	p.addUnit("stas-vm.service")
}

// addShell has the guest give a shell on its console.
func (p *payload) addShell() {
	p.add("stage/shell.sh", 0o755, p.embedded("shell.sh"))
	p.addUnit("shell.service")
}

// addUnit installs a systemd unit and has it started at boot.
func (p *payload) addUnit(name string) {
	const dir = "etc/systemd/system/"
	p.add(dir+name, 0o644, p.embedded(name))
	p.entry(&tar.Header{
		Typeflag: tar.TypeSymlink,
		Name:     dir + "multi-user.target.wants/" + name,
		Linkname: "../" + name,
	}, nil)
}

// setMain sets the command that the guest is booted for.
func (p *payload) setMain(program string, args []string) {
	words := []string{"exec", program}
	for _, a := range args {
		words = append(words, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	p.add("stage/main", 0o755, []byte("#!/bin/sh\n"+strings.Join(words, " ")+"\n"))
}

// addProduct installs the product as a distribution would.
func (p *payload) addProduct(ctx context.Context) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	progress("building the product")
	tree := filepath.Join(p.dir, "tree")
	err = command(ctx, root, "make", "--silent", "install", "DESTDIR="+tree, "PREFIX=/usr", "SYSCONFDIR=/etc")
	if err != nil {
		return err
	}
	return p.addTree(tree)
}

// addTests builds the tests and puts them into the guest.
func (p *payload) addTests(ctx context.Context) error {
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	progress("building the scenario tests")
	for name, directory := range testBinaries {
		file := filepath.Join(p.dir, name)
		if err := command(ctx, root, "go", "test", "-c", "-o", file, directory); err != nil {
			return err
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		p.add("stage/"+name, 0o755, data)
	}
	return nil
}

// command builds something in the source tree, for a guest that may have
// another C library than this machine.
func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, lastLines(out, 40))
	}
	return nil
}

// addTree puts a directory into the guest, as owned by root.
func (p *payload) addTree(root string) error {
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(root, name)
		if err != nil || inside == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: inside, Mode: int64(info.Mode().Perm())}
		switch {
		case d.IsDir():
			h.Typeflag = tar.TypeDir
			p.entry(h, nil)
		case d.Type()&fs.ModeSymlink != 0:
			h.Typeflag = tar.TypeSymlink
			if h.Linkname, err = os.Readlink(name); err != nil {
				return err
			}
			p.entry(h, nil)
		case d.Type().IsRegular():
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			p.add(inside, h.Mode, data)
		default:
			return fmt.Errorf("%s cannot be installed: %v", inside, d.Type())
		}
		return nil
	})
}

// disk completes the payload and returns its file.
func (p *payload) disk() (string, error) {
	err := errors.Join(p.err, p.tar.Close())
	// A disk consists of sectors; the tar's end is already marked inside.
	if info, statErr := p.file.Stat(); statErr == nil {
		err = errors.Join(err, p.file.Truncate((info.Size()+511)/512*512))
	}
	if err := errors.Join(err, p.file.Close()); err != nil {
		return "", fmt.Errorf("writing the disk of the guest: %w", err)
	}
	return p.file.Name(), nil
}
