// Command stacctl: see the manual page stacctl(1).
package main

import (
	"os"

	"github.com/nvme-stas/stas/internal/cli"
)

func main() { os.Exit(cli.Stacctl(os.Args[1:], os.Stdout, os.Stderr)) }
