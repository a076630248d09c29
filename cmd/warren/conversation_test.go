package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"warren/mesh"
	"warren/mesh/agent"
	"warren/mesh/api"
	"warren/mesh/node"
	"warren/mesh/place"
	"warren/packaging"
)

var update = flag.Bool("update", false, "rewrite the conversations in testdata")

// TestConversations plays the files in testdata. In them
//
//	$ warren ARGS [< TEXT]     runs a command; what follows is its output, and its exit status if that is not 0
//	@ DIRECTIVE                changes the world, see direct; lines with | are its body
//	; ...                      is a remark
//
// DIR stands for the directory of the world.
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("conversations: got %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("%s (-update rewrites it)\ngot:\n%s\nwant:\n%s", file, got, want)
			}
		})
	}
}

// play runs the commands of a conversation and returns it with what was really answered.
func play(t *testing.T, text string) string {
	w := newWorld(t)
	var got strings.Builder
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		switch {
		case strings.HasPrefix(line, "; "):
			got.WriteString(line + "\n")
		case strings.HasPrefix(line, "@ "):
			got.WriteString(line + "\n")
			var body []string
			for i+1 < len(lines) && strings.HasPrefix(lines[i+1], "|") {
				i++
				got.WriteString(lines[i] + "\n")
				body = append(body, strings.TrimPrefix(lines[i][1:], " ")+"\n")
			}
			w.direct(strings.Fields(line[2:]), strings.Join(body, ""))
		case strings.HasPrefix(line, "$ warren"):
			command, stdin, _ := strings.Cut(strings.TrimPrefix(line, "$ warren"), " < ")
			out, code := w.say(stdin, strings.Fields(strings.ReplaceAll(command, "DIR", w.dir))...)
			fmt.Fprintf(&got, "%s\n%s", line, w.neutral(out))
			if code != 0 {
				fmt.Fprintf(&got, "exit %d\n", code)
			}
			got.WriteString("\n")
		}
	}
	return strings.TrimRight(got.String(), "\n") + "\n"
}

var localTime = regexp.MustCompile(`until \d{4}-\d\d-\d\d \d\d:\d\d`)

// neutral takes out what differs between machines.
func (w *world) neutral(out string) string {
	return localTime.ReplaceAllString(strings.ReplaceAll(out, w.dir, "DIR"), "until DATE TIME")
}

func (w *world) direct(words []string, body string) {
	switch words[0] {
	case "state": // state MESH: there is one on disk
		if err := w.makeState(words[1]); err != nil {
			w.t.Fatal(err)
		}
	case "env": // env MESH: WARREN_MESH, from here on
		w.dirs.env = strings.Join(words[1:], "")
	case "down": // down left|revoked|out|damaged|"": what the state says of the agent that does not run
		w.down = map[string]agent.Down{
			"left":    {Mesh: "home", Ending: mesh.Ending{Left: true}},
			"revoked": {Mesh: "home", Ending: mesh.Ending{Out: &mesh.FatalError{Text: strings.TrimSpace(body)}, Doubted: true}},
			"out":     {Mesh: "home", Ending: mesh.Ending{Out: &mesh.FatalError{Text: strings.TrimSpace(body)}}},
			"damaged": {Damaged: errors.New(strings.TrimSpace(body))},
		}[strings.Join(words[1:], "")]
	case "agent": // agent MESH: runs, started by hand
		w.agentUp(words[1])
		w.byHand = true
	case "kill-agent":
		w.agentDown()
	case "no-service-manager":
		w.noInit = true
	case "file": // file NAME MODE: the body, in DIR
		var mode os.FileMode
		if _, err := fmt.Sscanf(words[2], "%o", &mode); err != nil {
			w.t.Fatal(err)
		}
		w.write(words[1], strings.ReplaceAll(body, "DIR", w.dir), mode)
	case "refuse": // the agent refuses to change anything
		w.refuse = &api.Error{Code: api.CodeRefused, Message: strings.TrimSpace(body), Hint: "take care"}
	case "terminal": // questions are asked; what follows < is the answer
		w.asks = true
	case "changed": // something else would come of an act by now
		w.changed = true
	case "used-too-often":
		w.status.Invites[0].Used = w.status.Invites[0].Uses + 2
	case "mesh": // mesh NAME: its state is made, as create does
		if _, err := place.Create(place.CreateOptions{Mesh: words[1], StateRoot: w.dirs.stateRoot, Name: "alpha", NoIPv4: true}); err != nil {
			w.t.Fatal(err)
		}
	case "copy": // copy FROM TO, in DIR
		raw, err := os.ReadFile(filepath.Join(w.dir, words[1]))
		if err != nil {
			w.t.Fatal(err)
		}
		w.write(words[2], string(raw), 0o600)
	case "no-admin":
		w.status.Admins, w.status.RootKey = nil, nil
	case "exported":
		w.status.RootKey = &api.RootKey{Exported: &exampleTime}
	case "net": // net KIND: what netcheck finds
		w.net = words[1]
	case "starting":
		w.status.State = api.StateStarting
	case "alone":
		w.status.Peers, w.status.Mesh.Members, w.status.Invites = nil, 1, nil
	case "static-only":
		w.status.Mesh, w.status.Self.Name, w.status.Self.ID, w.status.Peers = nil, "", "", w.status.Peers[4:]
	case "run-ends": // how the agent in the foreground, or the start of the service, ends
		w.runErr = fmt.Errorf("%s", strings.TrimSpace(body))
		if words[1] == "final" {
			w.runErr = fmt.Errorf("%s: %w", strings.TrimSpace(body), node.ErrFinal)
		}
	default:
		w.t.Fatalf("unknown directive %q", words)
	}
}

// TestHelp holds that each command shows an example and says what it is for.
func TestHelp(t *testing.T) {
	a := newApp()
	queue := a.rootCommand().Commands()
	seen := 0
	for len(queue) > 0 {
		c := queue[0]
		queue = append(queue[1:], c.Commands()...)
		if c.Name() == "help" {
			continue
		}
		seen++
		if !strings.Contains(c.Example, c.CommandPath()) {
			t.Errorf("%s: got example %q, want one with the command itself", c.CommandPath(), c.Example)
		}
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: got summary %q, want some words without a full stop", c.CommandPath(), c.Short)
		}
	}
	if seen < 20 {
		t.Errorf("commands: got %d, want 20 at least", seen)
	}
}

func TestAgentOptions(t *testing.T) {
	w := newWorld(t)
	w.direct([]string{"state", "home"}, "")
	if out, code := w.say("", "agent"); code != 0 {
		t.Fatalf("agent: got %d, %s", code, out)
	}
	got := w.ran
	if got.Mesh != "home" || got.StateDir != w.dirs.stateDir("home") || got.Socket != w.dirs.socket("home") || got.Group != socketGroup {
		t.Errorf("options: got %+v", got)
	}
	if settings, err := got.Load(); err != nil || settings.Anchor != node.AnchorAuto {
		t.Errorf("settings without a file: got %+v, %v", settings, err)
	}
}

func TestHangupReloads(t *testing.T) {
	w := newWorld(t)
	w.direct([]string{"state", "home"}, "")
	w.during = func(ctx context.Context, o agent.Options) {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Error(err)
		}
		select {
		case <-o.Reload:
		case <-time.After(30 * time.Second):
			t.Error("no reload within 30 s of SIGHUP")
		}
	}
	if out, code := w.say("", "agent"); code != 0 {
		t.Errorf("agent: got %d, %s", code, out)
	}
}

func TestTerminalManners(t *testing.T) {
	var out strings.Builder
	p := &progress{w: &out, terminal: true}
	p.set("connecting %d of %d", 0, 2)
	p.set("connecting %d of %d", 0, 2)
	p.set("connecting %d of %d", 2, 2)
	p.keep()
	p.keep()
	if want := "\r\x1b[Kconnecting 0 of 2\r\x1b[Kconnecting 2 of 2\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestServiceNeedsAProperPath(t *testing.T) {
	w := newWorld(t)
	a := newApp()
	var out strings.Builder
	a.console, a.usual = &console{out: &out, err: &out}, w.dirs
	a.executable = func() (string, error) { return "/home/me/warren", nil }
	a.down = func(string) agent.Down { return agent.Down{} }
	a.service = func() (packaging.Service, error) { return (*fakeService)(w), nil }
	w.direct([]string{"state", "home"}, "")
	if code := a.run(t.Context(), []string{"up"}); code != 1 || !strings.Contains(out.String(), "hint: sudo install /home/me/warren "+packaging.Binary) {
		t.Errorf("got %d, %s, want the way to a proper path", code, out.String())
	}
}

// A program that others can change becomes root's service only when that is said.
func TestServiceNeedsAProgramOfRoot(t *testing.T) {
	w := newWorld(t)
	w.exposed = fmt.Errorf("/srv/x: %w", packaging.ErrExposed)
	w.direct([]string{"state", "home"}, "")
	for _, command := range [][]string{{"up"}, {"service", "install"}} {
		out, code := w.say("", command...)
		if code != 1 || !strings.Contains(out, "/srv/x: others than root can change it") || !strings.Contains(out, "service install --force") || w.enabled {
			t.Errorf("%v: got %d, %s, want it refused", command, code, out)
		}
		if out, code := w.say("", append(command, "--force")...); code != 0 || !w.enabled {
			t.Errorf("%v --force: got %d, %s, want it to run", command, code, out)
		}
		w.agentDown()
		w.enabled = false
	}
}
