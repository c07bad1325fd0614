package conf

import (
	"fmt"
	"strings"
)

// suggest names what was probably meant, if that can be guessed.
func suggest(word string, known []string) string {
	best, dist := "", 2+(len(word)-1)/4
	for _, k := range known {
		if d := distance(strings.ToLower(strings.TrimSpace(word)), strings.ToLower(k)); d < dist {
			best, dist = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", best)
}

// distance is how many characters have to be changed, added, removed or swapped
// with their neighbours to get from a to b (Damerau, Levenshtein).
func distance(a, b string) int {
	if len(a) > maxText {
		return len(a) // nobody's typo
	}
	// One row for each character of a; [i][j] is the distance of a[:i] and b[:j].
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			d := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				d = 1 + min(d, rows[i-1][j], rows[i][j-1])
				if i > 1 && j > 1 && a[i-2] == b[j-1] && a[i-1] == b[j-2] {
					d = min(d, 1+rows[i-2][j-2])
				}
			}
			rows[i][j] = d
		}
	}
	return rows[len(a)][len(b)]
}
