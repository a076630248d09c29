package deptest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"warren/tunnel/osnet/osnettest"
)

// Whoever builds a commit gets the bytes that everybody gets, or nobody could tell what a program was made of. All platforms, and with
// an empty cache, are built twice in CI.
func TestBuildsAreTheSame(t *testing.T) {
	for _, tool := range []string{"make", "tar", "cmp"} {
		_, err := exec.LookPath(tool)
		osnettest.Need(t, err == nil, tool)
	}
	cmd := exec.CommandContext(t.Context(), "../../.ci/reproducible", "-cached", "linux/arm64")
	cmd.Env = append(os.Environ(), "MAKEFLAGS=")
	text, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(text), ": the same twice") != 2 {
		t.Errorf("got %v, want two programs that are the same: %s", err, text)
	}
}
