package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	env       string // of the variable WARREN_MESH
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

// envMesh names the environment variable that says which mesh is meant, below --mesh and above `warren use`.
const envMesh = "WARREN_MESH"

// choice is how the mesh that is meant was chosen.
type choice int

const (
	chosenAlone   choice = iota // there is no other one
	chosenDefault               // by warren use
	chosenEnv
	chosenFlag
)

// pick returns the mesh that is meant: the one given by --mesh, by WARREN_MESH, the only one that has state or an agent, the one given by `warren use`.
func (d *dirs) pick() (string, error) {
	mesh, _, err := d.choose()
	return mesh, err
}

// choose is pick that tells how.
func (d *dirs) choose() (string, choice, error) {
	if d.mesh != "" {
		return d.mesh, chosenFlag, named("--mesh", d.mesh)
	}
	meshes, err := d.present()
	if name := d.env; name != "" {
		if err := named(envMesh, name); err != nil {
			return "", 0, err
		}
		if err == nil && len(meshes) > 0 && !slices.Contains(meshes, name) {
			return "", 0, &usageError{message: fmt.Sprintf("%s is %q, which is not on this machine: %s", envMesh, name, strings.Join(meshes, ", ")), hint: whichMesh(meshes)}
		}
		return name, chosenEnv, nil
	}
	switch {
	case len(meshes) == 1:
		return meshes[0], chosenAlone, nil
	case len(meshes) > 1:
		if name := place.Default(d.stateRoot); slices.Contains(meshes, name) {
			return name, chosenDefault, nil
		}
		return "", 0, &usageError{message: "several meshes are here: " + strings.Join(meshes, ", "), hint: whichMesh(meshes)}
	case err != nil:
		return "", 0, err
	default:
		return "", 0, hinted(errors.New("no mesh on this machine"), "make one with: sudo warren create NAME, or join one with: sudo warren join")
	}
}

func named(by, mesh string) error {
	if err := place.ValidName(mesh); err != nil && mesh != staticMesh {
		return &usageError{message: by + ": " + err.Error()}
	}
	return nil
}

// whichMesh says how one of several meshes is chosen.
func whichMesh(meshes []string) string {
	return fmt.Sprintf("say which: --mesh %[1]s; for this shell: export %[2]s=%[1]s; for good: sudo warren use %[1]s", meshes[0], envMesh)
}

// pickToRun is pick for the commands that start an agent: with no mesh here and static peers in the config, it
// is these that are meant.
func (d *dirs) pickToRun() (string, error) {
	mesh, err := d.pick()
	if err == nil || d.mesh != "" || d.env != "" {
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
	unnamed := *d
	unnamed.mesh = ""
	if meant, _, err := unnamed.choose(); err != nil || meant == mesh {
		if meshes, _ := d.present(); len(meshes) < 2 || err == nil {
			return ""
		}
	}
	return " --mesh " + mesh
}

// claims are the interfaces and ports that config files give the meshes on this machine.
func (d *dirs) claims() (out []place.Claim) {
	meshes, _ := d.present()
	for _, mesh := range meshes {
		c, err := d.loadConfig(mesh)
		if err == nil && (c.Interface.Name != "" || c.Interface.Port != 0) {
			out = append(out, place.Claim{Mesh: mesh, Interface: c.Interface.Name, Port: c.Interface.Port})
		}
	}
	return out
}

// keepMeaning has the commands that named no mesh mean the one that they meant before another one came. It says so.
func (d *dirs) keepMeaning(con *console, before []string, mesh string) {
	if len(before) != 1 || before[0] == mesh || before[0] == staticMesh || place.Default(d.stateRoot) != "" {
		return
	}
	if err := place.SetDefault(d.stateRoot, before[0]); err == nil {
		fmt.Fprintf(con.out, "commands without --mesh go on meaning %s; to have them mean this one: sudo warren use %s\n", before[0], mesh)
	}
}

// present returns the names of the meshes that have state or an agent here, sorted. Users who may not read the
// state still find the sockets; the error tells what could not be read.
func (d *dirs) present() ([]string, error) {
	sockets, socketErr := names(d.runDir, func(e fs.DirEntry) (string, bool) { return strings.CutSuffix(e.Name(), ".sock") })
	states, stateErr := names(d.stateRoot, func(e fs.DirEntry) (string, bool) { return e.Name(), d.isState(e) })
	all := append(sockets, states...)
	slices.Sort(all)
	return slices.Compact(all), errors.Join(stateErr, socketErr)
}

// isState tells a state directory, which may be reached by a symbolic link, from what else lies about. One that is empty is none: it may be a
// file system that is mounted for a mesh to come.
func (d *dirs) isState(e fs.DirEntry) bool {
	path := d.stateDir(e.Name())
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return false
	}
	dir, err := os.Open(path)
	if err != nil {
		return true // nobody else may look into it
	}
	defer dir.Close()
	_, err = dir.ReadDir(1)
	return !errors.Is(err, io.EOF)
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
