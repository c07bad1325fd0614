package startup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/nvme-stas/stas/internal/boot"
	"github.com/nvme-stas/stas/internal/conf"
	"github.com/nvme-stas/stas/internal/hostid"
	"github.com/nvme-stas/stas/pkg/nvmesysfs"
)

// checkConfig prints what is wrong with the configuration and the identity,
// and uses neither. A file that was named has to be there.
func (p program) checkConfig(path string, named bool, stdout, stderr io.Writer) int {
	wrong := 0
	fail := func(err error) {
		wrong++
		fmt.Fprintf(stderr, "%s: %v\n", p.name, err)
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%s does not exist, which asks for nothing and takes nothing away", path)
		if named {
			fail(err)
		} else {
			fmt.Fprintln(stdout, err)
		}
	}
	_, issues, err := conf.Load(p.name, path)
	wrong += show(stdout, issues, p.host.euid())
	if err != nil {
		fail(err)
	}
	tables := boot.Source{Dir: p.tables}
	booted, issues := tables.Read()
	wrong += show(stdout, issues, p.host.euid())
	known := booted.Pairs(nil)
	if sysfs, err := nvmesysfs.NewFS("/sys"); err == nil {
		known = others(booted, sysfs)
	}
	_, issues, err = hostid.Load(p.paths, known...)
	wrong += show(stdout, issues, p.host.euid())
	if err != nil {
		fail(err)
	}
	if wrong > 0 {
		return exitFailed
	}
	fmt.Fprintf(stdout, "%s: the configuration is in order\n", p.name)
	return exitOK
}

// show prints complaints and counts those that matter: a note does not, nor
// what only root can read, in the eyes of somebody else.
func show(w io.Writer, issues []conf.Issue, euid int) (wrong int) {
	for _, i := range issues {
		text := i.String()
		switch {
		case euid != 0 && errors.Is(i.Cause, fs.ErrPermission):
			text += " (only root can check this)"
		case i.Severity != conf.Note:
			wrong++
		}
		fmt.Fprintln(w, text)
	}
	return wrong
}
