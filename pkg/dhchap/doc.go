// Package dhchap is DH-HMAC-CHAP, the in-band authentication of NVMe: keys,
// messages, and both sides of a transaction as state machines that know no
// transport. It is pure computation; whoever carries the messages in
// Authentication Send and Authentication Receive commands uses a [Controller]
// or a [Host].
//
// "Base" in its comments is the NVM Express Base Specification, revision 2.1,
// section "NVMe In-band Authentication". Secure channel concatenation (a TLS
// PSK made by the transaction) is not spoken: a host that asks for it is
// refused as the book wants.
package dhchap
