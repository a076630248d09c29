package deptest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Ceilings. A type that grows past one of these owns too much; splitting its file does not help, splitting what it owns does.
const (
	mostMethods   = 25
	mostFields    = 20
	mostFunctions = 15 // function fields in all Options and Config structs together: an interface says more, and can be faked

	// The hub is where everything meets, so it is where everything lands that has no owner.
	hub            = "mesh/node"
	mostHubFields  = 15
	mostHubImports = 12 // of this module
	mostHubLines   = 3000
	mostHubMutexes = 2
)

// exceptions are what is above a ceiling still, and by how much. They may only shrink: one that is higher than what there is, or
// that is needed no more, fails.
var exceptions = map[string]int{}

// measured is one thing that has a ceiling.
type measured struct {
	name      string
	got, most int
	which     []string // what was counted, where that helps
}

// census is what was counted in the code that runs: no tests, no twins.
type census struct {
	methods, fields map[string]int             // of each type, as PACKAGE.Type
	functions       []string                   // PACKAGE.Type.Field
	imports         map[string]map[string]bool // of each package, packages of this module
	lines, mutexes  map[string]int             // of each package
}

// count takes Go files, by their paths in the module.
func count(files map[string]string) (census, error) {
	c := census{
		methods: make(map[string]int), fields: make(map[string]int), imports: make(map[string]map[string]bool),
		lines: make(map[string]int), mutexes: make(map[string]int),
	}
	for _, file := range slices.Sorted(maps.Keys(files)) {
		pkg, text := path.Dir(file), files[file]
		if floor(pkg) == tests {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
		if err != nil {
			return c, err
		}
		c.lines[pkg] += len(strings.Split(text, "\n"))
		if c.imports[pkg] == nil {
			c.imports[pkg] = make(map[string]bool)
		}
		for _, spec := range parsed.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			if own, ours := strings.CutPrefix(name, module+"/"); ours {
				c.imports[pkg][own] = true
			}
		}
		c.file(pkg, parsed)
	}
	return c, nil
}

// file counts what one file declares.
func (c *census) file(pkg string, file *ast.File) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			if n.Recv != nil {
				c.methods[pkg+"."+receiver(n.Recv.List[0].Type)]++
			}
		case *ast.TypeSpec:
			if s, ok := n.Type.(*ast.StructType); ok {
				c.fields[pkg+"."+n.Name.Name] = fieldsOf(s)
				c.functions = append(c.functions, functionsOf(pkg, n.Name.Name, s)...)
			}
		case *ast.Field:
			c.mutex(pkg, n.Names, n.Type)
		case *ast.ValueSpec:
			c.mutex(pkg, n.Names, n.Type)
		}
		return true
	})
}

// receiver is the type of a method.
func receiver(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return "?"
		}
	}
}

// fieldsOf counts the fields of a struct: each name, each embedded type, and those of structs without a name inside it.
func fieldsOf(s *ast.StructType) (n int) {
	for _, f := range s.Fields.List {
		n += max(1, len(f.Names))
		if inner, ok := f.Type.(*ast.StructType); ok {
			n += fieldsOf(inner)
		}
	}
	return n
}

// functionsOf names the fields of an options struct that are functions.
func functionsOf(pkg, name string, s *ast.StructType) (out []string) {
	if !strings.HasSuffix(name, "Options") && !strings.HasSuffix(name, "Config") {
		return nil
	}
	for _, f := range s.Fields.List {
		if _, function := f.Type.(*ast.FuncType); function {
			for _, id := range f.Names {
				out = append(out, pkg+"."+name+"."+id.Name)
			}
		}
	}
	return out
}

func (c *census) mutex(pkg string, names []*ast.Ident, e ast.Expr) {
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	if s, ok := e.(*ast.SelectorExpr); ok && (s.Sel.Name == "Mutex" || s.Sel.Name == "RWMutex") {
		c.mutexes[pkg] += max(1, len(names))
	}
}

// measure holds the census to the ceilings.
func (c census) measure() (out []measured) {
	for _, name := range slices.Sorted(maps.Keys(c.methods)) {
		out = append(out, measured{"methods of " + name, c.methods[name], mostMethods, nil})
	}
	for _, name := range slices.Sorted(maps.Keys(c.fields)) {
		most := mostFields
		if name == hub+".Hub" {
			most = mostHubFields
		}
		out = append(out, measured{"fields of " + name, c.fields[name], most, nil})
	}
	return append(out,
		measured{"function fields in options", len(c.functions), mostFunctions, c.functions},
		measured{"imports of " + hub, len(c.imports[hub]), mostHubImports, slices.Sorted(maps.Keys(c.imports[hub]))},
		measured{"lines of " + hub, c.lines[hub], mostHubLines, nil},
		measured{"mutexes of " + hub, c.mutexes[hub], mostHubMutexes, nil},
	)
}

// above returns what stands above its ceiling, and which exceptions are not what they should be.
func above(all []measured, exceptions map[string]int) (lines []string) {
	known := make(map[string]bool)
	for _, m := range all {
		known[m.name] = true
		allowed, excepted := exceptions[m.name]
		switch {
		case !excepted && m.got > m.most:
			lines = append(lines, fmt.Sprintf("%s: got %d, want at most %d %v", m.name, m.got, m.most, m.which))
		case !excepted:
		case m.got <= m.most:
			lines = append(lines, fmt.Sprintf("%s: got %d, the exception of %d is needed no more: take it off", m.name, m.got, allowed))
		case m.got > allowed:
			lines = append(lines, fmt.Sprintf("%s: got %d, want at most the %d of its exception, and %d in the end %v", m.name, m.got, allowed, m.most, m.which))
		case m.got < allowed:
			lines = append(lines, fmt.Sprintf("%s: got %d, the exception says %d: lower it", m.name, m.got, allowed))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(exceptions)) {
		if !known[name] {
			lines = append(lines, name+": there is no such thing: take its exception off")
		}
	}
	return lines
}

func TestCeilings(t *testing.T) {
	texts := make(map[string]string)
	for _, files := range goFiles(t) {
		for _, file := range files {
			text, err := os.ReadFile(filepath.Join(root, file))
			if err != nil {
				t.Fatal(err)
			}
			texts[file] = string(text)
		}
	}
	c, err := count(texts)
	if err != nil {
		t.Fatal(err)
	}
	if c.fields[hub+".Hub"] == 0 {
		t.Fatalf("no type Hub in %s: the test looks at the wrong place", hub)
	}
	for _, line := range above(c.measure(), exceptions) {
		t.Error(line)
	}
}

// TestCeilingsBite feeds each rule with code that breaks it, and with code that just does not.
func TestCeilingsBite(t *testing.T) {
	fields := func(n int) string { return strings.Repeat("\tf int\n", n) }
	methods := func(n int) string { return "type T struct{}\n" + strings.Repeat("func (t *T) m() {}\n", n) }
	imports := func(n int) string {
		text := ""
		for i := range n {
			text += fmt.Sprintf("import _ \"warren/p%d\"\n", i)
		}
		return text + "import _ \"fmt\"\n"
	}
	for _, tt := range []struct {
		name, file, text string
		want             string // part of the complaint; "" for none
	}{
		{"methods", "nat/a.go", methods(26), "methods of nat.T: got 26, want at most 25"},
		{"methods, enough", "nat/a.go", methods(25), ""},
		{"methods of a generic type", "nat/a.go", strings.ReplaceAll(methods(26), "*T)", "*T[K, V])"), "methods of nat.T: got 26"},
		{"fields", "nat/a.go", "type T struct {\n" + fields(21) + "}\n", "fields of nat.T: got 21, want at most 20"},
		{"names in one line", "nat/a.go", "type T struct {\n\ta, b, c int\n" + fields(18) + "}\n", "got 21"},
		{"embedded ones", "nat/a.go", "type T struct {\n\tio.Reader\n\t*U\n" + fields(19) + "}\n", "got 21"},
		{"a struct inside", "nat/a.go", "type T struct {\n\ts struct {\n" + fields(20) + "\t}\n}\n", "got 21"},
		{"in a group", "nat/a.go", "type (\n\tT struct {\n" + fields(21) + "}\n)\n", "got 21"},
		{"fields, enough", "nat/a.go", "type T struct {\n" + fields(20) + "}\n", ""},
		{"a twin may", "nat/natlab/a.go", "type T struct {\n" + fields(21) + "}\n" + methods(26), ""},
		{"function fields", "nat/a.go", "type Options struct {\n" + strings.Repeat("\tf, g func()\n", 8) + "}\n", "function fields in options: got 16"},
		{"function fields of a config", "nat/a.go", "type XConfig struct {\n" + strings.Repeat("\tf, g func()\n", 8) + "}\n", "got 16"},
		{"function fields, enough", "nat/a.go", "type Options struct {\n" + strings.Repeat("\tf func()\n", 15) + "}\n", ""},
		{"function fields elsewhere", "nat/a.go", "type parts struct {\n" + strings.Repeat("\tf, g func()\n", 8) + "}\n", ""},
		{"fields of the hub", "mesh/node/a.go", "type Hub struct {\n" + fields(16) + "}\n", "fields of mesh/node.Hub: got 16, want at most 15"},
		{"another type beside it", "mesh/node/a.go", "type T struct {\n" + fields(16) + "}\n", ""},
		{"methods of the hub", "mesh/node/a.go", strings.ReplaceAll(methods(26), "T", "Hub"), "methods of mesh/node.Hub: got 26"},
		{"imports of the hub", "mesh/node/a.go", imports(13), "imports of mesh/node: got 13"},
		{"imports, enough", "mesh/node/a.go", imports(12), ""},
		{"imports of another", "mesh/agent/a.go", imports(13), ""},
		{"lines of the hub", "mesh/node/a.go", strings.Repeat("\n", 3000), "lines of mesh/node: got 3002"},
		{"mutexes of the hub", "mesh/node/a.go", "type T struct {\n\ta, b sync.Mutex\n}\n\nvar c sync.RWMutex\n", "mutexes of mesh/node: got 3"},
		{"mutexes, enough", "mesh/node/a.go", "type T struct {\n\ta sync.Mutex\n\tb *sync.RWMutex\n}\n", ""},
	} {
		c, err := count(map[string]string{tt.file: "package a\n" + tt.text})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		got := strings.Join(above(c.measure(), nil), "\n")
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestExceptionsShrink asserts that an exception has to be exactly what it is for.
func TestExceptionsShrink(t *testing.T) {
	for _, tt := range []struct {
		name      string
		got       int
		exception map[string]int
		want      string
	}{
		{"as it is", 30, map[string]int{"it": 30}, ""},
		{"it has grown", 31, map[string]int{"it": 30}, "at most the 30 of its exception"},
		{"it has shrunk", 29, map[string]int{"it": 30}, "the exception says 30: lower it"},
		{"it is below the ceiling", 20, map[string]int{"it": 30}, "needed no more"},
		{"it is gone", 20, map[string]int{"that": 30}, "no such thing"},
	} {
		got := strings.Join(above([]measured{{"it", tt.got, 25, nil}}, tt.exception), "\n")
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
