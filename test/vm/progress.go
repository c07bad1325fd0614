package main

import (
	"fmt"
	"os"
	"time"
)

// began is when the program started, which the elapsed time counts from.
var began = time.Now()

// label comes before each line, and keepAs behind the name of the directory of
// logs: see options.label.
var label, keepAs string

// progress tells the person who waits what is being done.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s[%5.1f s] %s\n", label, time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}
