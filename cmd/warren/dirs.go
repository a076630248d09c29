package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"warren/mesh/api"
	"warren/mesh/place"
)

const (
	// socketGroup may read the agents' status.
	socketGroup = "warren"
	// staticMesh stands for "no mesh" where an agent that runs static peers only has to have a name.
	staticMesh = place.StaticMesh
)

// dirs are where this machine keeps its meshes: their state, the sockets of their agents and their config files.
type dirs struct {
	mesh      string // "": the only one
	stateRoot string
	runDir    string
	configDir string
	config    string // "": the default files in configDir
}

func (d *dirs) stateDir(mesh string) string { return filepath.Join(d.stateRoot, mesh) }

func (d *dirs) socket(mesh string) string { return filepath.Join(d.runDir, mesh+".sock") }

func (d *dirs) client(mesh string) *api.Client { return api.NewClient(d.socket(mesh)) }

// configPath returns the config file of a mesh, and whether it has to exist.
func (d *dirs) configPath(mesh string) (path string, required bool) {
	if d.config != "" {
		return d.config, true
	}
	if own := filepath.Join(d.configDir, mesh+".toml"); mesh != "" {
		if _, err := os.Stat(own); err == nil {
			return own, true
		}
	}
	return filepath.Join(d.configDir, "warren.toml"), false
}

// pick returns the mesh that is meant: the one given by --mesh, else the only one that has state or an agent.
func (d *dirs) pick() (string, error) {
	if d.mesh != "" {
		if err := place.ValidName(d.mesh); err != nil && d.mesh != staticMesh {
			return "", &usageError{message: "--mesh: " + err.Error()}
		}
		return d.mesh, nil
	}
	meshes, err := d.present()
	switch {
	case len(meshes) == 1:
		return meshes[0], nil
	case len(meshes) > 1:
		return "", &usageError{message: "several meshes are here: " + strings.Join(meshes, ", "), hint: "say which: --mesh " + meshes[0]}
	case err != nil:
		return "", err
	default:
		return "", hinted(errors.New("no mesh on this machine"), "make one with: sudo warren create NAME, or join one with: sudo warren join")
	}
}

// pickToRun is pick for the commands that start an agent: with no mesh here and static peers in the config, it
// is these that are meant.
func (d *dirs) pickToRun() (string, error) {
	mesh, err := d.pick()
	if err == nil || d.mesh != "" {
		return mesh, err
	}
	if meshes, readErr := d.present(); len(meshes) > 0 || readErr != nil {
		return "", err
	}
	if c, configErr := d.loadConfig(staticMesh); configErr != nil {
		return "", configErr
	} else if len(c.Peers) > 0 {
		return staticMesh, nil
	}
	return "", err
}

// agent returns the mesh that is meant, and the client of its agent.
func (d *dirs) agent() (mesh string, c *api.Client, err error) {
	if mesh, err = d.pick(); err != nil {
		return "", nil, err
	}
	return mesh, d.client(mesh), nil
}

// status asks the agent of the mesh that is meant for its status.
func (d *dirs) status(ctx context.Context) (api.Status, error) {
	_, agent, err := d.agent()
	if err != nil {
		return api.Status{}, err
	}
	return agent.Status(ctx)
}

// meshFlag returns what has to be added to a suggested command so that it means this mesh.
func (d *dirs) meshFlag(mesh string) string {
	if meshes, _ := d.present(); len(meshes) > 1 {
		return " --mesh " + mesh
	}
	return ""
}

// present returns the names of the meshes that have state or an agent here, sorted. Users who may not read the
// state still find the sockets; the error tells what could not be read.
func (d *dirs) present() ([]string, error) {
	sockets, socketErr := names(d.runDir, func(e fs.DirEntry) (string, bool) { return strings.CutSuffix(e.Name(), ".sock") })
	states, stateErr := names(d.stateRoot, func(e fs.DirEntry) (string, bool) { return e.Name(), e.IsDir() })
	all := append(sockets, states...)
	slices.Sort(all)
	return slices.Compact(all), errors.Join(stateErr, socketErr)
}

func names(dir string, take func(fs.DirEntry) (string, bool)) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for meshes: %w", err)
	}
	var found []string
	for _, e := range entries {
		if name, ok := take(e); ok && (name == staticMesh || place.ValidName(name) == nil) {
			found = append(found, name)
		}
	}
	return found, nil
}

// requireState fails when a mesh has no state here.
func (d *dirs) requireState(mesh string) error {
	_, err := os.Stat(d.stateDir(mesh))
	if errors.Is(err, fs.ErrNotExist) {
		return hinted(fmt.Errorf("mesh %s has no state in %s", mesh, d.stateRoot),
			"make it with: sudo warren create "+mesh+", or join it with: sudo warren join")
	}
	if err != nil {
		return fmt.Errorf("look for mesh %s: %w", mesh, err)
	}
	return nil
}

// hostName makes a valid node name out of this machine's.
func hostName() string {
	host, err := os.Hostname()
	if err != nil {
		return "node"
	}
	return validName(host)
}

func validName(host string) string {
	first, _, _ := strings.Cut(strings.ToLower(host), ".")
	name := strings.Trim(strings.Map(func(c rune) rune {
		if 'a' <= c && c <= 'z' || '0' <= c && c <= '9' {
			return c
		}
		return '-'
	}, first), "-")
	if len(name) > place.MaxName {
		name = strings.TrimRight(name[:place.MaxName], "-")
	}
	if name == "" {
		return "node"
	}
	return name
}
