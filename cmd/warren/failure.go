package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"warren/config"
	"warren/mesh/api"
	"warren/packaging"
)

// usageError is a command line that makes no sense: exit status 2.
type usageError struct{ message, hint string }

func (e *usageError) Error() string { return e.message }

// hintedError is a failure with what to do about it.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

func hinted(err error, hint string) error { return &hintedError{err, hint} }

// report prints a failure in one line, and a hint in a second one where there is something to do. A config file is the
// exception: all its mistakes are listed, as compilers do.
func (c *console) report(err error) {
	var file config.Errors
	if errors.As(err, &file) {
		for _, mistake := range file {
			fmt.Fprintln(c.err, clean(mistake.Error()))
		}
		return
	}
	fmt.Fprintln(c.err, "warren: "+clean(err.Error()))
	hint := c.here.hint(err)
	if hint == "" {
		hint = hintFor(err)
	}
	if hint != "" {
		fmt.Fprintln(c.err, "hint: "+clean(hint))
	}
}

// verdict reports what a command has failed with, and what standard output has, and returns the exit status.
func (c *console) verdict(err, lost error) int {
	var hint *hintedError
	switch {
	case err == nil && lost == nil:
		return 0
	case lost == nil, errors.As(err, &hint):
		c.report(err)
		return exitStatus(err)
	case errors.Is(lost, syscall.EPIPE): // as of a program that SIGPIPE has ended, which says nothing either
		if err != nil && !errors.Is(err, errOutput) && !errors.Is(err, context.Canceled) {
			c.report(err)
			return exitStatus(err)
		}
		return exitPipe
	case err != nil && !errors.Is(err, errOutput) && !errors.Is(err, context.Canceled):
		c.report(err)
		c.report(lost)
		return exitStatus(err)
	}
	c.report(lost)
	return 1
}

func hintFor(err error) string {
	var usage *usageError
	var withHint *hintedError
	var fromAgent *api.Error
	switch {
	case errors.As(err, &withHint):
		return withHint.hint
	case errors.As(err, &usage):
		return usage.hint
	case errors.As(err, &fromAgent):
		return fromAgent.Hint
	case errors.Is(err, api.ErrNotRunning):
		return "start it with: sudo warren up"
	case errors.Is(err, api.ErrNoAccess):
		return "try again with sudo, or join the group: sudo usermod -aG " + socketGroup + " $USER"
	case errors.Is(err, api.ErrProtocol):
		return "agent and program are of different versions; replace the agent with: sudo warren restart"
	case errors.Is(err, packaging.ErrNone):
		return "run the agent yourself: sudo warren agent"
	case errors.Is(err, fs.ErrPermission):
		return "try again with sudo"
	}
	return ""
}
