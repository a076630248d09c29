package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
)

// exitPipe is how the shell sees a program that a closed pipe has ended (128 and SIGPIPE): no failure, and no success either.
const exitPipe = 128 + int(syscall.SIGPIPE)

// errOutput is wrapped by all that an output fails with.
var errOutput = errors.New("could not write to standard output")

// output is standard output. Commands print without looking at what comes of it: the first failure is kept, nothing is written after it,
// and whoever runs the command asks for it at the end. That way no command can forget to.
type output struct {
	w    io.Writer
	lost func() // called at the first failure; nil: nothing

	mu  sync.Mutex
	err error
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	err := o.err
	o.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := o.w.Write(p)
	if err == nil {
		return n, nil
	}
	return n, o.fail(err)
}

// fail keeps the first failure and returns it.
func (o *output) fail(err error) error {
	o.mu.Lock()
	first := o.err == nil
	if first {
		o.err = fmt.Errorf("%w: %w", errOutput, cause(err))
	}
	err, lost := o.err, o.lost
	o.mu.Unlock()
	if first && lost != nil {
		lost()
	}
	return err
}

// close returns the first failure. A file system may only now tell that it had no room (close(2)).
func (o *output) close() error {
	if file, ok := o.w.(*os.File); ok {
		if err := file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			return o.fail(err)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// nowhere reports whether what is written is seen by nobody: standard output was closed, for which the runtime opens /dev/null, or it
// is that from the start.
func (o *output) nowhere() bool {
	file, ok := o.w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	null, nullErr := os.Stat(os.DevNull)
	return err == nil && nullErr == nil && os.SameFile(info, null)
}

// cause is what a system call has said, without the name of a file that is called /dev/stdout whatever it is.
func cause(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}
