package deptest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

/* A mutex is held for memory only: not across I/O, a channel operation that can block, a callback, a wait, or a call into another
 * package that can lock or call out. Whoever waits for it else waits for a network, or for itself.
 *
 * The test follows the code from each Lock to its Unlock, through the functions of the same package that are called meanwhile,
 * and reports what leaves memory on the way. It sees no further than into its own package: of others it knows by their floor, or
 * by the list of the quiet ones, what they may do.
 */

// heldAcross is what is still done, or has to be, with a mutex held, and why. One that is not there any more fails: the list can
// only shrink.
var heldAcross = map[string]string{}

// exports asks the go tool for the packages, and for what each of them exports.
func exports(t *testing.T) (own map[string][]string, imp func(*token.FileSet) types.Importer) {
	cmd := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Export,Dir,GoFiles", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, &stderr)
	}
	own, files := make(map[string][]string), make(map[string]string)
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Export, Dir string
			GoFiles                 []string
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		files[p.ImportPath] = p.Export
		if name, ours := strings.CutPrefix(p.ImportPath, module+"/"); ours && floor(name) != tests {
			for _, file := range p.GoFiles {
				own[name] = append(own[name], filepath.Join(p.Dir, file))
			}
		}
	}
	return own, func(fset *token.FileSet) types.Importer {
		return importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(files[path]) })
	}
}

// unexcused returns what is found and has no exception, and the exceptions that nothing needs.
func unexcused(fset *token.FileSet, found map[string]token.Pos, excused map[string]string) (lines []string) {
	for _, what := range slices.Sorted(maps.Keys(found)) {
		if excused[what] == "" {
			lines = append(lines, fmt.Sprintf("%s: %s, with a mutex held", fset.Position(found[what]), what))
		}
	}
	for _, what := range slices.Sorted(maps.Keys(excused)) {
		if _, is := found[what]; !is {
			lines = append(lines, what+": it does that no more: take the exception off")
		}
	}
	return lines
}

func TestLocks(t *testing.T) {
	own, imp := exports(t)
	fset := token.NewFileSet()
	known := imp(fset)
	found, followed := make(map[string]token.Pos), 0
	for name, paths := range own {
		var files []*ast.File
		for _, path := range paths {
			file, err := parser.ParseFile(fset, path, nil, parser.ParseComments|parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
		u, err := look(fset, known, name, files)
		if err != nil {
			t.Fatal(err)
		}
		maps.Copy(found, u.found)
		followed += u.regions
	}
	if followed < 100 {
		t.Fatalf("got %d mutexes taken: the test looks at the wrong place", followed)
	}
	for _, line := range unexcused(fset, found, heldAcross) {
		t.Error(line)
	}
}

// biting is the package that TestLocksBite adds a method to.
const biting = `package tunnel

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"warren/mesh/identity"
	"warren/nat/limit"
	"warren/tunnel/bind"
)

type T struct {
	mu     sync.Mutex
	rw     sync.RWMutex
	n      int
	f      func()
	c      chan int
	i      interface{ Do() }
	conn   net.Conn
	err    error
	cancel context.CancelFunc
	wg     sync.WaitGroup
	rate   *limit.Sources[int]
	log    *slog.Logger
}

var _ = []any{os.Remove, netip.Addr{}, slices.Max[[]int], time.Now, netlink.LinkList, identity.NodeID{}, bind.IsVirtual}

func (t *T) calls()  { t.f() }
func (t *T) deep()   { t.calls() }
func (t *T) lock()   { t.mu.Lock() }
func (t *T) unlock() { t.n++; t.mu.Unlock() }
func (t *T) get() int { t.mu.Lock(); defer t.unlock(); return t.n }
`

// TestLocksBite feeds the rule with code that breaks it, and with code that just does not.
func TestLocksBite(t *testing.T) {
	_, imp := exports(t)
	fset := token.NewFileSet()
	known := imp(fset)
	held := func(body string) string { return "func (t *T) m() { t.mu.Lock(); " + body + "; t.mu.Unlock() }" }
	for _, tt := range []struct {
		name, text string
		want       string // part of the complaint; "" for none
	}{
		{"memory", held("t.n++; _ = time.Now(); _ = t.err.Error(); _ = identity.NodeID{}.Short(); _ = slices.Max([]int{t.n}); t.cancel(); close(t.c)"), ""},
		{"interface", held("t.i.Do()"), "tunnel.T.m: calls an interface, "},
		{"interface of the library", held("t.conn.Close()"), "calls an interface, (net.Conn).Close"},
		{"function value", held("t.f()"), "calls the function value t.f"},
		{"method value", held("g := t.get; g()"), "calls the function value g"},
		{"literal", held("func() { t.f() }()"), "calls the function value t.f"},
		{"literal given away", held("_ = slices.IndexFunc([]int{1}, func(int) bool { t.f(); return true })"), "calls the function value t.f"},
		{"at another time", held("go t.f(); go func() { t.f() }(); time.AfterFunc(0, func() { t.f() }); t.wg.Go(func() { <-t.c })"), ""},
		{"send", held("t.c <- 1"), "sends to a channel"},
		{"receive", held("t.n = <-t.c"), "receives from a channel"},
		{"range", held("for range t.c {}"), "receives from a channel"},
		{"select", held("select { case <-t.c: case t.c <- 1: }"), "waits in a select"},
		{"select with default", held("select { case <-t.c: case t.c <- 1: default: }"), ""},
		{"call in a select", held("select { case <-t.c: t.f(); default: }"), "calls the function value t.f"},
		{"net", held("_, _ = net.Listen(\"tcp\", \"\")"), "leaves memory, net.Listen"},
		{"os", held("_ = os.Remove(\"\")"), "leaves memory, os.Remove"},
		{"netlink", held("_, _ = netlink.LinkList()"), "leaves memory, github.com/vishvananda/netlink.LinkList"},
		{"log", held("t.log.Info(\"up\")"), "leaves memory, (*log/slog.Logger).Info"},
		{"sleep", held("time.Sleep(1)"), "leaves memory, time.Sleep"},
		{"wait", held("t.wg.Wait()"), "leaves memory, (*sync.WaitGroup).Wait"},
		{"own package", held("_ = bind.IsVirtual(netip.Addr{})"), "calls another package, tunnel/bind.IsVirtual"},
		{"its mutex", held("t.rate.Allow(time.Now(), 1)"), "takes another package's mutex"},
		{"own function", held("t.deep()"), "tunnel.T.calls: calls the function value t.f"},
		{"after it", held("t.n++") + "\nfunc (t *T) o() { t.mu.Lock(); t.mu.Unlock(); t.f() }", ""},
		{"deferred", "func (t *T) m() { t.rw.RLock(); defer t.rw.RUnlock(); t.f() }", "t.f"},
		{"deferred call", "func (t *T) m() { t.mu.Lock(); defer t.mu.Unlock(); defer t.f() }", "t.f"},
		{"deferred before", "func (t *T) m() { defer t.f(); t.mu.Lock(); defer t.mu.Unlock(); t.n++ }", ""},
		{"given back and out", held("if t.n > 0 { t.mu.Unlock(); t.f(); return }"), ""},
		{"given back in one way", held("if t.n > 0 { t.mu.Unlock() }; t.f()"), "t.f"},
		{"given back in all", "func (t *T) m() { t.mu.Lock(); switch t.n { case 1: t.mu.Unlock(); default: t.mu.Unlock() }; t.f() }", ""},
		{"in a loop", "func (t *T) m() { for { t.mu.Lock(); if t.n > 0 { t.mu.Unlock(); break }; t.mu.Unlock(); t.f() } }", ""},
		{"another one held", held("t.rw.Lock(); t.rw.Unlock(); t.f()"), "t.f"},
		{"behind methods", "func (t *T) m() { t.lock(); t.f(); t.unlock() }", "t.f"},
		{"behind methods, after it", "func (t *T) m() { t.lock(); t.unlock(); t.f(); t.get(); t.f() }", ""},
		{"by its name", "func (t *T) mLocked() { t.f() }", "t.f"},
		{"by its word", "// m calls. The caller holds mu.\nfunc (t *T) m() { t.f() }", "t.f"},
	} {
		file, err := parser.ParseFile(fset, "bite.go", biting+"\n"+tt.text+"\n", parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		u, err := look(fset, known, "tunnel", []*ast.File{file})
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		got := strings.Join(unexcused(fset, u.found, nil), "\n")
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
	found := map[string]token.Pos{"nat.T.m: waits in a select": token.NoPos}
	if got := unexcused(fset, found, map[string]string{"nat.T.m: waits in a select": "why"}); len(got) != 0 {
		t.Errorf("an exception that is needed: got %q, want nothing", got)
	}
	if got := unexcused(fset, nil, map[string]string{"nat.T.m: waits in a select": "why"}); len(got) != 1 {
		t.Errorf("an exception that is not: got %q, want one line", got)
	}
}
