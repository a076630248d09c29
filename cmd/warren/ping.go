package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/api"
)

// pingCommand has the agent ping a peer.
type pingCommand struct {
	dirs *dirs
	con  *console
}

func (c pingCommand) cobra() *cobra.Command {
	var count int
	var interval, timeout time.Duration
	var untilDirect, asJSON bool
	cmd := &cobra.Command{
		Use:   "ping PEER",
		Short: "Ping a peer through the mesh and tell the path",
		Long: "Ping a peer, given by name, address or the start of its ID, and tell by which path the answer came.\n\n" +
			"The exit status is 1 when nothing came back; with --until-direct also when only a relay was found.",
		Example:           "  warren ping gate\n  warren ping -c 20 --until-direct gate",
		Args:              exactly(1, "PEER"),
		ValidArgsFunction: completePeers(c.dirs),
		RunE: func(cmd *cobra.Command, args []string) error {
			mesh, agent, err := c.dirs.agent()
			if err != nil {
				return err
			}
			req := api.PingRequest{Peer: args[0], Count: count, IntervalMS: int(interval.Milliseconds()), TimeoutMS: int(timeout.Milliseconds())}
			shown := pinged{Schema: api.Schema, Peer: req.Peer, Replies: []api.PingReply{}}
			err = c.run(cmd.Context(), agent, req, untilDirect, &shown)
			if printed := c.con.done(shown); err == nil {
				err = printed
			}
			if errors.Is(err, errNoAnswer) || errors.Is(err, errNotDirect) {
				return hinted(err, "why: warren why "+req.Peer+c.dirs.meshFlag(mesh))
			}
			return err
		},
	}
	cmd.Flags().IntVarP(&count, "count", "c", 4, "number of pings")
	cmd.Flags().DurationVarP(&interval, "interval", "i", time.Second, "time between pings")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Second, "time to wait for each answer")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, when all is over")
	cmd.Flags().BoolVar(&untilDirect, "until-direct", false, "stop at the first answer over a direct path")
	return cmd
}

// pinged is what `ping --json` prints.
type pinged struct {
	Schema   int             `json:"schema"`
	Peer     string          `json:"peer"` // as it was asked for
	Sent     int             `json:"sent"`
	Answered int             `json:"answered"`
	Direct   bool            `json:"direct"` // an answer came over a direct path
	Replies  []api.PingReply `json:"replies"`
}

var (
	errNoAnswer  = errors.New("no answer")
	errNotDirect = errors.New("direct connection not established")
)

// run pings, and says in its error when that was to no avail.
func (c pingCommand) run(ctx context.Context, agent *api.Client, req api.PingRequest, untilDirect bool, shown *pinged) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	direct, forbidden := false, ""
	err := agent.Ping(ctx, req, func(r api.PingReply) {
		if direct && untilDirect {
			return
		}
		shown.Sent++
		shown.Replies = append(shown.Replies, r)
		if r.Error != "" {
			fmt.Fprintf(c.con.out, "no answer from %s (%s): %s\n", clean(r.Name), r.Address, clean(r.Error))
			return
		}
		shown.Answered++
		forbidden = r.Forbidden
		fmt.Fprintf(c.con.out, "pong from %s (%s) via %s in %s\n", clean(r.Name), r.Address, clean(pongPath(r.Path)), latency(max(r.LatencyMS, 0.01)))
		if r.Path.Kind == api.PathDirect {
			direct, shown.Direct = true, true
			if untilDirect {
				stop()
			}
		}
	})
	if forbidden != "" {
		fmt.Fprintln(c.con.out, "but "+clean(forbidden))
	}
	switch {
	case untilDirect && direct:
		return nil
	case errors.Is(err, context.Canceled) && shown.Answered > 0 && !untilDirect: // Ctrl-C, as with ping(8)
		return nil
	case err != nil:
		return err
	case shown.Answered == 0:
		return errNoAnswer
	case untilDirect:
		return errNotDirect
	}
	return nil
}

// pongPath is the address itself for a direct path, so that the line reads as Tailscale's does.
func pongPath(p api.Path) string {
	switch p.Kind {
	case api.PathDirect:
		return p.Address.String() + shownTransport(p)
	case api.PathRelay:
		if !p.Address.IsValid() { // the session with it has just gone
			return "relay " + p.Via + shownTransport(p)
		}
		return fmt.Sprintf("relay %s (%s%s)", p.Via, p.Address, shownTransport(p))
	}
	return "an unknown path"
}
