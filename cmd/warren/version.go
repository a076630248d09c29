package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"warren/mesh/api"
)

// release is set by the linker (-X main.release=…) where the build has no git at hand.
var release string

const unknownVersion = "unknown"

// version returns the version of this program: what the linker was told, else what git told the compiler.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return unknownVersion
}

func versionLine() string {
	return fmt.Sprintf("warren %s (%s, %s/%s)\n", version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// versionCommand tells the version.
type versionCommand struct{ con *console }

func (c versionCommand) cobra() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Example: "  warren version --json",
		Args:    exactly(0, ""),
		RunE: func(*cobra.Command, []string) error {
			if asJSON {
				return c.con.printJSON(struct {
					Schema   int    `json:"schema"`
					Version  string `json:"version"`
					Go       string `json:"go"`
					Platform string `json:"platform"`
				}{api.Schema, version(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH})
			}
			fmt.Fprint(c.con.out, versionLine())
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// completionCommand prints what shells complete by.
type completionCommand struct{ con *console }

func (c completionCommand) cobra() *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print the completion script of a shell",
		Example: "  warren completion bash | sudo tee /etc/bash_completion.d/warren > /dev/null\n" +
			"  warren completion fish > ~/.config/fish/completions/warren.fish",
		Args:      exactly(1, "bash|zsh|fish|powershell"),
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(c.con.out, true)
			case "zsh":
				return root.GenZshCompletion(c.con.out)
			case "fish":
				return root.GenFishCompletion(c.con.out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(c.con.out)
			}
			return &usageError{message: fmt.Sprintf("unknown shell %q", args[0]), hint: "want bash, zsh, fish or powershell"}
		},
	}
}
