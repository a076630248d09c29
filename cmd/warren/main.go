// Command warren makes, joins and runs peer-to-peer mesh VPNs. Its subcommands read flags and files, ask the agent over its
// socket, and print; the exit status is 0 for success, 1 for failure and 2 for wrong usage.
//
// The agent itself is mesh/agent; the service that keeps it running is packaging.
//
// Each invocation runs one command in one goroutine, but for the agent.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

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

// app is one invocation: what its commands are made of. Each command is a type of its own, which names what it uses.
type app struct {
	console *console
	now     func() time.Time
	usual   dirs // where the service keeps everything
	dirs    dirs // where this invocation shall look: the flags say

	// What the commands do outside of this program; tests put their own here.
	executable func() (string, error)  // path of this program, without symbolic links
	owned      func(path string) error // whether it is root's alone
	service    func() (packaging.Service, error)
	create     func(place.CreateOptions) (place.Membership, error)
	join       func(context.Context, place.JoinOptions, func(place.JoinProgress)) (place.Membership, error)
	leave      func(place.LeaveOptions) error
	agent      func(context.Context, agent.Options) error
	offline    func(stateDir string) (offline, error)
	down       func(stateDir string) agent.Down
}

func newApp() *app {
	return &app{
		console: newConsole(),
		now:     time.Now,
		usual:   dirs{env: os.Getenv(envMesh), stateRoot: defaultStateRoot, runDir: defaultRunDir, configDir: "/etc/warren"},

		executable: executable,
		owned:      packaging.CheckOwner,
		service:    packaging.Detect,
		create:     place.Create,
		join:       place.Join,
		leave:      place.LeaveOffline,
		agent:      agent.Run,
		offline:    func(stateDir string) (offline, error) { return agent.OpenOffline(stateDir) },
		down:       agent.WhyDown,
	}
}

// run executes one command line and returns the exit status.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(a.console.in)
	root.SetOut(a.console.out)
	root.SetErr(a.console.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	err = whyDown(err, &a.dirs, a.down)
	a.console.report(err)
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
	flags.StringVar(&a.dirs.mesh, "mesh", "", "name of the mesh (default: $"+envMesh+", the only one here, or what 'warren use' says)")
	flags.StringVar(&a.dirs.stateRoot, "state-dir", a.usual.stateRoot, "directory of the state of all meshes")
	flags.StringVar(&a.dirs.runDir, "run-dir", a.usual.runDir, "directory of the agents' sockets")
	flags.StringVar(&a.dirs.config, "config", "", fmt.Sprintf("config file (default: %[1]s/MESH.toml if it is there, else %[1]s/warren.toml)", a.usual.configDir))
	root.AddGroup(
		&cobra.Group{ID: groupMesh, Title: "Meshes:"},
		&cobra.Group{ID: groupLook, Title: "Looking:"},
		&cobra.Group{ID: groupMachine, Title: "This machine:"},
	)
	d, con := &a.dirs, a.console
	start := &starter{dirs: d, usual: a.usual, detect: a.service, executable: a.executable, owned: a.owned}
	root.AddCommand(grouped(groupMesh,
		createCommand{d, con, start, a.create}.cobra(),
		inviteCommand{d, con, a.now}.cobra(),
		joinCommand{d, con, start, a.join}.cobra(),
		revokeCommand{d, con, a.now, a.offline}.cobra(),
		adminCommand{d, con, a.now, a.offline}.cobra(),
		leaveCommand{d, con, start, a.leave, a.down}.cobra(),
	)...)
	root.AddCommand(grouped(groupLook,
		statusCommand{d, con, a.now}.cobra(),
		peersCommand{d, con}.cobra(),
		pingCommand{d, con}.cobra(),
		whyCommand{d, con}.cobra(),
		netcheckCommand{d, con}.cobra(),
	)...)
	root.AddCommand(grouped(groupMachine,
		upCommand{d, con, start, a.down}.cobra(),
		downCommand{d, con, start}.cobra(),
		agentCommand{d, con, a.agent}.cobra(),
		serviceCommand{d, con, start}.cobra(),
		configCommand{d, con}.cobra(),
		useCommand{d, con}.cobra(),
		versionCommand{con}.cobra(),
		completionCommand{con}.cobra(),
	)...)
	completeNames(root, d)
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
