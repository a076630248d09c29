package deptest

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// pages are for people who read them in a terminal too: their lines of prose have at most so many columns.
var pages = []string{"README.md", "CHANGELOG.md", "cmd/deptest/MAP.md", "cmd/warren-bench/MEASUREMENTS.md"}

// links finds the targets of links that stay in the checkout.
var links = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

// faults returns what is wrong with a page: lines of prose that are too long, links to files that are not there.
func faults(page, text string, exists func(file string) bool) (lines []string) {
	for i, line := range strings.Split(text, "\n") {
		where := fmt.Sprintf("%s:%d", page, i+1)
		prose := !strings.HasPrefix(line, "|") && !strings.HasPrefix(line, "    ")
		if n := utf8.RuneCountInString(line); prose && n > columns {
			lines = append(lines, fmt.Sprintf("%s: got %d columns, want at most %d", where, n, columns))
		}
		for _, m := range links.FindAllStringSubmatch(line, -1) {
			if file := path.Join(path.Dir(page), m[1]); !exists(file) {
				lines = append(lines, fmt.Sprintf("%s: a link leads to %s, which is not there", where, file))
			}
		}
	}
	return lines
}

func TestPages(t *testing.T) {
	exists := func(file string) bool {
		_, err := os.Stat(filepath.Join(root, file))
		return err == nil
	}
	for _, page := range slices.Concat(pages, []string{"mesh/PROTOCOL.md"}) {
		text, err := os.ReadFile(filepath.Join(root, page))
		if err != nil {
			t.Error(err)
			continue
		}
		for _, line := range faults(page, string(text), exists) {
			if page == "mesh/PROTOCOL.md" && strings.Contains(line, " columns") {
				continue // its lines are as long as its thoughts
			}
			t.Error(line)
		}
	}
}

// TestPagesBite asserts that a long line and a dead link are told, and what need not be short is not.
func TestPagesBite(t *testing.T) {
	exists := func(file string) bool { return file == "mesh/a.go" }
	long := strings.Repeat("word ", 25)
	for _, tt := range []struct{ text, want string }{
		{"short, [a](a.go), [b](https://example.org/x), [c](#part)", ""},
		{"| " + long + " |\n    " + long, ""},
		{long, "got 125 columns"},
		{"[a](b.go)", "mesh/b.go, which is not there"},
		{"[a](b.go#L1)", "mesh/b.go, which is not there"},
	} {
		got := strings.Join(faults("mesh/X.md", tt.text, exists), "\n")
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%q: got %q, want %q", tt.text, got, tt.want)
		}
	}
}
