// Package nbft decodes the NVMe Boot Firmware Table: what the firmware that
// booted a host from NVMe over Fabrics tells the operating system of the host,
// its interfaces, and the controllers that it connected. Linux shows the tables
// as /sys/firmware/acpi/tables/NBFT*. It is pure computation and knows no
// operating system.
//
// A table is the word of a firmware, and firmwares err. A table that is not one
// is an error; a descriptor that makes no sense is a [Problem], and costs
// itself only.
//
// "Boot" in its comments is the NVM Express Boot Specification; revision 1.0
// of it is meant, unless 1.1 is named.
package nbft
