//go:build linux

// Command warren-demo shows warren on one machine: a server on the Internet and homes
// behind NATs, out of network namespaces, in which the real program makes a
// mesh, loses its founder, and goes on.
//
// The network is natlab's, the handling of the program e2e's; here is only the
// story.
//
// It runs in one goroutine from the first step to the last.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"warren/nat/natlab"
)

// How long the whole demo may take, and one step of it.
const (
	limit     = 110 * time.Second
	stepLimit = 40 * time.Second
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: demo PATH-OF-WARREN")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// labError is a step of the lab that failed; it ends the story from wherever it is.
type labError struct{ err error }

// run tells the story in a lab that is gone when it returns.
func run(ctx context.Context, binary string) (err error) {
	began := time.Now()
	outer, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	lab, err := natlab.New(natlab.Options{Name: "demo", Fatal: func(err error) { panic(labError{err}) }})
	if err != nil {
		return err
	}
	defer func() {
		switch failed := recover().(type) {
		case nil:
		case labError:
			err = failed.err
		default:
			panic(failed) // the lab's janitor cleans up
		}
		if closed := lab.Close(); closed != nil || err != nil {
			err = errors.Join(err, closed)
			return
		}
		fmt.Printf("\nThe agents, the machines and their Internet are gone again. That took %.0f seconds.\n", time.Since(began).Seconds())
	}()
	s := &story{lab: lab, binary: binary, out: os.Stdout}
	for i, step := range s.steps() {
		fmt.Fprintf(s.out, "\n--- %d. %s\n", i+1, step.title)
		ctx, cancel := context.WithTimeout(outer, stepLimit)
		err := step.tell(ctx)
		cancel()
		if errors.Is(context.Cause(outer), context.Canceled) {
			return errors.New("interrupted; everything is removed")
		}
		if err != nil {
			s.lastWords()
			return fmt.Errorf("step %d, %s: %w", i+1, step.title, err)
		}
	}
	return nil
}
