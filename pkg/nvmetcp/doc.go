// Package nvmetcp speaks the NVMe/TCP transport: it turns PDUs into bytes on a
// connection and back, for a host and for a controller. What the PDUs mean to
// each other is the business of its users.
//
// "TCP" in its comments is the NVM Express TCP Transport Specification,
// revision 1.1.
package nvmetcp
