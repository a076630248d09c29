package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"warren/mesh/api"
	"warren/mesh/place"
)

// verb is how a command of the table can be said in a world so that it succeeds, and prints something.
type verb struct {
	args  []string
	stdin string
	set   func(w *world)
}

// verbs has each command that does something by itself, by its path.
var verbs = map[string]verb{
	"create":            {args: []string{"create", "home", "--name", "alpha"}},
	"invite":            {args: []string{"invite"}, set: running},
	"invite list":       {args: []string{"invite", "list"}, set: running},
	"join":              {args: []string{"join", "-", "--name", "gamma"}, stdin: "warren1good"},
	"revoke":            {args: []string{"revoke", "gamma"}, set: running},
	"admin":             {args: []string{"admin"}, set: running},
	"admin promote":     {args: []string{"admin", "promote", "gamma"}, set: running},
	"admin demote":      {args: []string{"admin", "demote", "beta", "--keep-admitted"}, set: running},
	"admin export-root": {args: []string{"admin", "export-root", "DIR/exported.key"}, set: madeMesh},
	"admin import-root": {args: []string{"admin", "import-root", "DIR/root.key"}, set: exportedMesh},
	"leave":             {args: []string{"leave"}, set: running},
	"status":            {args: []string{"status"}, set: running},
	"use":               {args: []string{"use", "home"}, set: madeMesh},
	"peers":             {args: []string{"peers"}, set: running},
	"ip":                {args: []string{"ip"}, set: running},
	"device add":        {args: []string{"device", "add", "phone"}, set: running},
	"device list":       {args: []string{"device", "list"}, set: running},
	"device show":       {args: []string{"device", "show", "phone"}, set: running},
	"device move":       {args: []string{"device", "move", "phone", "--via", "beta"}, set: running},
	"device remove":     {args: []string{"device", "remove", "phone"}, set: running},
	"dns":               {args: []string{"dns"}, set: running},
	"dns query":         {args: []string{"dns", "query", "beta"}, set: running},
	"rename":            {args: []string{"rename", "attic"}, set: running},
	"whois":             {args: []string{"whois", "100.71.0.2"}, set: running},
	"ping":              {args: []string{"ping", "beta", "-c", "2"}, set: running},
	"why":               {args: []string{"why", "beta"}, set: running},
	"netcheck":          {args: []string{"netcheck"}, set: running},
	"policy log":        {args: []string{"policy", "log"}, set: running},
	"up":                {args: []string{"up"}, set: state},
	"down":              {args: []string{"down"}, set: state},
	"restart":           {args: []string{"restart"}, set: state},
	"service install":   {args: []string{"service", "install"}, set: state},
	"service uninstall": {args: []string{"service", "uninstall"}, set: state},
	"service status":    {args: []string{"service", "status"}, set: state},
	"config show":       {args: []string{"config", "show"}},
	"config check":      {args: []string{"config", "check"}},
	"version":           {args: []string{"version"}},
	"completion":        {args: []string{"completion", "bash"}},
}

// wordless print nothing of their own, and why.
var wordless = map[string]string{"agent": "runs, and logs to standard error", "logs": "another program shows the log"}

// noJSON have no JSON, and why.
var noJSON = map[string]string{
	"completion":   "prints a script",
	"config check": "lists mistakes as compilers do; `config show --json` has the rest",
	"agent":        "runs", "logs": "another program shows the log",
}

func running(w *world)  { w.direct([]string{"state", "home"}, ""); w.agentUp("home") }
func state(w *world)    { w.direct([]string{"state", "home"}, "") }
func madeMesh(w *world) { w.direct([]string{"mesh", "home"}, "") }

func exportedMesh(w *world) {
	madeMesh(w)
	if err := place.ExportRoot(w.dirs.stateDir("home"), w.dir+"/root.key", true); err != nil {
		w.t.Fatal(err)
	}
}

func (v verb) in(t *testing.T) (*world, []string) {
	w := newWorld(t)
	if v.set != nil {
		v.set(w)
	}
	args := slices.Clone(v.args)
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "DIR", w.dir)
	}
	return w, args
}

// eachVerb calls do for each command that does something by itself, with its path.
func eachVerb(t *testing.T, do func(path string, c *cobra.Command)) {
	t.Helper()
	root := newApp().rootCommand()
	queue, seen := root.Commands(), 0
	for len(queue) > 0 {
		c := queue[0]
		queue = append(queue[1:], c.Commands()...)
		path := strings.TrimPrefix(c.CommandPath(), "warren ")
		if c.Name() == "help" || c.Name() == "__complete" || path == "service" || path == "config" || path == "device" || path == "policy" {
			continue
		}
		seen++
		do(path, c)
	}
	if seen < 25 {
		t.Errorf("commands: got %d, want 25 at least", seen)
	}
}

// failing is a standard output that fails after some bytes.
type failing struct {
	room int
	err  error
	got  bytes.Buffer
}

func (f *failing) Write(p []byte) (int, error) {
	n := min(len(p), f.room-f.got.Len())
	f.got.Write(p[:n])
	if n < len(p) {
		return n, &os.PathError{Op: "write", Path: "/dev/stdout", Err: f.err}
	}
	return n, nil
}

// into runs one command line with a standard output of the test's.
func (w *world) into(out io.Writer, stdin string, args ...string) (errOut string, code int) {
	var said bytes.Buffer
	code = w.with(&console{in: strings.NewReader(stdin), out: out, err: &said}).run(w.t.Context(), args)
	return said.String(), code
}

// TestStandardOutputFails: every command says that its output could not be written, and one that changes something has done it all the
// same. A pipe that nobody reads is no failure to talk of.
func TestStandardOutputFails(t *testing.T) {
	eachVerb(t, func(path string, c *cobra.Command) {
		v, known := verbs[path]
		if !known {
			if wordless[path] == "" {
				t.Errorf("%s: not in the list of this test, so nobody knows what it does when its output fails", path)
			}
			return
		}
		ways := [][]string{nil}
		if c.Flags().Lookup("json") != nil {
			ways = append(ways, []string{"--json"})
		}
		for _, more := range ways {
			for _, room := range []int{0, 3} {
				w, args := v.in(t)
				said, code := w.into(&failing{room: room, err: syscall.ENOSPC}, v.stdin, append(args, more...)...)
				if want := "could not write to standard output: no space left on device"; code != 1 || !strings.Contains(said, want) {
					t.Errorf("%s %v, no room after %d bytes: got %d and %q, want 1 and %q", path, more, room, code, said, want)
				}
				if has(c, markChanges) && path == "create" && !w.running() {
					t.Errorf("%s: the agent does not run: it was left half done", path)
				}
				w.agentDown()

				w, args = v.in(t)
				said, code = w.into(&failing{room: room, err: syscall.EPIPE}, v.stdin, append(args, more...)...)
				if path != "invite" && (code != exitPipe || strings.Contains(said, "warren:")) {
					t.Errorf("%s %v, nobody reads after %d bytes: got %d and %q, want %d and no complaint", path, more, room, code, said, exitPipe)
				}
				w.agentDown()
			}
		}
	})
	for _, args := range [][]string{{"--help"}, {"help", "invite"}, {"--version"}, {"-v"}, {"invite", "--help"}, {"__complete", "st"}} {
		if said, code := newWorld(t).into(&failing{err: syscall.ENOSPC}, "", args...); code != 1 || !strings.Contains(said, "no space left") {
			t.Errorf("%v: got %d and %q, want 1 and a word on the space", args, code, said)
		}
	}
}

// A token that could not be written is not lost without a word: it is shown to who sits there, else its invite ends.
func TestTokenIsNotLost(t *testing.T) {
	for _, more := range [][]string{nil, {"--json"}, {"--qr"}} {
		for _, failure := range []error{syscall.ENOSPC, syscall.EPIPE, syscall.EIO} {
			w := newWorld(t)
			running(w)
			said, code := w.into(&failing{room: 5, err: failure}, "", append([]string{"invite"}, more...)...)
			if code != 1 || !strings.Contains(said, "could not write to standard output") || !strings.Contains(said, "its invite is withdrawn") || strings.Contains(said, "warren1token") {
				t.Errorf("%v, %v: got %d and %q, want 1 and that the invite is withdrawn, without the token", more, failure, code, said)
			}
			if len(w.committed) != 1 || w.committed[0].Act.Invite == "" || !w.committed[0].Keep {
				t.Errorf("%v, %v: done was %+v, want the invite withdrawn", more, failure, w.committed)
			}

			w = newWorld(t)
			running(w)
			var terminal bytes.Buffer
			con := &console{in: strings.NewReader(""), out: &failing{room: 5, err: failure}, err: &terminal, terminal: true}
			code = w.with(con).run(t.Context(), append([]string{"invite"}, more...))
			if code != 1 || !strings.Contains("\n"+terminal.String(), "\nwarren1token\n") || !strings.Contains(terminal.String(), "shown above") || len(w.committed) != 0 {
				t.Errorf("%v, %v on a terminal: got %d and %q, and %+v, want the token there", more, failure, code, terminal.String(), w.committed)
			}
		}
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	running(w)
	if said, code := w.into(null, "", "invite"); code != 1 || !strings.Contains(said, "no invite was made") {
		t.Errorf("into /dev/null: got %d and %q, want no invite", code, said)
	}
	// The withdrawal fails as well: then it is said how to.
	w = newWorld(t)
	running(w)
	w.changed = true
	if said, code := w.into(&failing{err: syscall.ENOSPC}, "", "invite"); code != 1 || !strings.Contains(said, "sudo warren revoke --invite hhhhhhhhhh") {
		t.Errorf("withdrawal refused: got %d and %q, want the way to end it", code, said)
	}
}

// What only looks ends when nobody reads, however long it would go on.
func TestWatchEndsWithItsReader(t *testing.T) {
	w := newWorld(t)
	running(w)
	if said, code := w.into(&failing{room: 10, err: syscall.EPIPE}, "", "status", "--watch"); code != exitPipe || said != "" {
		t.Errorf("got %d and %q, want %d", code, said, exitPipe)
	}
}

func TestOutputIsClosed(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	out := &output{w: file}
	if _, err := out.Write([]byte("x")); err != nil || out.close() != nil {
		t.Errorf("write: got %v and %v, want no error", err, out.err)
	}
	if _, err := out.Write([]byte("x")); !errors.Is(err, errOutput) {
		t.Errorf("after the end: got %v, want errOutput", err)
	}
}

// TestTable walks all commands: each has help, an example that can be said, words for the shell, and JSON.
func TestTable(t *testing.T) {
	eachVerb(t, func(path string, c *cobra.Command) {
		if noJSON[path] == "" && c.Flags().Lookup("json") == nil {
			t.Errorf("%s: no --json", path)
		}
		if c.Short == "" || !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: summary %q, example %q", path, c.Short, c.Example)
		}
		takes := strings.TrimPrefix(c.Use, c.Name())
		if strings.TrimSpace(takes) != "" && c.ValidArgsFunction == nil && len(c.ValidArgs) == 0 {
			t.Errorf("%s takes%s, and the shell completes nothing", path, takes)
		}
		var out strings.Builder
		if said, code := newWorld(t).into(&out, "", append(strings.Fields(path), "--help")...); code != 0 || said != "" || !strings.Contains(out.String(), "Examples:") {
			t.Errorf("%s --help: got %d, %q, %s", path, code, said, out.String())
		}
		// Wrong usage has one status, wherever it is found.
		for _, wrong := range [][]string{{"--no-such-flag"}, {"a", "b", "c", "d"}} {
			if said, code := newWorld(t).into(io.Discard, "", append(strings.Fields(path), wrong...)...); code != 2 || !strings.Contains(said, "\nhint: ") {
				t.Errorf("%s %v: got %d and %q, want 2 and a hint", path, wrong, code, said)
			}
		}
	})
}

// TestJSONOfVerbs: standard output holds one JSON value with a schema, and nothing else; what is said to people is elsewhere.
func TestJSONOfVerbs(t *testing.T) {
	eachVerb(t, func(path string, c *cobra.Command) {
		if noJSON[path] != "" {
			return
		}
		v := verbs[path]
		w, args := v.in(t)
		var out bytes.Buffer
		said, code := w.into(&out, v.stdin, append(args, "--json")...)
		var got struct {
			Schema int `json:"schema"`
		}
		if err := json.Unmarshal(out.Bytes(), &got); code != 0 || err != nil || got.Schema != api.Schema {
			t.Errorf("%s --json: got %d, %v, schema %d, out %s, said %s", path, code, err, got.Schema, out.String(), said)
		}
		w.agentDown()
	})
	// What was made is said even where it could not be started.
	w := newWorld(t)
	w.runErr = errors.New("systemctl start: Job failed")
	var out bytes.Buffer
	said, code := w.into(&out, "", "create", "home", "--name", "alpha", "--json")
	if code != 1 || !strings.Contains(out.String(), `"mesh": "home"`) || !strings.Contains(out.String(), `"running": false`) || !strings.Contains(said, "Job failed") {
		t.Errorf("create that does not start: got %d, %s, %s", code, out.String(), said)
	}
}

// TestSuggestions: a word that is no command is never taken for one that destroys.
func TestSuggestions(t *testing.T) {
	for said, want := range map[string]string{
		"stauts": "warren status", "statsu": "warren status", "serve": "warren agent", "serv": "warren service", "list": "warren peers", "start": "warren up",
		"log": "warren logs", "addr": "warren ip", "invit": "warren invite", "Status": "warren status", "who": "warren whois", "versoin": "warren version",
		"leav": "", "laeve": "", "revok": "", "rm": "", "remove": "", "stop": "", "dwon": "", "dow": "", "delete": "", "kick": "", "logout": "", "uninstall": "", "frobnicate": "",
		"service uninstal": "", "service stop": "", "service start": "warren up", "service statsu": "warren service status", "admin demot": "", "admin remove": "",
		"admin promot": "warren admin promote", "config chek": "warren config check", "invite ls": "warren invite list",
	} {
		out, code := newWorld(t).say("", strings.Fields(said)...)
		hint := "see: "
		if want != "" {
			hint = "did you mean: " + want + "\n"
		}
		if code != 2 || !strings.Contains(out, "hint: "+hint) {
			t.Errorf("%q: got %d and %q, want 2 and %q", said, code, out, hint)
		}
	}
	root := newApp().rootCommand()
	known := make(map[string]bool)
	var destroying []string
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		known[c.CommandPath()] = true
		if has(c, markDestroys) {
			destroying = append(destroying, c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	if len(destroying) != 6 {
		t.Errorf("commands that destroy: got %v, want six", destroying)
	}
	for word, to := range meant {
		if !known["warren "+to] || slices.Contains(destroying, "warren "+to) || known["warren "+word] {
			t.Errorf("%q is taken for %q: want a command that is there, destroys nothing, and is no other word's", word, to)
		}
	}
	// No word that differs by a letter or two from one that destroys leads there.
	for _, path := range destroying {
		for at := range len(path) {
			near := strings.Fields(path[:at] + path[min(at+1, len(path)):])
			if len(near) < 2 || near[0] != "warren" || known[strings.Join(near, " ")] {
				continue
			}
			if out, _ := newWorld(t).say("", near[1:]...); slices.ContainsFunc(destroying, func(d string) bool { return strings.Contains(out, "did you mean: "+d+"\n") }) {
				t.Errorf("%v: got %q", near, out)
			}
		}
	}
}

// TestHelpOfNothing: help that is asked for what is no command fails as the command would.
func TestHelpOfNothing(t *testing.T) {
	for said, want := range map[string]int{"help": 0, "help invite": 0, "help invite list": 0, "help status more": 0, "help stauts": 2, "help admin nonsense": 2} {
		if out, code := newWorld(t).say("", strings.Fields(said)...); code != want || out == "" {
			t.Errorf("%s: got %d and %q, want %d", said, code, out, want)
		}
	}
	one, _ := newWorld(t).say("", "version")
	for _, flag := range []string{"--version", "-v"} {
		if out, code := newWorld(t).say("", flag); code != 0 || out != one {
			t.Errorf("%s: got %d and %q, want %q", flag, code, out, one)
		}
	}
}

// TestLogs: the tool of the service manager is run in the place of this program.
func TestLogs(t *testing.T) {
	w := newWorld(t)
	state(w)
	a := w.with(&console{in: strings.NewReader(""), out: io.Discard, err: io.Discard})
	var ran []string
	a.attach = func(_ context.Context, argv []string) error { ran = argv; return nil }
	if code := a.run(t.Context(), []string{"logs", "-f", "-n", "7"}); code != 0 || strings.Join(ran, " ") != "journalctl -u warren@home 7 true" {
		t.Errorf("got %d and %v", code, ran)
	}
	w.noInit = true
	if out, code := w.say("", "logs"); code != 1 || !strings.Contains(out, "docker logs") {
		t.Errorf("in a container: got %d and %q", code, out)
	}
}
