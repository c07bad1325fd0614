// Package nvme encodes and decodes what NVMe over Fabrics puts on the wire and
// what the kernel passes on of it: commands and completions with their status,
// the data of commands, log pages, asynchronous events, NQNs. It is pure
// computation and knows no operating system.
//
// "Base" in its comments is the NVM Express Base Specification, revision 2.1.
package nvme
