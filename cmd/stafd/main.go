// Command stafd: see the manual page stafd(8).
package main

import (
	"os"

	"github.com/nvme-stas/stas/internal/startup"
)

func main() { os.Exit(startup.Stafd(os.Args[1:], os.Stdout, os.Stderr)) }
