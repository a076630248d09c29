// Package deptest holds the rules of the house by tests: every package of the module has a floor and imports only what stands
// on lower ones (this file), types and the hub stay below ceilings (ceilings_test.go), a mutex is held for memory only
// (locks_test.go), log lines have one key for each thing (logs_test.go), and the pages for people have short lines and no dead link (pages_test.go). The table of floors
// (table_test.go) is also the map of the code, MAP.md (map_test.go).
//
// What a package does in detail is told by the package itself.
//
// It has no code outside its tests.
package deptest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "warren"

// level are the imports within one floor that are meant. There are none among owners. One that is not there any more fails: the
// list can only shrink.
var level = map[[2]string]string{
	{"mesh/record", "mesh/identity"}:      "records name keys and nodes",
	{"mesh/identity", "nat/ranges"}:       "IPv4 overlay networks are taken from the carriers' range",
	{"nat/netwatch", "nat/rtnl"}:          "a routing table of the whole Internet is asked with care in one place",
	{"nat/portmap", "nat/rtnl"}:           "the same",
	{"tunnel/osnet", "nat/rtnl"}:          "the same",
	{"mesh/store", "mesh/disk"}:           "a store that is set aside is renamed for good",
	{"mesh/report", "mesh/api"}:           "what the owners know is put into the local interface's words",
	{"cmd/warren-demo", "nat/natlab"}:     "the demo runs in the lab",
	{"cmd/warren-demo", "cmd/warren/e2e"}: "the demo drives the program as the tests do",
	{"cmd/warren/e2e", "nat/natlab"}:      "the tests run in the lab",
}

// only names the packages (with all below them) that may import a package,
// outside of tests. The others have to go through these.
var only = []struct {
	pkg    string
	by     []string
	reason string
}{
	{module + "/config", []string{"cmd"}, "the file becomes small option structs in one place that lists what can be set"},
	{module + "/packaging", []string{"cmd"}, "how the system starts the agent is no business of the agent"},
	{"testing", []string{"tests"}, "it registers flags and belongs to no program"},
	{"github.com/pion/turn/v3", nil, "one datagram ends a process that uses its client (GHSA-34rh-wp3j-6cxc)"},
	{"github.com/hashicorp/memberlist", []string{"mesh"}, "gossip is not trusted for content, so nobody else may see it"},
	{"github.com/quic-go/quic-go", []string{"mesh/session"}, "who speaks QUIC has to verify members, which is done there"},
	{"go.etcd.io/bbolt", []string{"mesh/store"}, "it may panic on damage, which is caught there"},
	{"github.com/flynn/noise", []string{"tunnel/noise"}, "it keeps secrets that are wiped there"},
	{"golang.zx2c4.com/wireguard/device", []string{"tunnel", "cmd/warren-bench"}, "the device has one owner; the benchmark measures the plain one beside it"},
	{"golang.zx2c4.com/wireguard/conn", []string{"tunnel", "cmd/warren-bench"}, "the shared socket has one owner"},
	{"golang.zx2c4.com/wireguard/wgctrl", []string{"tunnel", "cmd/warren-bench"}, "the device is configured in one place"},
	{"github.com/vishvananda/netlink", []string{"tunnel/osnet", "nat/netwatch", "tests"}, "the kernel's interface is an edge with an in-memory twin"},
	{"github.com/huin/goupnp", []string{"nat/portmap"}, "it goes wherever a stranger's description sends it, and reads without an end; both are stopped there"},
	{"github.com/spf13/cobra", []string{"cmd"}, "flags end where the program begins"},
	{"github.com/pelletier/go-toml/v2", []string{"config"}, "files are read in one place, strictly"},
}

// pkg is what `go list` tells of one package.
type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	Error                              *struct{ Err string }
}

func (p pkg) name() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

// list asks the go tool for the packages of the module as one system sees them.
func list(t *testing.T, goos string) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports,Error", module+"/...")
	cmd.Env = append(os.Environ(), "GOOS="+goos, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, &stderr)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
}

// within reports whether the package is one of these or below one of them.
func within(name string, of []string) bool {
	return slices.ContainsFunc(of, func(o string) bool {
		return name == o || strings.HasPrefix(name, o+"/") || o == "tests" && floor(name) == tests
	})
}

// alone names the one package, without those below it, that may import a library, whatever its version.
var alone = []struct{ lib, by, reason string }{
	{"github.com/pion/ice/", "nat", "the line has traps; replacing it is to be a change of one file"},
	{"github.com/pion/transport/", "nat", "it goes with ICE"},
}

// wrong returns what is wrong with one package's imports, one line each.
func wrong(p pkg) []string {
	from := floor(p.name())
	if from == noFloor {
		return []string{fmt.Sprintf("%s has no floor: add it to the table in cmd/deptest", p.name())}
	}
	found := map[string]bool{}
	for _, imported := range p.Imports {
		for _, o := range alone {
			if strings.HasPrefix(imported, o.lib) && p.name() != o.by {
				found[fmt.Sprintf("%s imports %s, which is for %s alone: %s", p.name(), imported, o.by, o.reason)] = true
			}
		}
		for _, o := range only {
			if imported == o.pkg && !within(p.name(), o.by) {
				found[fmt.Sprintf("%s imports %s, which is for %v only: %s", p.name(), imported, o.by, o.reason)] = true
			}
		}
		name, ours := strings.CutPrefix(imported, module+"/")
		if !ours {
			continue
		}
		to := floor(name)
		_, meant := level[[2]string{p.name(), name}]
		switch {
		case to == tests && from != tests:
			found[fmt.Sprintf("%s imports %s, which is for tests", p.name(), name)] = true
		case to == from && to == owners:
			found[fmt.Sprintf("%s imports %s: owners never import each other, mesh/node tells each what it should have", p.name(), name)] = true
		case to > from:
			found[fmt.Sprintf("%s (floor %d) imports %s (floor %d): imports go down", p.name(), from, name, to)] = true
		case to == from && to != tests && !meant:
			found[fmt.Sprintf("%s imports %s on the same floor (%d): the two are plugged together above them", p.name(), name, to)] = true
		}
	}
	// Tests of a package may use twins and the lab, and otherwise only what
	// the package itself could.
	for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
		name, ours := strings.CutPrefix(imported, module+"/")
		if to := floor(name); ours && to > from && to != tests {
			found[fmt.Sprintf("a test of %s (floor %d) imports %s (floor %d): imports go down", p.name(), from, name, to)] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// unused returns the exceptions of level that no package needs.
func unused(level map[[2]string]string, all []pkg) (lines []string) {
	for pair := range level {
		if !slices.ContainsFunc(all, func(p pkg) bool { return p.name() == pair[0] && slices.Contains(p.Imports, module+"/"+pair[1]) }) {
			lines = append(lines, fmt.Sprintf("%s does not import %s: take it off the exceptions in cmd/deptest", pair[0], pair[1]))
		}
	}
	slices.Sort(lines)
	return lines
}

func TestImportsGoDown(t *testing.T) {
	var both []pkg
	for _, goos := range []string{"linux", "darwin"} {
		t.Run(goos, func(t *testing.T) {
			all := list(t, goos)
			if len(all) < 10 {
				t.Fatalf("got %d packages: the test looks at the wrong module", len(all))
			}
			for _, p := range all {
				for _, line := range wrong(p) {
					t.Error(line)
				}
			}
			both = append(both, all...)
		})
	}
	for _, line := range unused(level, both) {
		t.Error(line)
	}
}

// TestRulesBite feeds the rules with imports that are forbidden, and one that is not.
func TestRulesBite(t *testing.T) {
	tests := []struct {
		p    pkg
		want string // part of the complaint; "" for none
	}{
		{pkg{ImportPath: "warren/nat", Imports: []string{"warren/mesh"}}, "owners never import each other"},
		{pkg{ImportPath: "warren/mesh/place", Imports: []string{"warren/mesh"}}, "owners never import each other"},
		{pkg{ImportPath: "warren/tunnel/bind", Imports: []string{"warren/tunnel/osnet"}}, "same floor"},
		{pkg{ImportPath: "warren/mesh/node", Imports: []string{"warren/mesh/agent"}}, "imports go down"},
		{pkg{ImportPath: "warren/tunnel/bind", Imports: []string{"warren/tunnel"}}, "imports go down"},
		{pkg{ImportPath: "warren/mesh/node", Imports: []string{"warren/config"}}, "is for [cmd] only"},
		{pkg{ImportPath: "warren/nat", Imports: []string{"warren/nat/natlab"}}, "is for tests"},
		{pkg{ImportPath: "warren/nat", Imports: []string{"warren/mesh/session/sessiontest"}}, "is for tests"},
		{pkg{ImportPath: "warren/nat", Imports: []string{"testing"}}, "registers flags"},
		{pkg{ImportPath: "warren/nat/relay", Imports: []string{"github.com/pion/turn/v3"}}, "GHSA"},
		{pkg{ImportPath: "warren/nat/relay", Imports: []string{"github.com/pion/ice/v4"}}, "for nat alone"},
		{pkg{ImportPath: "warren/nat", Imports: []string{"github.com/pion/ice/v4"}}, ""},
		{pkg{ImportPath: "warren/mesh/record", TestImports: []string{"warren/mesh"}}, "a test of mesh/record"},
		{pkg{ImportPath: "warren/somewhere"}, "has no floor"},
		{pkg{ImportPath: "warren/mesh/report", Imports: []string{"warren/mesh/api", "warren/nat", "warren/mesh/record"}}, ""},
		{pkg{ImportPath: "warren/tunnel", Imports: []string{"golang.zx2c4.com/wireguard/device"}, TestImports: []string{"warren/tunnel/osnet/osnettest", "testing"}}, ""},
	}
	for _, tt := range tests {
		got := strings.Join(wrong(tt.p), "\n")
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%v: got %q, want %q", tt.p, got, tt.want)
		}
	}
}

// TestExceptionsBite asserts that an exception which nobody needs is told.
func TestExceptionsBite(t *testing.T) {
	all := []pkg{{ImportPath: "warren/mesh/report", Imports: []string{"warren/mesh/api"}}, {ImportPath: "warren/mesh/api"}}
	if got := unused(map[[2]string]string{{"mesh/report", "mesh/api"}: "meant"}, all); len(got) != 0 {
		t.Errorf("an import that is there: got %q, want nothing", got)
	}
	if got := unused(map[[2]string]string{{"mesh/api", "mesh/report"}: "meant"}, all); len(got) != 1 {
		t.Errorf("an import that is not there: got %q, want one line", got)
	}
}
