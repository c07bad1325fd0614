// Command stacd: see the manual page stacd(8).
package main

import (
	"os"

	"github.com/nvme-stas/stas/internal/startup"
)

func main() { os.Exit(startup.Stacd(os.Args[1:], os.Stdout, os.Stderr)) }
