package main

import (
	"fmt"
	"os"
	"time"
)

// began is when the program started, which the elapsed time counts from.
var began = time.Now()

// progress tells the person who waits what is being done.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "[%5.1f s] %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}
