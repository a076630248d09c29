// Command warren makes, joins and runs peer-to-peer mesh VPNs. Its subcommands read flags and files, ask the agent over its
// socket, and print; the exit status is 0 for success, 1 for failure and 2 for wrong usage.
//
// The agent itself is mesh/node; the service that keeps it running is packaging.
//
// Each invocation runs one command in one goroutine, but for the agent.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"warren/mesh/agent"
	"warren/mesh/api"
	"warren/mesh/node"
	"warren/mesh/place"
	"warren/packaging"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	a := newApp()
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// app is one invocation: where it reads and writes, and what it calls.
type app struct {
	in       io.Reader
	out      io.Writer
	err      io.Writer
	terminal bool // err is a terminal: progress may rewrite its line
	now      func() time.Time
	usual    dirs // where the service keeps everything
	dirs     dirs // where this invocation shall look

	// What the commands do outside of this program; tests put their own here.
	readSecret func() (string, error) // reads a line without echo; nil when in is no terminal
	executable func() (string, error) // path of this program, without symbolic links
	service    func() (packaging.Service, error)
	create     func(place.CreateOptions) (place.Membership, error)
	join       func(context.Context, place.JoinOptions, func(place.JoinProgress)) (place.Membership, error)
	leave      func(place.LeaveOptions) error
	agent      func(context.Context, agent.Options) error
}

func newApp() *app {
	a := &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		terminal: term.IsTerminal(int(os.Stderr.Fd())),
		now:      time.Now,
		usual:    dirs{stateRoot: defaultStateRoot, runDir: defaultRunDir, configDir: "/etc/warren"},

		executable: executable,
		service:    packaging.Detect,
		create:     place.Create,
		join:       place.Join,
		leave:      place.LeaveOffline,
		agent:      agent.Run,
	}
	if in := int(os.Stdin.Fd()); term.IsTerminal(in) {
		a.readSecret = func() (string, error) {
			secret, err := term.ReadPassword(in)
			return string(secret), err
		}
	}
	return a
}

// standard reports whether the service, which uses the usual directories, would find what this invocation uses.
func (a *app) standard() bool {
	usual := a.usual
	usual.mesh = a.dirs.mesh
	return a.dirs == usual
}

// run executes one command line and returns the exit status.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	a.report(err)
	return exitStatus(err)
}

// exitStatus is 2 for what was typed wrong, whether that was found here or by the agent, and for an agent that no restart can
// help; else 1.
func exitStatus(err error) int {
	var usage *usageError
	var refused *api.Error
	switch {
	case errors.As(err, &usage), errors.Is(err, node.ErrFinal):
		return 2
	case errors.As(err, &refused) && refused.Code == api.CodeBadRequest:
		return 2
	}
	return 1
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "warren",
		Short: "a peer-to-peer mesh VPN without servers",
		Long: "warren connects your machines with direct, encrypted WireGuard tunnels. There is no server:\n" +
			"the members introduce, relay for and admit each other.",
		Example: "  sudo warren create home      # on the first machine\n" +
			"  sudo warren invite           # there; prints a token\n" +
			"  sudo warren join             # on the next; asks for the token\n" +
			"  warren status",
		SilenceErrors:              true,
		SilenceUsage:               true,
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:                       subcommandOnly,
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{message: err.Error(), hint: "see: " + cmd.CommandPath() + " --help"}
	})
	flags := root.PersistentFlags()
	a.dirs = a.usual
	flags.StringVar(&a.dirs.mesh, "mesh", "", "name of the mesh (default: the only one here)")
	flags.StringVar(&a.dirs.stateRoot, "state-dir", a.usual.stateRoot, "directory of the state of all meshes")
	flags.StringVar(&a.dirs.runDir, "run-dir", a.usual.runDir, "directory of the agents' sockets")
	flags.StringVar(&a.dirs.config, "config", "", fmt.Sprintf("config file (default: %[1]s/MESH.toml if it is there, else %[1]s/warren.toml)", a.usual.configDir))
	root.AddGroup(
		&cobra.Group{ID: groupMesh, Title: "Meshes:"},
		&cobra.Group{ID: groupLook, Title: "Looking:"},
		&cobra.Group{ID: groupMachine, Title: "This machine:"},
	)
	root.AddCommand(
		grouped(groupMesh, a.createCommand(), a.inviteCommand(), a.joinCommand(), a.revokeCommand(), a.leaveCommand())...)
	root.AddCommand(
		grouped(groupLook, a.statusCommand(), a.peersCommand(), a.pingCommand(), a.whyCommand(), a.netcheckCommand())...)
	root.AddCommand(
		grouped(groupMachine, a.upCommand(), a.downCommand(), a.agentCommand(), a.serviceCommand(), a.configCommand(),
			a.versionCommand(), a.completionCommand())...)
	return root
}

const (
	groupMesh    = "mesh"
	groupLook    = "look"
	groupMachine = "machine"
)

func grouped(id string, commands ...*cobra.Command) []*cobra.Command {
	for _, c := range commands {
		c.GroupID = id
	}
	return commands
}

// exactly checks the number of arguments; want names them as the usage line does.
func exactly(n int, want string) cobra.PositionalArgs { return between(n, n, want) }

func between(low, high int, want string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if low <= len(args) && len(args) <= high {
			return nil
		}
		problem := "missing argument"
		if len(args) > high {
			problem = fmt.Sprintf("argument %q too many", args[high])
		}
		return &usageError{message: cmd.Name() + ": " + problem,
			hint: strings.TrimSpace("say: " + cmd.CommandPath() + " " + want)}
	}
}

// subcommandOnly is the rule of a command that only holds others: any word that comes here is none of them.
func subcommandOnly(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see: " + cmd.CommandPath() + " --help"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "did you mean: " + cmd.CommandPath() + " " + near[0]
	}
	return &usageError{message: fmt.Sprintf("unknown command %q", args[0]), hint: hint}
}
