package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"golang.org/x/term"

	"warren/mesh/api"
)

// console is where an invocation reads and writes. What is asked for goes to out, all that is said beside it to err. Where JSON is asked
// for, that alone goes to standard output, and what is said to people to err.
type console struct {
	in       io.Reader
	out      io.Writer
	err      io.Writer
	stdout   *output       // set by run; what is said to people goes there by out
	json     bool          // JSON is asked for
	terminal bool          // err is a terminal: progress may rewrite its line
	here     *surroundings // nil: nothing is known of them
	// readSecret reads a line without echo; nil when in is no terminal.
	readSecret func() (string, error)
	// ask puts a question to err and reads the answer, without the spaces around it; nil when in is no terminal.
	ask func(ctx context.Context, question string) (string, error)
	// recognise finds the token in a text; nil for what tokenIn does. Tests put their own here.
	recognise func(text string) (string, error)
}

func newConsole() *console {
	c := &console{in: os.Stdin, out: os.Stdout, err: os.Stderr, terminal: term.IsTerminal(int(os.Stderr.Fd())), here: newSurroundings()}
	if in := int(os.Stdin.Fd()); term.IsTerminal(in) {
		c.readSecret = func() (string, error) {
			secret, err := term.ReadPassword(in)
			return string(secret), err
		}
		c.ask = c.answer
	}
	return c
}

// maxAnswer bounds an answer: it is a word.
const maxAnswer = 256

// answer puts a question to err and reads a line from in. The end of the input is an empty answer. The reader that ctx leaves behind ends
// with the process.
func (c *console) answer(ctx context.Context, question string) (string, error) {
	fmt.Fprint(c.err, question)
	type read struct {
		line string
		err  error
	}
	got, in := make(chan read, 1), io.LimitReader(c.in, maxAnswer)
	go func() {
		line, err := bufio.NewReader(in).ReadString('\n')
		got <- read{line, err}
	}()
	select {
	case r := <-got:
		if r.err != nil && !errors.Is(r.err, io.EOF) {
			return "", fmt.Errorf("read answer: %w", r.err)
		}
		return strings.TrimSpace(r.line), nil
	case <-ctx.Done():
		fmt.Fprintln(c.err)
		return "", ctx.Err()
	}
}

func (c *console) printJSON(v any) error {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	_, err := c.stdout.Write(api.Harmless(body.Bytes()))
	return err
}

// asJSON makes what is said to people go to err, so that printJSON has standard output for itself.
func (c *console) asJSON() { c.json, c.out = true, c.err }

// done ends a command that has changed something: with --json, with what has become of it.
func (c *console) done(v any) error {
	if !c.json {
		return nil
	}
	return c.printJSON(v)
}

// remark says something beside what was asked for.
func (c *console) remark(format string, args ...any) {
	fmt.Fprintln(c.err, "note: "+clean(fmt.Sprintf(format, args...)))
}

// quietLogger is for work in the foreground: what matters there is told by results and errors.
func (c *console) quietLogger() *slog.Logger {
	return slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// progress shows one thing that goes on: on a terminal in one line that is rewritten, elsewhere in a line for each change.
type progress struct {
	w        io.Writer
	terminal bool
	last     string
}

func (c *console) progress() *progress { return &progress{w: c.err, terminal: c.terminal} }

func (p *progress) set(format string, args ...any) {
	text := clean(fmt.Sprintf(format, args...))
	if text == p.last {
		return
	}
	p.last = text
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", text) // ESC [ K clears to the end of the line (ECMA-48)
	} else {
		fmt.Fprintln(p.w, text)
	}
}

// keep leaves the line on the terminal as it is.
func (p *progress) keep() {
	if p.terminal && p.last != "" {
		fmt.Fprintln(p.w)
	}
	p.last = ""
}
