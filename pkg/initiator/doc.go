// Package initiator is an NVMe/TCP host in user space: it connects to a
// discovery or I/O controller without the kernel. The tests of this project
// look at targets with it, and whoever wants to know beforehand whether the
// kernel would get through.
//
// Whatever a controller sends is checked. What makes no sense is an error that
// ends the connection, never a panic, and no command waits any longer for an
// answer then.
//
// "Base" in its comments is the NVM Express Base Specification, revision 2.1,
// "TCP" the NVM Express TCP Transport Specification, revision 1.1.
package initiator
