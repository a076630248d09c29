package deptest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// clockRule is about times as numbers.
const clockRule = "a time that becomes nanoseconds of the day loses the reading of the monotonic clock: after somebody has set the clock it is compared " +
	"with another one. Keep the time.Time, or the duration since one"

// clockNumbers are the files that may turn times into nanoseconds, each with the reason.
var clockNumbers = map[string]string{
	"tunnel/bind/moment.go": "counts them by the clock as it was when the process began",
	"tunnel/shakes.go":      "takes them from the device, and turns them into times at once",
	"nat/path/life.go":      "a phase within a second, the same on all machines, and nothing else",
}

var clockNumber = regexp.MustCompile(`\.UnixNano\(\)|\btime\.Unix\(0,`)

// numbered returns the lines of a file in which a time is made a number, or a number a time.
func numbered(name, text string) (out []string) {
	for i, line := range strings.Split(text, "\n") {
		if code, _, _ := strings.Cut(line, "//"); clockNumber.MatchString(code) {
			out = append(out, fmt.Sprintf("%s:%d: %s", name, i+1, clockRule))
		}
	}
	return out
}

func TestClocksAreNoNumbers(t *testing.T) {
	unused := maps.Clone(clockNumbers)
	for pkg, files := range goFiles(t) {
		if floor(pkg) == tests {
			continue
		}
		for _, file := range files {
			text, err := os.ReadFile(filepath.Join(root, file))
			if err != nil {
				t.Fatal(err)
			}
			wrong := numbered(file, string(text))
			for _, allowed := range []string{file, filepath.Dir(file)} {
				if _, ok := clockNumbers[allowed]; ok && len(wrong) > 0 {
					delete(unused, allowed)
					wrong = nil
				}
			}
			for _, line := range wrong {
				t.Error(line)
			}
		}
	}
	for _, file := range slices.Sorted(maps.Keys(unused)) {
		t.Errorf("%s needs no exception any more: take it off the list", file)
	}
}

// TestClockRuleBites feeds the rule with code that breaks it, and with code that does not.
func TestClockRuleBites(t *testing.T) {
	for line, want := range map[string]bool{
		"	now := time.Now().UnixNano()": true, "	at := time.Unix(0, nano)": true, "	x.Store(at.UnixNano())": true,
		"	in.Millis = now.UnixMilli()": false, "	at := time.Unix(sec, 0)": false, "	now := time.Now() // not UnixNano()": false,
	} {
		if got := len(numbered("a.go", line)) > 0; got != want {
			t.Errorf("%q: got %v, want %v", line, got, want)
		}
	}
}
