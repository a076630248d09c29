package deptest

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write MAP.md anew")

const (
	root    = "../.." // of the module, as a test sees it
	mapFile = "MAP.md"
	columns = 120 // of a line of prose
)

// goFiles returns the Go files of the module that are no tests', by package.
func goFiles(t *testing.T) map[string][]string {
	t.Helper()
	files := make(map[string][]string)
	err := filepath.WalkDir(root, func(file string, e fs.DirEntry, err error) error {
		name := e.Name()
		switch {
		case err != nil:
			return err
		case e.IsDir() && (name == "testdata" || name == "bin" || name != ".." && strings.HasPrefix(name, ".")):
			if file == root {
				return nil
			}
			return fs.SkipDir
		case e.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		pkg := path.Dir(filepath.ToSlash(rel))
		files[pkg] = append(files[pkg], filepath.ToSlash(rel))
		return nil
	})
	if err != nil {
		t.Fatalf("look for files: %v", err)
	}
	files["cmd/deptest"] = nil // tests alone
	return files
}

// wrapped puts words into lines of at most columns; all but the first begin with indent.
func wrapped(words []string, indent string) string {
	var out strings.Builder
	width := 0
	for i, word := range words {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case width+1+n > columns:
			out.WriteString("\n" + indent)
			width = len(indent)
		default:
			out.WriteByte(' ')
			width++
		}
		out.WriteString(word)
		width += n
	}
	out.WriteByte('\n')
	return out.String()
}

func link(text, target string) string { return "[" + text + "](../../" + target + ")" }

// drawMap makes the page out of the table, the files that there are, and the signs.
func drawMap(table []place, files map[string][]string, signs []sign) string {
	var out strings.Builder
	out.WriteString("# The map of the code\n\n")
	out.WriteString(wrapped(strings.Fields(`Made by the tests of this directory out of the table in [table_test.go](table_test.go): change that, then say
		"go test ./cmd/deptest -update". Imports go down only: a package knows nothing of those on its own floor or above. What
		to look for where stands in [the index](#looking-for) at the end.`), ""))
	for floor := range len(floorNames) {
		if floor = programs - floor; floor < 0 { // from the top down, the tests last
			floor = tests
		}
		fmt.Fprintf(&out, "\n## Floor %d: %s\n\n%s.\n\n", floor, floorNames[floor].name, upperFirst(floorNames[floor].what))
		for _, p := range table {
			if p.floor != floor {
				continue
			}
			words := append([]string{"-", "**" + link(p.pkg, p.pkg) + "**:"}, strings.Fields(p.what+".")...)
			for i, file := range files[p.pkg] {
				entry := link(path.Base(file), file)
				if i < len(files[p.pkg])-1 {
					entry += ","
				}
				words = append(words, entry)
			}
			out.WriteString(wrapped(words, "  "))
		}
	}
	out.WriteString("\n## Log lines\n\n")
	out.WriteString(wrapped(strings.Fields(logRule), ""))
	out.WriteString("\n| key | what |\n|---|---|\n")
	for _, k := range logKeys {
		fmt.Fprintf(&out, "| `%s` | %s |\n", k.name, k.what)
	}
	out.WriteString("\n## Looking for\n\n| looking for | file | there |\n|---|---|---|\n")
	for _, s := range signs {
		fmt.Fprintf(&out, "| %s | %s | `%s` |\n", s.looking, link(s.file, s.file), s.name)
	}
	return out.String()
}

func upperFirst(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// astray returns what is wrong with the table and the signs: a package that is missing or not there, a sign that leads nowhere.
// read returns the text of a file.
func astray(table []place, packages []string, signs []sign, read func(file string) (string, error)) (lines []string) {
	seen := make(map[string]bool)
	for _, p := range table {
		switch {
		case seen[p.pkg]:
			lines = append(lines, p.pkg+" stands twice in the table")
		case !slices.Contains(packages, p.pkg):
			lines = append(lines, p.pkg+" stands in the table and is no package")
		case p.what == "" || strings.HasSuffix(p.what, ".") || strings.ContainsRune(p.what, '\n'):
			lines = append(lines, p.pkg+": want one line that says what it does, without a full stop")
		}
		seen[p.pkg] = true
	}
	for _, pkg := range packages {
		if !seen[pkg] {
			lines = append(lines, pkg+" is missing in the table")
		}
	}
	for _, s := range signs {
		text, err := read(s.file)
		switch {
		case err != nil:
			lines = append(lines, fmt.Sprintf("%q leads nowhere: %v", s.looking, err))
		case !strings.HasSuffix(s.file, ".go") && !strings.Contains(text, s.name):
			lines = append(lines, fmt.Sprintf("%q leads to %s, which does not contain %q", s.looking, s.file, s.name))
		case strings.HasSuffix(s.file, ".go") && !declares(text, s.name):
			lines = append(lines, fmt.Sprintf("%q leads to %s, which does not declare %s", s.looking, s.file, s.name))
		}
	}
	return lines
}

// declares reports whether a Go file declares a function, method, type, constant or variable of that name, outside of functions.
func declares(text, name string) bool {
	file, err := parser.ParseFile(token.NewFileSet(), "", text, parser.SkipObjectResolution)
	if err != nil {
		return false
	}
	named := func(id *ast.Ident) bool { return id.Name == name }
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if named(d.Name) {
				return true
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch s := spec.(type) {
				case *ast.TypeSpec:
					if named(s.Name) {
						return true
					}
				case *ast.ValueSpec:
					if slices.ContainsFunc(s.Names, named) {
						return true
					}
				}
			}
		}
	}
	return false
}

func TestMap(t *testing.T) {
	files := goFiles(t)
	var packages []string
	for pkg := range files {
		packages = append(packages, pkg)
	}
	slices.Sort(packages)
	for _, line := range astray(table, packages, signs, func(file string) (string, error) {
		text, err := os.ReadFile(filepath.Join(root, file))
		return string(text), err
	}) {
		t.Error(line)
	}
	want := drawMap(table, files, signs)
	if *update {
		if err := os.WriteFile(mapFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(mapFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is stale at %q: say go test ./cmd/deptest -update", mapFile, firstDifference(string(got), want))
	}
}

// firstDifference is the first line of want that got has not at its place.
func firstDifference(got, want string) string {
	have := strings.Split(got, "\n")
	for i, line := range strings.Split(want, "\n") {
		if i >= len(have) || have[i] != line {
			return line
		}
	}
	return "its end"
}

// TestMapBites asserts that what makes the map wrong is told.
func TestMapBites(t *testing.T) {
	one := []place{{"a", values, "does this"}}
	to := func(file, name string) []sign { return []sign{{"it", file, name}} }
	read := func(file string) (string, error) {
		switch file {
		case "a/a.go":
			return "package a\n\nconst c = 1\n\ntype T struct{ f int }\n\n// F is called by nobody; G is not here.\nfunc (T) F() {}\n", nil
		case "a.md":
			return "# Title\n", nil
		}
		return "", os.ErrNotExist
	}
	for _, tt := range []struct {
		name     string
		table    []place
		packages []string
		signs    []sign
		want     string // part of the complaint; "" for none
	}{
		{"all well", one, []string{"a"}, nil, ""},
		{"a package is missing", one, []string{"a", "b"}, nil, "b is missing"},
		{"a package is gone", one, nil, nil, "is no package"},
		{"twice", append(one, one...), []string{"a"}, nil, "stands twice"},
		{"nothing is said", []place{{"a", values, ""}}, []string{"a"}, nil, "want one line"},
		{"a method", one, []string{"a"}, to("a/a.go", "F"), ""},
		{"a type", one, []string{"a"}, to("a/a.go", "T"), ""},
		{"a constant", one, []string{"a"}, to("a/a.go", "c"), ""},
		{"a name that only a comment has", one, []string{"a"}, to("a/a.go", "G"), "does not declare G"},
		{"a file that is gone", one, []string{"a"}, to("a/b.go", "F"), "leads nowhere"},
		{"a heading", one, []string{"a"}, to("a.md", "# Title"), ""},
		{"a heading that is gone", one, []string{"a"}, to("a.md", "## Part"), "does not contain"},
	} {
		got := strings.Join(astray(tt.table, tt.packages, tt.signs, read), "\n")
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
