package conf

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const spanNumber = `(\d+(?:\.\d*)?|\.\d+)`

var (
	spanSeconds = regexp.MustCompile(`^` + spanNumber + `(e[+-]?\d+)?$`)
	spanUnits   = regexp.MustCompile(`^` +
		`(?:` + spanNumber + `\s*(?:d|dys?|days?)[\s,/]*)?` +
		`(?:` + spanNumber + `\s*(?:h|hrs?|hours?)[\s,/]*)?` +
		`(?:` + spanNumber + `\s*(?:m|mins?|minutes?)[\s,/]*)?` +
		`(?:` + spanNumber + `\s*(?:s|secs?|seconds?))?$`)
)

// parseSpan reads a time span: a number of seconds, or days, hours, minutes
// and seconds in that order. The forms with colons ("1:02:03") are not
// understood yet.
func parseSpan(text string) (time.Duration, error) {
	s := strings.ToLower(strings.TrimSpace(text))
	sign := 1.0
	if rest, ok := strings.CutPrefix(s, "-"); ok {
		sign, s = -1, strings.TrimSpace(rest)
	} else {
		s = strings.TrimSpace(strings.TrimPrefix(s, "+"))
	}
	var seconds float64
	if spanSeconds.MatchString(s) {
		seconds, _ = strconv.ParseFloat(s, 64) // too large: infinite
	} else if m := spanUnits.FindStringSubmatch(s); m != nil && s != "" {
		for i, unit := range []float64{86400, 3600, 60, 1} {
			n, _ := strconv.ParseFloat(m[i+1], 64) // not there: 0
			seconds += n * unit
		}
	} else {
		return 0, errors.New("not a time span")
	}
	ns := sign * seconds * float64(time.Second)
	switch {
	case ns >= math.MaxInt64:
		return math.MaxInt64, nil
	case ns <= math.MinInt64:
		return math.MinInt64, nil
	}
	return time.Duration(ns), nil
}
