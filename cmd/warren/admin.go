package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/api"
	"warren/mesh/place"
)

// adminCommand lists the admins, makes and unmakes them, and moves the root key.
type adminCommand struct {
	dirs    *dirs
	con     *console
	now     func() time.Time
	offline func(stateDir string) (offline, error)
}

func (c adminCommand) cobra() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "admin",
		Short: "List the admins, make and unmake them, keep the root key",
		Long: "List the members that may invite, revoke and promote, with how they came to it. The founder of a mesh is one.\n\n" +
			"Above all admins stands the root key, which was made with the mesh. Nothing needs it from day to day. With it\n" +
			"alone a mesh gets an admin when none is left, and comes back from what a stolen admin key did: see promote and\n" +
			"revoke, with --root-key. Keep a copy in a safe place: see export-root.",
		Example: "  warren admin\n" +
			"  sudo warren admin promote nas\n" +
			"  sudo warren admin export-root /media/usb/home-root.key --remove",
		Args: subcommandOnly,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := c.dirs.status(cmd.Context())
			if err != nil {
				return err
			}
			return c.list(status, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(changes(c.promote()), destroys(c.demote()), changes(c.exportRoot()), changes(c.importRoot()))
	return cmd
}

func (c adminCommand) list(s api.Status, asJSON bool) error {
	if asJSON {
		return c.con.printJSON(struct {
			Schema  int          `json:"schema"`
			Admins  []api.Admin  `json:"admins"`
			RootKey *api.RootKey `json:"root_key"`
		}{api.Schema, s.Admins, s.RootKey})
	}
	if len(s.Admins) == 0 {
		fmt.Fprintln(c.con.out, "no admin is left; whoever has the root key can make one: sudo warren admin promote NODE --root-key FILE")
	} else {
		var t table
		t.add("NAME", "ADDRESS", "ID", "SINCE", "BY", "HOW")
		for _, a := range s.Admins {
			how := "by its invite"
			switch {
			case a.Left:
				how = "has left"
			case a.Power == api.PowerPromoted:
				how = "promoted"
			case a.By == theRoot:
				how = "founder"
			}
			t.add(a.Name, addressOf(a), short(a.ID), a.Since.UTC().Format("2006-01-02"), a.By, how)
		}
		t.print(c.con.out, screenOf(c.con.out).listed(), true)
	}
	if s.RootKey == nil {
		return nil
	}
	where := "not on this machine any more"
	if s.RootKey.Here {
		where = "on this machine"
	}
	when := "never exported"
	if s.RootKey.Exported != nil {
		when = "exported " + s.RootKey.Exported.UTC().Format("2006-01-02")
	}
	fmt.Fprintf(c.con.out, "\nthe root key is %s, %s\n", where, when)
	return nil
}

// theRoot is how the API calls whoever has the root key.
const theRoot = "the root"

func addressOf(a api.Admin) string {
	if !a.Address.IsValid() {
		return ""
	}
	return a.Address.String()
}

func (c adminCommand) promote() *cobra.Command {
	var f powerFlags
	cmd := &cobra.Command{
		Use:   "promote NODE",
		Short: "Make a member an admin",
		Long: "Make a member, given by name, address or the start of its ID, an admin: it may invite, revoke and promote.\n\n" +
			"When no admin is left, whoever has the root key can make one, on any member that runs: --root-key FILE. Where\n" +
			"the key lies in the state directory, as on the founder, --root uses that.",
		Example: "  sudo warren admin promote nas\n" +
			"  sudo warren admin promote nas --root-key /media/usb/home-root.key",
		Args:              exactly(1, "NODE"),
		ValidArgsFunction: completeNodes(c.dirs, func(admin bool) bool { return !admin }),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check("promote"); err != nil {
				return err
			}
			return powerCommand(c).run(cmd.Context(), api.Act{Kind: api.ActPromote, Node: args[0]}, &f)
		},
	}
	f.addRoot(cmd)
	return cmd
}

func (c adminCommand) demote() *cobra.Command {
	var f powerFlags
	cmd := &cobra.Command{
		Use:   "demote NODE",
		Short: "Take from an admin what makes it one",
		Long: "Make an admin, given by name, address or the start of its ID, a member that may neither invite nor revoke. Its\n" +
			"invites end, and whom it promoted is an admin no more. That is for good: to be an admin again it needs a new key,\n" +
			"which means to leave and to join anew.\n\n" +
			"Who came by its invites, and what it revoked, is shown first, and you are asked whether that stays.\n" +
			"--keep-admitted and --cascade answer beforehand. Whom it merely admitted stays in any case.",
		Example: "  sudo warren admin demote nas --keep-admitted\n" +
			"  sudo warren admin demote nas --root --dry-run",
		Args:              exactly(1, "NODE"),
		ValidArgsFunction: completeNodes(c.dirs, func(admin bool) bool { return admin }),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check("demote"); err != nil {
				return err
			}
			return powerCommand(c).run(cmd.Context(), api.Act{Kind: api.ActDemote, Node: args[0]}, &f)
		},
	}
	f.addFate(cmd)
	f.addRoot(cmd)
	return cmd
}

// rootMoved is what export-root and import-root print with --json. The key itself is never in it.
type rootMoved struct {
	Schema int    `json:"schema"`
	Mesh   string `json:"mesh"`
	File   string `json:"file"` // where the copy is, or came from
	Here   bool   `json:"here"` // the key is in the state directory
}

func (c adminCommand) exportRoot() *cobra.Command {
	var remove, asJSON bool
	cmd := &cobra.Command{
		Use:   "export-root [FILE]",
		Short: "Copy the root key of the mesh to a file, to be kept elsewhere",
		Long: "Write the root key of the mesh to a new file that nobody else may read, MESH-root.key if none is named. What is\n" +
			"there is never overwritten. With - the key goes to standard output.\n\n" +
			"With --remove it is deleted here, once the file has been read back and is the same: who breaks into this\n" +
			"machine does not find it then. The mesh goes on without it.",
		Example: "  sudo warren admin export-root /media/usb/home-root.key --remove\n" +
			"  sudo warren admin export-root - | gpg -c > home-root.key.gpg",
		Args:              between(0, 1, "[FILE]"),
		ValidArgsFunction: files,
		RunE: func(_ *cobra.Command, args []string) error {
			mesh, err := c.dirs.pick()
			if err != nil {
				return err
			}
			file := mesh + "-root.key"
			if len(args) == 1 {
				file = args[0]
			}
			if file == "-" && asJSON {
				return &usageError{message: "export-root: --json needs a file: the key goes to standard output"}
			}
			return c.runExport(mesh, file, remove)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&remove, "remove", false, "delete the key here after the file has been read back")
	return cmd
}

func (c adminCommand) runExport(mesh, file string, remove bool) error {
	dir := c.dirs.stateDir(mesh)
	if err := c.dirs.requireState(mesh); err != nil {
		return err
	}
	if file == "-" {
		if remove {
			return &usageError{message: "export-root: --remove needs a file: what goes to standard output cannot be read back"}
		}
		return c.explain(place.ExportRootTo(dir, c.con.out))
	}
	err := place.ExportRoot(dir, file, remove)
	if errors.Is(err, fs.ErrExist) {
		return hinted(err, "name another file: nothing is overwritten")
	}
	if err != nil {
		return c.explain(err)
	}
	path := file
	if whole, err := filepath.Abs(file); err == nil {
		path = whole
	}
	fmt.Fprintf(c.con.out, "the root key of %s is in %s now", mesh, clean(path))
	if remove {
		fmt.Fprint(c.con.out, "; the agent's directory has it no more")
	}
	fmt.Fprintln(c.con.out, "\nkeep it where neither fire nor thieves get at it; whoever has it has the last word in the mesh")
	return c.con.done(rootMoved{api.Schema, mesh, path, !remove})
}

// explain adds what to do when the key is not here.
func (c adminCommand) explain(err error) error {
	if errors.Is(err, place.ErrNoRootKey) {
		return hinted(err, "it is made on the founder; look there, or wherever it was exported to")
	}
	return err
}

func (c adminCommand) importRoot() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "import-root FILE",
		Short: "Put the root key of the mesh back on this machine",
		Long: "Put the root key of this mesh, as export-root has written it, into the state directory, on the founder or on any other\n" +
			"member. - stands for standard input. A key that is there is never replaced.\n\n" +
			"To sign with the key once, there is no need to: --root-key FILE reads it where it is.",
		Example:           "  sudo warren admin import-root /media/usb/home-root.key",
		Args:              exactly(1, "FILE"),
		ValidArgsFunction: files,
		RunE: func(_ *cobra.Command, args []string) error {
			mesh, err := c.dirs.pick()
			if err != nil {
				return err
			}
			if err := c.dirs.requireState(mesh); err != nil {
				return err
			}
			raw, err := c.con.readKey(args[0])
			if err != nil {
				return err
			}
			if err := place.ImportRoot(c.dirs.stateDir(mesh), raw); err != nil {
				return err
			}
			fmt.Fprintf(c.con.out, "the root key of %s is on this machine now; it signs with --root\n", mesh)
			return c.con.done(rootMoved{api.Schema, mesh, args[0], true})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
