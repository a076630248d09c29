//go:build !hostile

package agent

// guise is where the lab's hostile program (package hostile) takes hold of what an agent is made of. It does nothing.
func guise[T any](o T) T { return o }
