package config

import "strings"

// Nearest returns the candidate that a mistyped word most likely meant, "" when none is near: one that it is the start
// of, or in which at most a third of the letters differ, two transposed ones counting once.
func Nearest(word string, candidates []string) string {
	best, bestDistance := "", len(word)/3+1
	if len(word) > 64 { // no key is nearly that long, and the distance is quadratic
		return ""
	}
	for _, c := range candidates {
		if len(word) > 2 && strings.HasPrefix(c, word) {
			return c
		}
		if d := distance(word, c); d < bestDistance || d == bestDistance && best == "" {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the optimal string alignment distance (Damerau and Levenshtein) of two words, in bytes.
func distance(a, b string) int {
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			row[j+1] = min(last[j]+cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}
