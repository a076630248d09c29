package tunnel

// turns is how others have a goroutine do something with what it owns: whoever calls waits for its turn.
type turns[T any] struct {
	calls chan call[T]    // unbuffered
	ready <-chan struct{} // closed when the goroutine takes calls
	gone  <-chan struct{} // closed when it takes no more
}

// call is work for the owner of a T.
type call[T any] struct {
	do   func(*T) error
	done chan error // of capacity 1
}

// do has the owner call f and returns what it returns, or ErrNotRunning.
func (t *turns[T]) do(f func(*T) error) error {
	select {
	case <-t.ready:
	default:
		return ErrNotRunning
	}
	c := call[T]{do: f, done: make(chan error, 1)}
	select {
	case t.calls <- c:
		return <-c.done
	case <-t.gone:
		return ErrNotRunning
	}
}
