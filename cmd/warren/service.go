package main

import (
	"context"
	"encoding/json"
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

func (a *app) serviceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "service",
		Short:   "Let systemd or launchd run the agent",
		Example: "  sudo warren service install\n  warren service status",
		Args:    subcommandOnly,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var asJSON bool
	status := &cobra.Command{
		Use: "status", Short: "Tell whether the service is installed and running", Example: "  warren service status",
		Args: exactly(0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runServiceStatus(cmd.Context(), asJSON) },
	}
	status.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(
		&cobra.Command{
			Use: "install", Short: "Start the agent now and with the machine", Example: "  sudo warren service install --mesh home",
			Args: exactly(0, ""),
			RunE: func(cmd *cobra.Command, _ []string) error {
				mesh, err := a.dirs.pick()
				if err != nil {
					return err
				}
				if err := a.startService(cmd.Context(), mesh); err != nil {
					return err
				}
				fmt.Fprintf(a.out, "%s is up\n", mesh)
				return nil
			},
		},
		&cobra.Command{
			Use: "uninstall", Short: "Stop the agent and do not start it any more", Example: "  sudo warren service uninstall --mesh home",
			Args: exactly(0, ""),
			RunE: func(cmd *cobra.Command, _ []string) error {
				mesh, err := a.dirs.pick()
				if err != nil {
					return err
				}
				service, err := a.service()
				if err != nil {
					return err
				}
				return service.Uninstall(cmd.Context(), mesh)
			},
		},
		status,
	)
	return cmd
}

func (a *app) runServiceStatus(ctx context.Context, asJSON bool) error {
	mesh, err := a.dirs.pick()
	if err != nil {
		return err
	}
	service, err := a.service()
	if err != nil {
		return err
	}
	state, err := service.Status(ctx, mesh)
	if err != nil {
		return err
	}
	if asJSON {
		return a.printJSON(struct {
			Schema    int    `json:"schema"`
			Mesh      string `json:"mesh"`
			Installed bool   `json:"installed"`
			Enabled   bool   `json:"enabled"`
			Running   bool   `json:"running"`
			Detail    string `json:"detail"`
		}{api.Schema, mesh, state.Installed, state.Enabled, state.Running, state.Detail})
	}
	installed := "not installed"
	if state.Installed {
		installed = "installed"
	}
	if state.Installed && !state.Enabled {
		installed = "installed, but not started with the machine"
	}
	fmt.Fprintf(a.out, "%s: %s; %s\nlog: %s\n", mesh, installed, state.Detail, service.Logs(mesh))
	return nil
}

// startService installs the service of a mesh, starts it, and waits until its agent answers.
func (a *app) startService(ctx context.Context, mesh string) error {
	service, err := a.service()
	if err != nil {
		return err
	}
	if !a.standard() {
		return hinted(errors.New("the service uses the standard directories, not those of --state-dir, --run-dir and --config"),
			"run the agent yourself: sudo warren agent")
	}
	if mesh != staticMesh {
		if err := a.dirs.requireState(mesh); err != nil {
			return err
		}
	}
	binary, err := a.executable()
	if err != nil {
		return err
	}
	if err := packaging.CheckBinary(binary); err != nil {
		return hinted(err, fmt.Sprintf("sudo install %s %s && sudo %s up", binary, packaging.Binary, packaging.Binary))
	}
	if err := service.Install(ctx, mesh, binary); err != nil {
		return err
	}
	if err := service.Start(ctx, mesh); err != nil {
		return hinted(err, "see its log: "+service.Logs(mesh))
	}
	if err := a.waitForAgent(ctx, mesh, startTime); err != nil {
		return hinted(err, "see its log: "+service.Logs(mesh))
	}
	return nil
}

// startAfter starts the agent at the end of create and join, where that can be done.
func (a *app) startAfter(ctx context.Context, mesh string, noStart bool) error {
	next := "start its agent with: sudo warren agent" + a.meshFlag(mesh)
	if noStart {
		fmt.Fprintln(a.out, next)
		return nil
	}
	err := a.startService(ctx, mesh)
	if errors.Is(err, packaging.ErrNone) {
		fmt.Fprintln(a.out, "no systemd or launchd here; "+next)
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s is set up, but not started: %w", mesh, err)
	}
	fmt.Fprintf(a.out, "%s is up, now and whenever this machine starts\n", mesh)
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
func (a *app) waitForAgent(ctx context.Context, mesh string, limit time.Duration) error {
	return poll(ctx, limit, func(ctx context.Context) (bool, error) {
		status, err := a.dirs.client(mesh).Status(ctx)
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

func (a *app) printJSON(v any) error {
	encoder := json.NewEncoder(a.out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	return nil
}
