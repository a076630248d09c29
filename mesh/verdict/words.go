package verdict

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "s") {
		return fmt.Sprintf("%d %ses", n, what)
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func sized(bytes uint64) string { return counted(int(bytes), "byte") }

// coarse prints a duration as a person would say it.
func coarse(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return counted(int(max(d, 0)/time.Second), "second")
	case d < 2*time.Hour:
		return counted(int(d/time.Minute), "minute")
	case d < 48*time.Hour:
		return counted(int(d/time.Hour), "hour")
	}
	return counted(int(d/(24*time.Hour)), "day")
}

// older reports whether version a is surely older than b: both are numbers with dots, or one is no version at all.
func older(a, b string) bool {
	x, y := numbers(a), numbers(b)
	return x != nil && y != nil && slices.Compare(x, y) < 0
}

func numbers(version string) (out []int) {
	release, _, _ := strings.Cut(strings.TrimPrefix(version, "v"), "-")
	for part := range strings.SplitSeq(release, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return nil
		}
		out = append(out, n)
	}
	return out
}
