package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"warren/mesh/api"
	"warren/mesh/place"
)

// useCommand chooses the mesh that commands mean.
type useCommand struct {
	dirs *dirs
	con  *console
}

func (c useCommand) cobra() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "use [MESH]",
		Short: "Choose the mesh that commands mean where there are several",
		Long: "Choose the mesh that commands mean which name none, on a machine that is in several. --mesh says it for one\n" +
			"command, and the variable WARREN_MESH for a shell. Without a name it tells which mesh is meant, and which there are.",
		Example: "  sudo warren use home\n  warren use",
		Args:    between(0, 1, "[MESH]"),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.tell(asJSON)
			}
			return c.choose(args[0], asJSON)
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeMesh(c.dirs)(nil, nil, "")
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// meshChoice is the output of `use --json`.
type meshChoice struct {
	Schema int      `json:"schema"`
	Mesh   string   `json:"mesh"` // "": none is chosen
	By     string   `json:"by"`   // flag, environment, default, alone, or "" without a mesh
	Meshes []string `json:"meshes"`
}

var choiceWords = map[choice]string{chosenAlone: "alone", chosenDefault: "default", chosenEnv: "environment", chosenFlag: "flag"}

// tell says which mesh is meant.
func (c useCommand) tell(asJSON bool) error {
	meshes, _ := c.dirs.present()
	mesh, how, err := c.dirs.choose()
	if err != nil {
		return err
	}
	if asJSON {
		return c.con.printJSON(meshChoice{api.Schema, mesh, choiceWords[how], append([]string{}, meshes...)})
	}
	why := map[choice]string{chosenAlone: "the only mesh here", chosenDefault: "as warren use says", chosenEnv: "as " + envMesh + " says", chosenFlag: "as --mesh says"}[how]
	fmt.Fprintf(c.con.out, "%s, %s\n", mesh, why)
	if len(meshes) > 1 {
		fmt.Fprintf(c.con.out, "here are: %s\n", strings.Join(meshes, ", "))
	}
	return nil
}

// choose has commands mean a mesh.
func (c useCommand) choose(mesh string, asJSON bool) error {
	if err := named("mesh", mesh); err != nil {
		return err
	}
	meshes, err := c.dirs.present()
	if !slices.Contains(meshes, mesh) {
		if err != nil {
			return err
		}
		if len(meshes) == 0 {
			meshes = []string{"none"}
		}
		return &usageError{message: fmt.Sprintf("no mesh %s on this machine; here are: %s", mesh, strings.Join(meshes, ", "))}
	}
	if err := place.SetDefault(c.dirs.stateRoot, mesh); err != nil {
		return fmt.Errorf("choose mesh %s: %w", mesh, err)
	}
	if asJSON {
		return c.con.printJSON(meshChoice{api.Schema, mesh, choiceWords[chosenDefault], meshes})
	}
	fmt.Fprintf(c.con.out, "commands mean %s now, unless they say otherwise\n", mesh)
	return nil
}

// completer completes a word of a command line.
type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completeMesh completes the names of the meshes here.
func completeMesh(d *dirs) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		meshes, _ := d.present()
		return meshes, cobra.ShellCompDirectiveNoFileComp
	}
}

// completePeer completes the names of the peers, the first word of a command; nothing where no agent answers.
func completePeer(d *dirs) completer {
	return func(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if status, err := d.status(cmd.Context()); err == nil {
			for _, p := range status.Peers {
				if p.State != api.PeerLeft {
					names = append(names, clean(p.Name))
				}
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeNames has names completed: of meshes after --mesh, of peers where a command takes one.
func completeNames(root *cobra.Command, d *dirs) {
	if err := root.RegisterFlagCompletionFunc("mesh", completeMesh(d)); err != nil {
		panic("internal error: " + err.Error()) // only for a flag that there is not
	}
	takes := []string{"PEER", "NODE", "[PEER]", "[NODE]"}
	for queue := root.Commands(); len(queue) > 0; queue = queue[1:] {
		c := queue[0]
		queue = append(queue, c.Commands()...)
		if words := strings.Fields(c.Use); c.ValidArgsFunction == nil && len(words) > 1 && slices.Contains(takes, words[1]) {
			c.ValidArgsFunction = completePeer(d)
		}
	}
}
