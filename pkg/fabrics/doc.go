// Package fabrics talks to the kernel's NVMe over Fabrics host: it connects
// controllers through /dev/nvme-fabrics and sends admin commands to connected
// ones. Facts about the kernel are from drivers/nvme/host of Linux 5.15 to 7.2.
package fabrics
