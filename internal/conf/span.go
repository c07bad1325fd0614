package conf

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	spanNumber = `(\d+(?:\.\d*)?|\.\d+)`
	spanGap    = `[\s,/]*`
	spanClock  = `(\d\d(?:\.\d+)?)` // seconds behind a colon
)

const (
	minute = 60.0
	hour   = 60 * minute
	day    = 24 * hour
)

// spanForms are the forms of a time span, and what the numbers in each count,
// in seconds.
var spanForms = []struct {
	form  *regexp.Regexp
	units []float64
}{
	{regexp.MustCompile(`^(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)$`), []float64{1}}, // 90, 0.5, 1e3
	{regexp.MustCompile(`^` + // 3 days 5 hours
		`(?:` + spanNumber + `\s*(?:d|dys?|days?)` + spanGap + `)?` +
		`(?:` + spanNumber + `\s*(?:h|hrs?|hours?)` + spanGap + `)?` +
		`(?:` + spanNumber + `\s*(?:m|mins?|minutes?)` + spanGap + `)?` +
		`(?:` + spanNumber + `\s*(?:s|secs?|seconds?))?$`), []float64{day, hour, minute, 1}},
	{regexp.MustCompile(`^:` + spanClock + `$`), []float64{1}},                // :22
	{regexp.MustCompile(`^(\d\d?):` + spanClock + `$`), []float64{minute, 1}}, // 1:24
	{regexp.MustCompile(`^(?:` + spanNumber + `\s*(?:d|dys?|days?)` + spanGap + `)?` + // 1 day, 2:04:13
		`(\d+):(\d\d):` + spanClock + `$`), []float64{day, hour, minute, 1}},
	{regexp.MustCompile(`^(\d+):(\d\d):(\d\d):` + spanClock + `$`), []float64{day, hour, minute, 1}}, // 1:02:03:04
}

// parseSpan reads a time span: a number of seconds; days, hours, minutes and
// seconds in that order, each with its unit; or as clocks show them. A sign is
// that of the whole.
func parseSpan(text string) (time.Duration, error) {
	s := strings.ToLower(strings.TrimSpace(text))
	sign := 1.0
	if rest, ok := strings.CutPrefix(s, "-"); ok {
		sign, s = -1, rest
	} else {
		s = strings.TrimPrefix(s, "+")
	}
	if s = strings.TrimSpace(s); s == "" {
		return 0, errors.New("not a time span")
	}
	for _, f := range spanForms {
		m := f.form.FindStringSubmatch(s)
		if m == nil {
			continue
		}
		var seconds float64
		for i, unit := range f.units {
			n, _ := strconv.ParseFloat(m[i+1], 64) // not there: 0; too large: infinite
			seconds += n * unit
		}
		return duration(sign * seconds), nil
	}
	return 0, errors.New("not a time span")
}

// duration is a number of seconds, or what comes nearest to it.
func duration(seconds float64) time.Duration {
	switch ns := seconds * float64(time.Second); {
	case ns >= math.MaxInt64:
		return math.MaxInt64
	case ns <= math.MinInt64:
		return math.MinInt64
	default:
		return time.Duration(ns)
	}
}
