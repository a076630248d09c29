package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/api"
	"warren/mesh/place"
)

const (
	// joinTime bounds the search for a member that admits us: four anchors, each with time for lost packets.
	joinTime = time.Minute
	// connectTime is how long join watches the first tunnels come up. They go on without being watched.
	connectTime = 20 * time.Second
	// maxTokenInput is far above the 160 characters of a token, so that a wrong file is refused and not cut.
	maxTokenInput = 4096
)

func (a *app) joinCommand() *cobra.Command {
	var flags nodeFlags
	cmd := &cobra.Command{
		Use:   "join [TOKEN|-]",
		Short: "Join a mesh with a token from `warren invite`",
		Long: "Join a mesh with a token from `warren invite`, and start its agent.\n\n" +
			"Without a token, or with -, it is read from standard input, so that it does not stand in the\n" +
			"list of processes or the history of the shell. Any one member online is enough.",
		Example: "  sudo warren join\n" +
			"  ssh gate sudo warren invite | sudo warren join -",
		Args: between(0, 1, "[TOKEN|-]"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			token, err := a.token(args)
			if err != nil {
				return err
			}
			return a.runJoin(cmd.Context(), place.JoinOptions{
				Token: token, StateRoot: a.dirs.stateRoot, Name: flags.name, Endpoints: flags.endpoints, Port: flags.port,
				Version: version(), Logger: a.quietLogger(),
			}, flags.noStart)
		},
	}
	flags.add(cmd)
	return cmd
}

// token returns the token from the arguments, from a terminal without echo, or from standard input.
func (a *app) token(args []string) (string, error) {
	if len(args) == 1 && args[0] != "-" {
		return args[0], nil
	}
	var text string
	if a.readSecret != nil {
		fmt.Fprint(a.err, "token (not shown): ")
		secret, err := a.readSecret()
		fmt.Fprintln(a.err)
		if err != nil {
			return "", fmt.Errorf("read token: %w", err)
		}
		text = secret
	} else {
		raw, err := io.ReadAll(io.LimitReader(a.in, maxTokenInput+1))
		if err != nil {
			return "", fmt.Errorf("read token: %w", err)
		}
		if len(raw) > maxTokenInput {
			return "", errors.New("standard input is no token: too long")
		}
		text = string(raw)
	}
	if strings.TrimSpace(text) == "" {
		return "", &usageError{message: "no token on standard input", hint: "make one on a member with: sudo warren invite"}
	}
	return text, nil
}

func (a *app) runJoin(ctx context.Context, options place.JoinOptions, noStart bool) error {
	show := &progress{w: a.err, terminal: a.terminal}
	limited, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	made, err := a.join(limited, options, func(p place.JoinProgress) {
		switch p.Stage {
		case place.StageContacting:
			show.set("contacting %s", p.Anchor)
		case place.StageSeeking:
			show.set("looking for members on the local network")
		case place.StageAdmitted:
			show.set("admitted to %s by %s", p.Mesh, p.By)
			show.keep()
		case place.StageSynced:
			show.set("syncing %d records", p.Records)
		}
	})
	show.keep()
	if errors.Is(err, fs.ErrExist) {
		return hinted(fmt.Errorf("this machine is in that mesh already, or in another one of its name: %w", err), "see: warren status; to leave it: sudo warren leave")
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "joined mesh %s as %s, %s\n", made.Mesh, made.Name, addressList(made))
	if err := a.startAfter(ctx, made.Mesh, noStart); err != nil || noStart {
		return err
	}
	return a.watchConnecting(ctx, made.Mesh, show)
}

// watchConnecting shows how the first tunnels come up. Peers that are switched off do not hold it for long.
func (a *app) watchConnecting(ctx context.Context, mesh string, show *progress) error {
	var last api.Status
	err := poll(ctx, connectTime, func(ctx context.Context) (bool, error) {
		status, err := a.dirs.client(mesh).Status(ctx)
		if errors.Is(err, api.ErrNotRunning) {
			return true, nil // no service manager started it: nothing to watch
		}
		if err != nil {
			return false, err
		}
		last = status
		if status.Mesh != nil && status.Mesh.Syncing > 0 {
			show.set("syncing %d records", status.Mesh.Syncing)
			return false, nil
		}
		up, all, waiting := count(status.Peers)
		show.set("connecting %d of %d", up, all)
		return waiting == 0, nil
	}, errLate)
	show.keep()
	if err != nil && !errors.Is(err, errLate) {
		return err
	}
	if last.Mesh == nil {
		return nil
	}
	if up, all, _ := count(last.Peers); up < all {
		fmt.Fprintf(a.out, "%d of %d peers connected; why the others are not: warren status%s\n", up, all, a.meshFlag(mesh))
	} else {
		fmt.Fprintf(a.out, "all %d peers connected\n", all)
	}
	return nil
}

var errLate = errors.New("not all peers are connected")

// count returns how many members are up, how many there are, and how many are still being connected.
func count(peers []api.Peer) (up, all, waiting int) {
	for _, p := range peers {
		if p.Static || p.State == api.PeerLeft {
			continue
		}
		all++
		switch p.State {
		case api.PeerUp:
			up++
		case api.PeerConnecting:
			waiting++
		}
	}
	return up, all, waiting
}

// progress shows one thing that goes on: on a terminal in one line that is rewritten, elsewhere in a line for each change.
type progress struct {
	w        io.Writer
	terminal bool
	last     string
}

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
