// Package daemon is what any daemon needs, whatever it does: a loop that owns
// its state, a logger, and the service manager.
package daemon
