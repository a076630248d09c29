package packaging

import (
	"context"
	_ "embed"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed systemd/warren@.service
var systemdUnit string

// systemd keeps one template unit for all meshes. A unit that a distribution's package brought is used as it is.
type systemd struct {
	root string // "/", another directory in tests
	run  runner
}

func (s *systemd) unitFile() string {
	return filepath.Join(s.root, "etc/systemd/system/warren@.service")
}

// packaged tells whether there is a unit that is not ours to write.
func (s *systemd) packaged() bool {
	return exists(filepath.Join(s.root, "usr/lib/systemd/system/warren@.service")) ||
		exists(filepath.Join(s.root, "lib/systemd/system/warren@.service"))
}

func unit(mesh string) string { return "warren@" + mesh + ".service" }

func (s *systemd) Install(ctx context.Context, mesh, binary string) error {
	if !s.packaged() {
		// The unit names the group, so systemd would refuse to start it without.
		if _, err := s.run(ctx, "systemd-sysusers", "--inline", "g warren -"); err != nil {
			return fmt.Errorf("make group warren: %w", err)
		}
		if err := write(s.unitFile(), []byte(strings.Replace(systemdUnit, Binary, binary, 1))); err != nil {
			return err
		}
		if _, err := s.run(ctx, "systemctl", "daemon-reload"); err != nil {
			return err
		}
	}
	_, err := s.run(ctx, "systemctl", "--quiet", "enable", unit(mesh))
	return err
}

func (s *systemd) Uninstall(ctx context.Context, mesh string) error {
	state, err := s.Status(ctx, mesh)
	if err != nil {
		return err
	}
	if !state.Installed {
		return nil
	}
	if _, err := s.run(ctx, "systemctl", "--quiet", "disable", "--now", unit(mesh)); err != nil {
		return err
	}
	// A unit that has failed is remembered, and listed, after its file is gone. It is no error that this one has not.
	_, _ = s.run(ctx, "systemctl", "--quiet", "reset-failed", unit(mesh))
	others, err := filepath.Glob(filepath.Join(s.root, "etc/systemd/system/*.wants/warren@*.service"))
	if err != nil || len(others) > 0 {
		return err
	}
	if err := remove(s.unitFile()); err != nil {
		return err
	}
	_, err = s.run(ctx, "systemctl", "daemon-reload")
	return err
}

func (s *systemd) Start(ctx context.Context, mesh string, again bool) error {
	verb := "start"
	if again {
		verb = "restart"
	}
	_, err := s.run(ctx, "systemctl", verb, unit(mesh))
	return err
}

func (s *systemd) Stop(ctx context.Context, mesh string) error {
	_, err := s.run(ctx, "systemctl", "stop", unit(mesh))
	return err
}

func (s *systemd) Status(ctx context.Context, mesh string) (State, error) {
	out, err := s.run(ctx, "systemctl", "show", "--property=LoadState,UnitFileState,ActiveState,SubState,Result", unit(mesh))
	if err != nil {
		return State{}, err
	}
	properties := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		properties[key] = value
	}
	active := properties["ActiveState"]
	state := State{
		Installed: properties["LoadState"] == "loaded",
		Enabled:   properties["UnitFileState"] == "enabled",
		Running:   active == "active" || active == "activating" || active == "reloading",
		Detail:    fmt.Sprintf("%s (%s)", active, properties["SubState"]),
	}
	if result := properties["Result"]; result != "" && result != "success" {
		state.Detail += ", last result: " + result
	}
	return state, nil
}

func (s *systemd) Logs(mesh string, lines int, follow bool) []string {
	argv := []string{"journalctl", "-u", "warren@" + mesh, "-n", strconv.Itoa(lines)}
	if follow {
		return append(argv, "-f")
	}
	return append(argv, "--no-pager")
}
