package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"warren/config"
)

// What a command does to this machine or the mesh stands with it. One that has neither mark only looks: it ends when nobody reads what it
// says.
const (
	markChanges  = "changes"  // it goes on to its end, whoever reads
	markDestroys = "destroys" // it is never what a mistyped word is taken for
)

func changes(c *cobra.Command) *cobra.Command { return marked(c, markChanges) }

func destroys(c *cobra.Command) *cobra.Command { return marked(changes(c), markDestroys) }

func marked(c *cobra.Command, mark string) *cobra.Command {
	if c.Annotations == nil {
		c.Annotations = make(map[string]string)
	}
	c.Annotations[mark] = "yes"
	return c
}

func has(c *cobra.Command, mark string) bool { return c.Annotations[mark] != "" }

// away are words for taking something away. Nothing is suggested for them, not even what looks alike: who means that reads the help first.
var away = []string{"stop", "quit", "exit", "end", "out", "kill", "halt", "off", "shutdown", "logout", "signout", "disconnect", "disable", "remove", "rm", "del", "delete",
	"destroy", "erase", "purge", "wipe", "reset", "forget", "kick", "ban", "block", "expel", "evict", "detach", "unlink", "uninstall", "unjoin", "withdraw", "drop"}

// meant are words that people know from other programs, or use for the thing, and the command that does it here.
var meant = map[string]string{
	"list": "peers", "ls": "peers", "nodes": "peers", "members": "peers", "machines": "peers", "devices": "peers", "hosts": "peers",
	"start": "up", "enable": "up", "reload": "up", "serve": "agent", "run": "agent", "daemon": "agent", "server": "agent",
	"init": "create", "new": "create", "make": "create", "add": "invite", "token": "invite", "authkey": "invite",
	"connect": "join", "login": "join", "accept": "join", "log": "logs", "journal": "logs",
	"show": "status", "state": "status", "stat": "status", "st": "status", "info": "status",
	"addr": "ip", "address": "ip", "addresses": "ip", "ips": "ip", "who": "whois", "lookup": "whois", "resolve": "whois", "id": "whois",
	"explain": "why", "debug": "why", "diagnose": "why", "trace": "why", "doctor": "netcheck", "test": "netcheck", "check": "netcheck",
	"settings": "config show", "update": "version", "upgrade": "version", "promote": "admin promote", "admins": "admin", "backup": "admin export-root",

	"service start": "up", "service restart": "restart", "service enable": "service install", "service log": "logs", "service logs": "logs",
	"invite ls": "invite list", "invite new": "invite", "invite create": "invite",
	"admin ls": "admin", "admin list": "admin", "admin add": "admin promote", "config validate": "config check", "config test": "config check", "config print": "config show",
}

// suggested is the command that a word, said where no command is called so, was most likely meant for; "" when none is near, or when one
// that destroys is as near.
func suggested(at *cobra.Command, word string) string {
	word = strings.ToLower(word)
	path := strings.TrimPrefix(strings.TrimPrefix(at.CommandPath(), at.Root().Name()), " ")
	if known := meant[strings.TrimSpace(path+" "+word)]; known != "" {
		return at.Root().Name() + " " + known
	}
	if slices.Contains(away, word) {
		return ""
	}
	var names []string
	var never []string
	for _, c := range at.Commands() {
		switch {
		case has(c, markDestroys):
			never = append(never, c.Name())
		case c.IsAvailableCommand():
			names = append(names, c.Name())
		}
	}
	// Asked for among all, so that a word for what destroys is not bent into another one.
	near := config.Nearest(word, append(slices.Clone(names), never...))
	if near == "" || slices.Contains(never, near) {
		return ""
	}
	return at.CommandPath() + " " + near
}

// subcommandOnly is the rule of a command that only holds others: any word that comes here is none of them.
func subcommandOnly(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see: " + cmd.CommandPath() + " --help"
	if near := suggested(cmd, args[0]); near != "" {
		hint = "did you mean: " + near
	}
	return &usageError{message: fmt.Sprintf("unknown command %q", args[0]), hint: hint}
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

// helpCommand is `warren help COMMAND`, which tells a word that is no command as everything else does.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]", Short: "Help about any command", Example: "  warren help invite",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			at, _, err := cmd.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, c := range at.Commands() {
				if c.IsAvailableCommand() {
					names = append(names, c.Name()+"\t"+c.Short)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			at, rest := cmd.Root(), args
			for len(rest) > 0 {
				next := slices.IndexFunc(at.Commands(), func(c *cobra.Command) bool { return c.Name() == rest[0] })
				if next < 0 {
					break
				}
				at, rest = at.Commands()[next], rest[1:]
			}
			if len(rest) > 0 && at.HasAvailableSubCommands() {
				return subcommandOnly(at, rest)
			}
			at.InitDefaultHelpFlag()
			return at.Help()
		},
	}
}
