// Command stas-lab: see the manual page stas-lab(1).
package main

import (
	"os"

	"github.com/nvme-stas/stas/internal/lab"
)

func main() { os.Exit(lab.Run(os.Args[1:], os.Stdout, os.Stderr)) }
