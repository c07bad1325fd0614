// Package version names this build.
package version

// Product is the name that all programs print before their version.
const Product = "nvme-stas"

// Version is set by the build:
// -ldflags "-X github.com/nvme-stas/stas/internal/version.Version=1.2.3".
var Version = "0.1.0-dev"
