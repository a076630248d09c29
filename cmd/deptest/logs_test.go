package deptest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// logRule is how a log line is made. The map shows it, with the keys.
const logRule = `A message is a constant: what happened, in a few words, in lower case but for names like ICE. All that differs is in the
	keys, and each key below means one thing. Another member is "peer", by its name, in the packages that know names: mesh,
	mesh/node and mesh/neighbours. Elsewhere, and where a node may have no name, it is "id", the short ID. A Go error is "error", an address of the underlay "address"; why
	something is so, in words or as a name out of a list, is "reason". Nothing is logged for each packet, nor secrets at all.`

// key is one key of log lines.
type key struct {
	name, what string
	short      bool // its value is a short ID
}

// logKeys are all that there are: no other key may be used, and one that nobody uses has to go.
var logKeys = []key{
	{"address", "where on the underlay: of the far side, unless the message says otherwise", false},
	{"addresses", "how many addresses", false},
	{"anchor", "short ID of the anchor or relay in between", true},
	{"attempt", "number of an introduction", false},
	{"by_peer", "the far side has done it", false},
	{"candidates", "how many candidates", false},
	{"code", "number of a reason, on the wire", false},
	{"count", "how many", false},
	{"dialled", "this side has dialled", false},
	{"error", "a Go error", false},
	{"external", "address that a router maps", false},
	{"file", "path of a file", false},
	{"from", "address of the one side, with `to`", false},
	{"gateway", "address of a router", false},
	{"got", "how many came in", false},
	{"id", "short ID of another node", true},
	{"internal", "this host's address before a router", false},
	{"invite", "short ID of an invite", true},
	{"key", "a WireGuard public key", false},
	{"kind", "which of several, by its name", false},
	{"mesh", "name of the mesh", false},
	{"mtu", "a size in bytes", false},
	{"name", "of what the message speaks of: an interface, a host, this node", false},
	{"part", "package that logs; set once, at its start", false},
	{"path", "kind of a path", false},
	{"peer", "another node, by its name", false},
	{"port", "a port of this node", false},
	{"protocol", "PCP, NAT-PMP or UPnP", false},
	{"public", "the address is one of the Internet", false},
	{"reason", "why, in words or as a name out of a list", false},
	{"records", "how many records", false},
	{"refused", "how many were refused", false},
	{"relay", "short ID of the relay agreed on", true},
	{"same", "nothing is other than before", false},
	{"sent", "how many went out", false},
	{"server", "address that was asked by STUN", false},
	{"signal", "an introduction, without its secrets", false},
	{"skipped", "how many such lines were not logged", false},
	{"spare", "short ID of the relay held ready", true},
	{"state", "what is believed now", false},
	{"step", "between two ports of a router", false},
	{"text", "a line of another library", false},
	{"to", "address of the other side, with `from`", false},
	{"uid", "user that asks", false},
	{"url", "path of a request", false},
	{"wanted", "the port that could not be had", false},
	{"with", "short ID of the node at the other end of what is relayed", true},
}

// banned are spellings that are tempting; the keys to use instead stand beside them.
var banned = map[string]string{
	"err": "error", "addr": "address", "remote": "address", "endpoint": "address", "member": "id or peer", "node": "id or peer", "ip": "address",
}

// verbose is what no message may have: what differs belongs into keys, and some words have others in their place.
var verbose = regexp.MustCompile(`%|\.$|(?i)failed to|fallback|by TCP`)

// logged is a call that logs, or makes an attribute of a line.
type logged struct {
	where   string
	message ast.Expr // nil: an attribute, or With
	pairs   []ast.Expr
}

// lines finds what a file logs.
func lines(file, text string) (out []logged, err error) {
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, text, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || call.Ellipsis.IsValid() {
			return true
		}
		on := lastName(method.X)
		l := logged{where: fmt.Sprintf("%s:%d", file, set.Position(call.Pos()).Line)}
		logger := strings.EqualFold(on, "log") || strings.EqualFold(on, "logger")
		skip := map[string]int{"Debug": 0, "Info": 0, "Warn": 0, "Error": 0, "DebugContext": 1, "InfoContext": 1, "WarnContext": 1, "ErrorContext": 1, "Log": 2}
		before, says := skip[method.Sel.Name]
		switch {
		case logger && says && len(call.Args) > before:
			l.message, l.pairs = call.Args[before], call.Args[before+1:]
		case logger && method.Sel.Name == "With":
			l.pairs = call.Args
		case on == "slog" && slices.Contains([]string{"Any", "String", "Int", "Int64", "Uint64", "Bool", "Duration", "Time"}, method.Sel.Name) && len(call.Args) == 2:
			l.pairs = call.Args
		default:
			return true
		}
		out = append(out, l)
		return true
	})
	return out, nil
}

// lastName is the name at the end of an expression: log in l.log, Logger in o.Logger.
func lastName(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.SelectorExpr:
		return x.Sel.Name
	case *ast.CallExpr: // a.log().Info
		return lastName(x.Fun)
	}
	return ""
}

// constant returns the text of a string that stands there literally.
func constant(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// isError reports whether an expression is named as errors are here.
func isError(e ast.Expr) bool {
	name := lastName(e)
	return name == "err" || name == "Err" || strings.HasSuffix(name, "Err") || name == "Cause" || name == "failed"
}

// isShort reports whether an expression is a short ID.
func isShort(e ast.Expr) bool {
	call, ok := e.(*ast.CallExpr)
	return ok && lastName(call.Fun) == "Short"
}

// amiss returns what is wrong with the log lines of a file, and notes in used which keys they have.
func amiss(file, text string, used map[string]bool) (out []string, err error) {
	found, err := lines(file, text)
	for _, l := range found {
		complain := func(format string, args ...any) {
			out = append(out, l.where+": "+fmt.Sprintf(format, args...))
		}
		if l.message != nil {
			message, ok := constant(l.message)
			switch {
			case !ok:
				complain("want a message that is a constant")
			case verbose.MatchString(message) || len(message) > 80:
				complain("message %q: want a few plain words, and in keys what differs", message)
			case len(message) > 1 && 'A' <= message[0] && message[0] <= 'Z' && 'a' <= message[1] && message[1] <= 'z':
				complain("message %q: want it in lower case", message)
			}
		}
		if len(l.pairs)%2 != 0 {
			complain("want pairs of keys and values")
			continue
		}
		for i := 0; i < len(l.pairs); i += 2 {
			name, ok := constant(l.pairs[i])
			if !ok {
				if l.message != nil {
					complain("want keys that are constants")
				}
				continue
			}
			used[name] = true
			value := l.pairs[i+1]
			at := slices.IndexFunc(logKeys, func(k key) bool { return k.name == name })
			switch {
			case banned[name] != "":
				complain("key %q: say %q", name, banned[name])
			case at < 0:
				complain("key %q is none of those in cmd/deptest: use one of them, or tell there what it means", name)
			case isShort(value) != logKeys[at].short && !(name == "id" && lastName(value) == "ID"): // a whole one, in a value's LogValue
				complain("key %q: want short IDs under id and the like, and nothing else there", name)
			case isError(value) != (name == "error"):
				complain("key %q: want Go errors under error, and nothing else there", name)
			}
		}
	}
	return out, err
}

func TestLogLines(t *testing.T) {
	used := make(map[string]bool)
	for pkg, files := range goFiles(t) {
		if floor(pkg) == tests {
			continue
		}
		for _, file := range files {
			text, err := os.ReadFile(filepath.Join(root, file))
			if err != nil {
				t.Fatal(err)
			}
			wrong, err := amiss(file, string(text), used)
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range wrong {
				t.Error(line)
			}
		}
	}
	for _, k := range logKeys {
		if !used[k.name] || k.what == "" {
			t.Errorf("key %q is used by nobody, or means nothing: take it off the list", k.name)
		}
		delete(used, k.name)
	}
	if len(used) > 0 {
		t.Logf("keys that are on no list: %v", slices.Sorted(maps.Keys(used)))
	}
}

// TestLogRulesBite feeds the rules with lines that break them, and with some that do not.
func TestLogRulesBite(t *testing.T) {
	for _, tt := range []struct{ call, want string }{
		{`l.log.Info("path changed", "id", id.Short(), "address", addr, "reason", why)`, ""},
		{`h.log.Warn("session refused", "peer", h.nameOf(id))`, ""},
		{`o.Logger.With("part", "nat")`, ""},
		{`l.log.Log(ctx, level, "UDP", "state", now.String())`, ""},
		{`log.Debug("ICE failed", "error", err)`, ""},
		{`slog.String("kind", kind)`, ""},
		{`b.errors.Error("anything", err)`, ""}, // no logger
		{`l.log.Info("path changed", "err", err)`, `say "error"`},
		{`l.log.Info("path changed", "addr", a)`, `say "address"`},
		{`l.log.Info("path changed", "remote", a)`, `say "address"`},
		{`slog.String("member", m)`, `say "id or peer"`},
		{`l.log.Info("path changed", "peer", id.Short())`, "want short IDs under id"},
		{`l.log.Info("path changed", "id", name)`, "want short IDs under id"},
		{`l.log.Info("path changed", "reason", err)`, "want Go errors under error"},
		{`l.log.Info("path changed", "reason", got.err)`, "want Go errors under error"},
		{`l.log.Info("path changed", "error", text)`, "want Go errors under error"},
		{`l.log.Info("path changed", "whatever", 1)`, "is none of those"},
		{`l.log.Info("path changed", "address")`, "want pairs"},
		{`l.log.Info("path changed", k, 1)`, "keys that are constants"},
		{`l.log.Info(text)`, "a constant"},
		{`l.log.Info(fmt.Sprintf("path %s", p))`, "a constant"},
		{`l.log.Info("failed to open port")`, "a few plain words"},
		{`l.log.Info("uses the fallback")`, "a few plain words"},
		{`l.log.Info("Path changed")`, "in lower case"},
	} {
		got, err := amiss("a.go", "package a\n\nfunc f() {\n\t"+tt.call+"\n}\n", make(map[string]bool))
		if err != nil {
			t.Errorf("%s: %v", tt.call, err)
			continue
		}
		if text := strings.Join(got, "\n"); (text == "") != (tt.want == "") || !strings.Contains(text, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.call, text, tt.want)
		}
	}
}
