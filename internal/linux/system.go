package linux

import (
	"bytes"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// System implements [service.Kernel].
func (k *Kernel) System() (name, version string) {
	name, _ = os.Hostname()
	var u unix.Utsname
	words := []string{}
	if unix.Uname(&u) == nil {
		words = append(words, untilNUL(u.Sysname[:]), untilNUL(u.Release[:]))
	}
	for _, file := range []string{"/etc/os-release", "/usr/lib/os-release"} { // os-release(5)
		if b, err := os.ReadFile(file); err == nil {
			words = append(words, distribution(string(b))...)
			break
		}
	}
	return name, strings.Join(words, " ")
}

// distribution finds NAME and VERSION_ID in an os-release(5) file.
func distribution(file string) []string {
	var name, version string
	for line := range strings.Lines(file) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "NAME":
			name = value
		case "VERSION_ID":
			version = value
		}
	}
	return strings.Fields(name + " " + version)
}

// untilNUL is what is before the NUL.
func untilNUL(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}
