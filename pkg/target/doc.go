// Package target is an NVMe/TCP target in user space: discovery controllers,
// direct and centralized, with registration and zoning, and I/O controllers
// whose namespaces are in memory. It is there to test hosts with: what it does
// wrong on command ([Fault]), no storage array does when one wants it to.
//
// A [Target] is driven by its methods while hosts are connected. It needs no
// privilege: a socket is all it asks of the system.
//
// "Base" in its comments is the NVM Express Base Specification, revision 2.1;
// "TCP" the NVMe/TCP Transport Specification, revision 1.1.
package target
