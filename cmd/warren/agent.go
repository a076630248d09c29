package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"warren/mesh/agent"
	"warren/mesh/node"
)

// agentCommand runs an agent in this process.
type agentCommand struct {
	dirs *dirs
	con  *console
	run  func(context.Context, agent.Options) error
}

func (c agentCommand) cobra() *cobra.Command {
	var level slog.LevelVar
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent in the foreground",
		Long: "Run the agent of one mesh in the foreground, as systemd, launchd and containers do. SIGHUP makes it read its\n" +
			"config again; SIGINT and SIGTERM end it. It needs CAP_NET_ADMIN and /dev/net/tun.\n\n" +
			"The exit status is 2 when a restart cannot help, as after a revocation, without a state, or with a config that is wrong.",
		Example: "  sudo warren agent --mesh home --log-level debug",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			mesh, err := c.dirs.pickToRun()
			if err != nil {
				return &finalError{err}
			}
			return c.foreground(cmd.Context(), mesh, &level)
		},
	}
	cmd.Flags().TextVar(&level, "log-level", &level, "debug, info, warn or error")
	return cmd
}

// foreground runs the agent until ctx ends, and tells systemd about it.
func (c agentCommand) foreground(ctx context.Context, mesh string, level slog.Leveler) error {
	if mesh != staticMesh {
		if err := c.dirs.requireState(mesh); err != nil {
			return &finalError{err}
		}
	}
	started := false
	notify := notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	options := agent.Options{
		Mesh: mesh, StateDir: c.dirs.stateDir(mesh), Socket: c.dirs.socket(mesh), Group: socketGroup,
		Version: version(),
		Load: func() (node.Settings, error) {
			s, err := c.dirs.settings(mesh)
			if err != nil && !started {
				return s, &finalError{err}
			}
			started = true
			return s, err
		},
		Ready:  func() { notify.send("READY=1") },
		Logger: c.logger(level),
	}
	if mesh == staticMesh {
		options.Mesh, options.StateDir = "", ""
	}
	// One place is enough: two signals before the first reload ask for the same thing.
	reload := make(chan struct{}, 1)
	options.Reload = reload
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	ended := make(chan struct{})
	relayed := make(chan struct{})
	go func() {
		defer close(relayed)
		for {
			select {
			case <-hangups:
				select {
				case reload <- struct{}{}:
				default:
				}
			case <-ended:
				return
			}
		}
	}()
	stopping := context.AfterFunc(ctx, func() { notify.send("STOPPING=1") })
	err := c.run(ctx, options)
	stopping()
	signal.Stop(hangups)
	close(ended)
	<-relayed
	return err
}

// finalError is a failure that is the same at the next start: the service manager need not try.
type finalError struct{ err error }

func (e *finalError) Error() string   { return e.err.Error() }
func (e *finalError) Unwrap() []error { return []error{e.err, node.ErrFinal} }

// logger writes text; without the time when it goes to systemd's journal, which has its own. Addresses that mean nothing outside of this
// program are put in words.
func (c agentCommand) logger(level slog.Leveler) *slog.Logger {
	journal := os.Getenv("JOURNAL_STREAM") != ""
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, attr slog.Attr) slog.Attr {
		if journal && len(groups) == 0 && attr.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return attrForPeople(attr)
	}}
	return slog.New(slog.NewTextHandler(c.con.err, options))
}
