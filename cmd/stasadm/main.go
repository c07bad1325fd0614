// Command stasadm: see the manual page stasadm(1).
package main

import (
	"os"

	"github.com/nvme-stas/stas/internal/stasadm"
)

func main() { os.Exit(stasadm.Run(os.Args[1:], os.Stdout, os.Stderr)) }
