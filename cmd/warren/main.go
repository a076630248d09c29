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
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"warren/mesh/agent"
	"warren/mesh/api"
	"warren/mesh/node"
	"warren/mesh/place"
	"warren/packaging"
	"warren/tunnel/osnames"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Whoever reads this program's output may stop reading. That is an error of the write then, and not the end: a mesh is not left
	// half made because of it. Not signal.Ignore, which programs started from here would inherit.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
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
	asks       asks
	names      func(mesh string) error                        // takes back what an agent has left where this machine looks names up
	attach     func(ctx context.Context, argv []string) error // runs another program in the place of this one
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
		asks:       usualAsks(),
		names:      osnames.TakeBack,
		attach:     attach,
		agent:      agent.Run,
		offline:    func(stateDir string) (offline, error) { return agent.OpenOffline(stateDir) },
		down:       agent.WhyDown,
	}
}

// run executes one command line and returns the exit status.
func (a *app) run(ctx context.Context, args []string) int {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	con := a.console
	con.stdout = &output{w: con.out}
	con.out = con.stdout
	if con.here != nil && con.here.euid == 0 && !con.here.sudo {
		con.out, con.err = withoutSudo{con.out}, withoutSudo{con.err}
	}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(con.in)
	root.SetOut(con.stdout)
	root.SetErr(con.err)
	root.PersistentPreRun = func(cmd *cobra.Command, _ []string) {
		if asked, err := cmd.Flags().GetBool("json"); err == nil && asked {
			con.asJSON()
		}
		// What only looks has nothing to do any more when nobody reads. What changes something goes on to its end.
		if !has(cmd, markChanges) {
			con.stdout.lost = stop
		}
	}
	err := whyDown(root.ExecuteContext(ctx), &a.dirs, a.down)
	return con.verdict(err, con.stdout.close())
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
			"the members introduce, relay for and admit each other.\n\n" +
			"The exit status is 0 when it is done, 1 when it failed, and 2 when it was said wrongly, which no repetition mends.",
		Example: "  sudo warren create home      # on the first machine\n" +
			"  sudo warren invite           # there; prints a token\n" +
			"  sudo warren join             # on the next; asks for the token\n" +
			"  warren status",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		Version:           version(),
		Args:              subcommandOnly,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate(versionLine())
	root.SetHelpCommand(helpCommand())
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
		changes(completing(createCommand{d, con, start, a.create}.cobra(), nothing)),
		changes(inviteCommand{d, con, a.now}.cobra()),
		changes(completing(joinCommand{d, con, start, a.join}.cobra(), files)),
		destroys(revokeCommand{d, con, a.now, a.offline}.cobra()),
		deviceCommand{d, con}.cobra(),
		adminCommand{d, con, a.now, a.offline}.cobra(),
		changes(completing(renameCommand{d, con}.cobra(), nothing)),
		destroys(leaveCommand{d, con, start, a.leave, a.names, a.down}.cobra()),
	)...)
	root.AddCommand(grouped(groupLook,
		statusCommand{d, con, a.now}.cobra(),
		peersCommand{d, con}.cobra(),
		ipCommand{d, con}.cobra(),
		whoisCommand{d, con}.cobra(),
		dnsCommand{d, con, a.asks}.cobra(),
		pingCommand{d, con}.cobra(),
		whyCommand{d, con}.cobra(),
		netcheckCommand{d, con}.cobra(),
		policyCommand{d, con}.cobra(),
	)...)
	root.AddCommand(grouped(groupMachine,
		changes(upCommand{d, con, start, a.down}.cobra()),
		destroys(downCommand{d, con, start}.cobra()),
		changes(restartCommand{d, con, start}.cobra()),
		logsCommand{d, con, start, a.attach}.cobra(),
		agentCommand{d, con, a.agent}.cobra(),
		serviceCommand{d, con, start}.cobra(),
		configCommand{d, con}.cobra(),
		changes(useCommand{d, con}.cobra()),
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
