//go:build race

package target

// raceEnabled: the race detector multiplies memory by five to ten.
const raceEnabled = true
