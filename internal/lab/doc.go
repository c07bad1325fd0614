// Package lab is the command stas-lab: a target that hosts are tested with,
// put together from a file, announced by mDNS, and driven over a socket while
// it runs. Tests run one in their own process with [Test].
package lab
