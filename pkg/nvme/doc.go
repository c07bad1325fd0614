// Package nvme encodes and decodes what NVMe over Fabrics puts on the wire and
// what the kernel passes on of it: NQNs, discovery log pages, asynchronous
// events, command status. It is pure computation and knows no operating system.
//
// "Base" in its comments is the NVM Express Base Specification, revision 2.1.
package nvme
