package osnettest

import "testing"

// InNamespace skips the test: macOS has no network namespaces.
func InNamespace(t *testing.T) bool {
	t.Helper()
	t.Skip("needs network namespaces, which macOS has not")
	return false
}

// Need skips the test when a thing that it needs is missing, and says which.
func Need(t *testing.T, there bool, what string) {
	t.Helper()
	if !there {
		t.Skipf("needs %s", what)
	}
}
