package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
)

// joinCommand takes this machine into a mesh.
type joinCommand struct {
	dirs  *dirs
	con   *console
	start *starter
	join  func(context.Context, place.JoinOptions, func(place.JoinProgress)) (place.Membership, error)
}

func (c joinCommand) cobra() *cobra.Command {
	var flags nodeFlags
	var noIPv4 bool
	cmd := &cobra.Command{
		Use:   "join [TOKEN|FILE|-]",
		Short: "Join a mesh with a token from `warren invite`",
		Long: "Join a mesh with a token from `warren invite`, and start its agent.\n\n" +
			"Without a token, or with -, it is read from standard input, so that it does not stand in the\n" +
			"list of processes or the history of the shell. A file that holds it, a mail or the JSON of\n" +
			"`warren invite --json` will do: the token is found in it. Any one member online is enough.",
		Example: "  sudo warren join\n" +
			"  sudo warren join invite.txt\n" +
			"  ssh gate sudo warren invite | sudo warren join -",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			token, err := c.con.token(args)
			if err != nil {
				return err
			}
			return c.run(cmd.Context(), place.JoinOptions{
				Token: token, StateRoot: c.dirs.stateRoot, Name: flags.name, Endpoints: flags.endpoints, Port: flags.port,
				Claims: c.dirs.claims(), Version: version(), NoIPv4: noIPv4, Logger: c.con.quietLogger(),
			}, flags.noStart)
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&noIPv4, "no-ipv4", false, "reach the mesh by IPv6 alone, where this machine uses its IPv4 network for something else")
	return cmd
}

func (c joinCommand) run(ctx context.Context, options place.JoinOptions, noStart bool) error {
	show := c.con.progress()
	before, _ := c.dirs.present()
	limited, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	made, err := c.join(limited, options, func(p place.JoinProgress) {
		switch p.Stage {
		case place.StageContacting:
			show.set("contacting %s", p.Anchor)
		case place.StageWaiting:
			show.set("waiting for another join or create on this machine")
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
	switch {
	case errors.Is(err, fs.ErrExist):
		return hinted(err, "see: warren status; to leave it: sudo warren leave")
	case err != nil:
		if hint := joinHint(err, options.Token); hint != "" {
			return hinted(err, hint)
		}
		return err
	case made.Already:
		return c.already(ctx, made, noStart)
	}
	fmt.Fprintf(c.con.out, "joined mesh %s as %s, %s\n", made.Mesh, made.Name, addressList(made))
	c.con.beside(made)
	c.con.clock(made)
	c.dirs.keepMeaning(c.con, before, made.Mesh)
	err = c.start.after(ctx, c.con, made.Mesh, noStart)
	if err == nil && !noStart {
		err = c.watchConnecting(ctx, made.Mesh, show)
	}
	return errors.Join(err, c.con.placed(made, c.start.started))
}

// already is what join says to a machine that is in the mesh. A join that was broken off before it started the agent does that now.
func (c joinCommand) already(ctx context.Context, made place.Membership, noStart bool) error {
	fmt.Fprintf(c.con.out, "this machine is in mesh %s already, as %s, %s\n", made.Mesh, made.Name, addressList(made))
	if _, err := c.dirs.client(made.Mesh).Status(ctx); !errors.Is(err, api.ErrNotRunning) {
		return c.con.placed(made, c.start.started) // it runs, whether we may ask it or not
	}
	err := c.start.after(ctx, c.con, made.Mesh, noStart)
	return errors.Join(err, c.con.placed(made, c.start.started))
}

// clock says that the clock of this machine, or of the member that has admitted it, is wrong.
func (c *console) clock(made place.Membership) {
	d := made.Ahead.Abs()
	if d <= clockBears {
		return
	}
	word, then := "ahead of", ""
	if made.Ahead < 0 {
		word = "behind"
	}
	if d > clockRefuse {
		then = ", and with five minutes between them no tunnel comes up"
	}
	c.remark("the clock of this machine is %s %s that of %s%s: set the one that is wrong, as by timedatectl set-ntp true", d, word, made.AdmittedBy, then)
}

const (
	clockBears  = 30 * time.Second
	clockRefuse = 5 * time.Minute // from there on introductions are refused
)

// watchConnecting shows how the first tunnels come up. Peers that are switched off do not hold it for long.
func (c joinCommand) watchConnecting(ctx context.Context, mesh string, show *progress) error {
	agent := c.dirs.client(mesh)
	var last api.Status
	err := poll(ctx, connectTime, func(ctx context.Context) (bool, error) {
		status, err := agent.Status(ctx)
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
		fmt.Fprintf(c.con.out, "%d of %d peers connected; why the others are not: warren status%s\n", up, all, c.dirs.meshFlag(mesh))
	} else {
		fmt.Fprintf(c.con.out, "all %d peers connected\n", all)
	}
	return nil
}

var errLate = errors.New("not all peers are connected")

// count returns how many members are connected, how many there are, and how many are still being connected.
func count(peers []api.Peer) (connected, all, waiting int) {
	for _, p := range peers {
		if p.Static || p.State == api.PeerLeft {
			continue
		}
		all++
		switch {
		case p.Connected():
			connected++
		case p.State == api.PeerConnecting:
			waiting++
		}
	}
	return connected, all, waiting
}
