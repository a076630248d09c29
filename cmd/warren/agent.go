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

func (a *app) agentCommand() *cobra.Command {
	var level slog.LevelVar
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run the agent in the foreground",
		Long: "Run the agent of one mesh in the foreground, as systemd, launchd and containers do. SIGHUP makes it read its\n" +
			"config again; SIGINT and SIGTERM end it. It needs CAP_NET_ADMIN and /dev/net/tun.\n\n" +
			"The exit status is 2 when a restart cannot help, as after a revocation.",
		Example: "  sudo warren agent --mesh home --log-level debug",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			mesh, err := a.pickToRun()
			if err != nil {
				return err
			}
			return a.runAgent(cmd.Context(), mesh, &level)
		},
	}
	cmd.Flags().TextVar(&level, "log-level", &level, "debug, info, warn or error")
	return cmd
}

func (a *app) runAgent(ctx context.Context, mesh string, level slog.Leveler) error {
	if mesh != staticMesh {
		if err := a.dirs.requireState(mesh); err != nil {
			return err
		}
	}
	notify := notifier{socket: os.Getenv("NOTIFY_SOCKET")}
	options := agent.Options{
		Mesh: mesh, StateDir: a.dirs.stateDir(mesh), Socket: a.dirs.socket(mesh), Group: socketGroup,
		Version: version(),
		Load:    func() (node.Settings, error) { return a.settings(mesh) },
		Ready:   func() { notify.send("READY=1") },
		Logger:  a.agentLogger(level),
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
	err := a.agent(ctx, options)
	stopping()
	signal.Stop(hangups)
	close(ended)
	<-relayed
	return err
}

// agentLogger writes text; without the time when it goes to systemd's journal, which has its own.
func (a *app) agentLogger(level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if os.Getenv("JOURNAL_STREAM") != "" {
		options.ReplaceAttr = func(groups []string, attr slog.Attr) slog.Attr {
			if len(groups) == 0 && attr.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return attr
		}
	}
	return slog.New(slog.NewTextHandler(a.err, options))
}
