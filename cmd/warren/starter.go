package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/api"
	"warren/packaging"
)

// startTime bounds the wait for an agent to answer after its start.
const startTime = 15 * time.Second

// pollTime is how often the socket of an agent that starts or stops is tried: nothing tells a client about either.
const pollTime = 100 * time.Millisecond

// starter has systemd or launchd run the agents.
type starter struct {
	dirs       *dirs
	usual      dirs // where the service keeps everything
	detect     func() (packaging.Service, error)
	executable func() (string, error)  // path of this program, without symbolic links
	owned      func(path string) error // whether it is root's alone
	force      bool                    // start it although it is not
	started    bool                    // what up was asked to start is up
}

// forceFlag gives a command the flag that starts a program which others can change.
func (s *starter) forceFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&s.force, "force", false, "run this program as root although others than root can change it")
}

// standard reports whether the service, which uses the usual directories, would find what this invocation uses.
func (s *starter) standard() bool {
	usual := s.usual
	usual.mesh = s.dirs.mesh
	return *s.dirs == usual
}

// stop stops the agent of a mesh until the next start. It reports false when no service runs it here.
func (s *starter) stop(ctx context.Context, mesh string) (stopped bool, err error) {
	service, err := s.detect()
	if err != nil || !s.standard() {
		return false, nil
	}
	state, err := service.Status(ctx, mesh)
	if err != nil || !state.Running {
		return false, err
	}
	return true, service.Stop(ctx, mesh)
}

// forget takes the service of a mesh away, if there can be one here.
func (s *starter) forget(ctx context.Context, mesh string) error {
	service, err := s.detect()
	if err == nil && s.standard() {
		err = service.Uninstall(ctx, mesh)
	}
	if errors.Is(err, packaging.ErrNone) {
		return nil
	}
	return err
}

// up installs the service of a mesh, starts it, and waits until its agent answers.
func (s *starter) up(ctx context.Context, mesh string) error { return s.bring(ctx, mesh, false) }

// upAgain is up; an agent that runs is ended before.
func (s *starter) upAgain(ctx context.Context, mesh string) error { return s.bring(ctx, mesh, true) }

func (s *starter) bring(ctx context.Context, mesh string, again bool) error {
	service, err := s.detect()
	if err != nil {
		return err
	}
	if !s.standard() {
		return hinted(errors.New("the service uses the standard directories, not those of --state-dir, --run-dir and --config"),
			"run the agent yourself: sudo warren agent")
	}
	if mesh != staticMesh {
		if err := s.dirs.requireState(mesh); err != nil {
			return err
		}
	}
	binary, err := s.executable()
	if err != nil {
		return err
	}
	if err := packaging.CheckBinary(binary); err != nil {
		return hinted(err, fmt.Sprintf("sudo install %s %s && sudo %s up", binary, packaging.Binary, packaging.Binary))
	}
	if err := s.owned(binary); err != nil && !s.force {
		return hinted(err, fmt.Sprintf("sudo install %s %s && sudo %s up; or, if that is meant: sudo warren service install --force%s",
			binary, packaging.Binary, packaging.Binary, s.dirs.meshFlag(mesh)))
	}
	if err := service.Install(ctx, mesh, binary); err != nil {
		return err
	}
	if err := service.Start(ctx, mesh, again); err != nil {
		return hinted(err, "see its log: sudo warren logs"+s.dirs.meshFlag(mesh))
	}
	if err := waitForAgent(ctx, s.dirs.client(mesh), mesh, startTime); err != nil {
		return hinted(err, "see its log: sudo warren logs"+s.dirs.meshFlag(mesh))
	}
	s.started = true
	return nil
}

// after starts the agent at the end of create and join, where that can be done.
func (s *starter) after(ctx context.Context, con *console, mesh string, noStart bool) error {
	next := "start its agent with: sudo warren agent" + s.dirs.meshFlag(mesh)
	if noStart {
		fmt.Fprintln(con.out, next)
		return nil
	}
	err := s.up(ctx, mesh)
	if errors.Is(err, packaging.ErrNone) {
		if con.here != nil {
			next = con.here.runIt(s.dirs.meshFlag(mesh))
		}
		fmt.Fprintln(con.out, "no systemd or launchd here; "+next)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s is set up, but not started: %w", mesh, err)
	}
	fmt.Fprintf(con.out, "%s is up, now and whenever this machine starts\n", mesh)
	return nil
}

func executable() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return real, nil
}

// waitForAgent returns when the agent answers and is ready.
func waitForAgent(ctx context.Context, agent *api.Client, mesh string, limit time.Duration) error {
	return poll(ctx, limit, func(ctx context.Context) (bool, error) {
		status, err := agent.Status(ctx)
		if err != nil && !errors.Is(err, api.ErrNotRunning) {
			return false, err
		}
		return err == nil && status.State == api.StateReady, nil
	}, fmt.Errorf("the agent of %s is not ready after %s", mesh, limit))
}

// poll calls done until it says so or fails, ctx ends, or limit has passed, which is reported as late.
func poll(ctx context.Context, limit time.Duration, done func(context.Context) (bool, error), late error) error {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticker := time.NewTicker(pollTime)
	defer ticker.Stop()
	for {
		fine, err := done(limited)
		switch {
		case fine:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case limited.Err() != nil:
			return late
		case err != nil:
			return err
		}
		select {
		case <-limited.Done():
		case <-ticker.C:
		}
	}
}
