// Command stafctl: see the manual page stafctl(1).
package main

import (
	"os"

	"github.com/nvme-stas/stas/internal/cli"
)

func main() { os.Exit(cli.Stafctl(os.Args[1:], os.Stdout, os.Stderr)) }
