package packaging

import (
	"context"
	_ "embed"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed launchd/warren.plist
var launchdPlist string

// launchd keeps one property list for each mesh.
type launchd struct {
	root string // "/", another directory in tests
	run  runner
}

func (l *launchd) plist(mesh string) string {
	return filepath.Join(l.root, "Library/LaunchDaemons", "warren."+mesh+".plist")
}

func target(mesh string) string { return "system/warren." + mesh }

func (l *launchd) Install(ctx context.Context, mesh, binary string) error {
	text := strings.NewReplacer("MESH", mesh, Binary, binary).Replace(launchdPlist)
	if err := write(l.plist(mesh), []byte(text)); err != nil {
		return err
	}
	_, err := l.run(ctx, "launchctl", "enable", target(mesh))
	return err
}

func (l *launchd) Uninstall(ctx context.Context, mesh string) error {
	if err := l.Stop(ctx, mesh); err != nil {
		return err
	}
	return remove(l.plist(mesh))
}

// Start loads the service; a loaded one that does not run, or shall run anew, is kicked.
func (l *launchd) Start(ctx context.Context, mesh string, again bool) error {
	state, err := l.Status(ctx, mesh)
	if err != nil {
		return err
	}
	if state.Detail == notLoaded {
		_, err = l.run(ctx, "launchctl", "bootstrap", "system", l.plist(mesh))
		return err
	}
	if again {
		_, err = l.run(ctx, "launchctl", "kickstart", "-k", target(mesh))
		return err
	}
	_, err = l.run(ctx, "launchctl", "kickstart", target(mesh))
	return err
}

// Stop unloads the service: launchd would start it again at once if only its process ended.
func (l *launchd) Stop(ctx context.Context, mesh string) error {
	state, err := l.Status(ctx, mesh)
	if err != nil || state.Detail == notLoaded {
		return err
	}
	_, err = l.run(ctx, "launchctl", "bootout", target(mesh))
	return err
}

const notLoaded = "not loaded"

func (l *launchd) Status(ctx context.Context, mesh string) (State, error) {
	installed := exists(l.plist(mesh))
	out, err := l.run(ctx, "launchctl", "print", target(mesh))
	if err != nil {
		if ctx.Err() != nil {
			return State{}, fmt.Errorf("ask launchd: %w", ctx.Err())
		}
		// launchctl print fails for what is not loaded, with a number that differs between releases of macOS.
		return State{Installed: installed, Enabled: installed, Detail: notLoaded}, nil
	}
	detail := "loaded"
	for line := range strings.Lines(out) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "state = "); ok {
			detail = value
			break
		}
	}
	return State{Installed: installed, Enabled: installed, Running: detail == "running", Detail: detail}, nil
}

func (l *launchd) Logs(mesh string, lines int, follow bool) []string {
	argv := []string{"tail", "-n", strconv.Itoa(lines)}
	if follow {
		argv = append(argv, "-F") // by name, across its rotation
	}
	return append(argv, "/var/log/warren."+mesh+".log")
}
