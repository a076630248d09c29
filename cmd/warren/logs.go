package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"warren/packaging"
)

// logsCommand shows what an agent has logged, by the tool of the service manager.
type logsCommand struct {
	dirs   *dirs
	con    *console
	start  *starter
	attach func(ctx context.Context, argv []string) error
}

func (c logsCommand) cobra() *cobra.Command {
	var follow bool
	var lines int
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Show the log of the agent",
		Long: "Show the log of the agent that the service manager has started: the journal of systemd, or its file on macOS. An agent that\n" +
			"was started by hand writes where it was started.",
		Example: "  sudo warren logs -f\n  sudo warren logs -n 500 --mesh home",
		Args:    exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if lines < 1 {
				return &usageError{message: fmt.Sprintf("logs: --lines %d: want 1 or more", lines)}
			}
			mesh, err := c.dirs.pickToRun()
			if err != nil {
				return err
			}
			service, err := c.start.detect()
			if errors.Is(err, packaging.ErrNone) {
				return hinted(errors.New("no service manager keeps a log here: the agent writes its own to its standard error"), "look where it was started; in a container: docker logs, podman logs")
			}
			if err != nil {
				return err
			}
			return c.attach(cmd.Context(), service.Logs(mesh, lines, follow))
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is logged from now on")
	cmd.Flags().IntVarP(&lines, "lines", "n", 100, "how many lines")
	return cmd
}

// attach runs a program with the terminal of this one. It takes the signals of the terminal itself.
func attach(ctx context.Context, argv []string) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return nil // Ctrl-C is how --follow ends
	case errors.As(err, &ended) && ended.ExitCode() == -1: // a signal, as of a pipe that was closed
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", strings.Join(argv, " "), err)
	}
	return nil
}
