package deptest

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// How locks_test.go follows the code.

// loud are the packages of the standard library that leave memory, and the functions of others that do or wait.
var loud = regexp.MustCompile(`^\(?\*?(net|os|io|bufio|syscall|log|plugin)[./]|^fmt\.(Print|Fprint|Scan|Fscan)|crypto/tls\.|` +
	`^time\.Sleep|^\(\*sync\.(WaitGroup|Cond)\)\.Wait`)

// quiet are functions of these, interfaces too, and packages from outside, that stay in memory.
var quiet = regexp.MustCompile(`^\(?\*?(net/netip|net/url|context|hash|crypto/(hpke|cipher)|golang\.org/x/time/rate|golang\.org/x/crypto/[a-z0-9/]+|` +
	`github\.com/fxamacker/cbor/v2|golang\.zx2c4\.com/wireguard/wgctrl/wgtypes)\.|^\(\*golang\.zx2c4\.com/wireguard/(device\.CookieChecker|replay\.Filter)\)|` +
	`^\(\*?net\.(IP|IPMask|IPNet|UDPAddr|TCPAddr)\)|^net\.(UDPAddr|TCPAddr)FromAddrPort|^\(net\.Error\)|^os\.IsNotExist`)

// later are those that do not call the function they are given before they return.
var later = regexp.MustCompile(`^time\.AfterFunc|^context\.AfterFunc|^\(\*sync\.WaitGroup\)\.Go|^sync\.Once(Func|Values?)`)

// heldDoc is how a function says that it is called with a mutex held.
var heldDoc = regexp.MustCompile(`mu is held|lock is held|[Cc]allers? holds?`)

// unit is one package that is looked at.
type unit struct {
	name   string
	info   *types.Info
	pkg    *types.Package
	bodies map[*types.Func]*ast.FuncDecl
	turns  map[*types.Func]int  // see turn
	walked map[string]bool      // functions that were followed, without and with a mutex held
	found  map[string]token.Pos // what is done with a mutex held

	regions int // how often one is taken
}

// look type-checks the files of one package and follows its functions.
func look(fset *token.FileSet, imp types.Importer, name string, files []*ast.File) (*unit, error) {
	u := &unit{
		name: name, bodies: make(map[*types.Func]*ast.FuncDecl), turns: make(map[*types.Func]int), walked: make(map[string]bool), found: make(map[string]token.Pos),
		info: &types.Info{Uses: make(map[*ast.Ident]types.Object), Defs: make(map[*ast.Ident]types.Object), Types: make(map[ast.Expr]types.TypeAndValue)},
	}
	var err error
	if u.pkg, err = (&types.Config{Importer: imp}).Check(module+"/"+name, fset, files, u.info); err != nil {
		return nil, err
	}
	for _, file := range files {
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
				u.bodies[u.info.Defs[f.Name].(*types.Func)] = f
			}
		}
	}
	for f, d := range u.bodies {
		u.follow(f, strings.HasSuffix(f.Name(), "Locked") || heldDoc.MatchString(d.Doc.Text()))
	}
	return u, nil
}

// follow follows a function of the package; held: its caller holds a mutex.
func (u *unit) follow(f *types.Func, held bool) {
	d, name := u.bodies[f], u.name+"."+f.Name()
	if d.Recv != nil {
		name = u.name + "." + receiver(d.Recv.List[0].Type) + "." + f.Name()
	}
	if key := fmt.Sprint(name, held); !u.walked[key] {
		u.walked[key] = true
		w := &walk{unit: u, name: name, held: make(map[string]bool)}
		if held {
			w.held["the caller's"] = true
		}
		w.stmt(d.Body)
	}
}

// turn says what a function does to a mutex: 1, takes it; -1, gives it back. One of the package that does both leaves it as it was.
func (u *unit) turn(f *types.Func) int {
	name, d := f.FullName(), u.bodies[f]
	if strings.HasPrefix(name, "(*sync.Mutex).") || strings.HasPrefix(name, "(*sync.RWMutex).") {
		return map[string]int{"Lock": 1, "RLock": 1, "Unlock": -1, "RUnlock": -1}[f.Name()]
	}
	if _, known := u.turns[f]; !known && d != nil {
		u.turns[f] = 0 // what calls itself
		does := make(map[int]bool)
		ast.Inspect(d.Body, func(n ast.Node) bool {
			if c, ok := n.(*ast.CallExpr); ok && u.called(c) != nil {
				does[u.turn(u.called(c))] = true
			}
			return true
		})
		if does[1] != does[-1] {
			u.turns[f] = map[bool]int{true: 1, false: -1}[does[1]]
		}
	}
	return u.turns[f]
}

// called returns the function or method that is called by its name; nil: a conversion, a builtin, a function value.
func (u *unit) called(c *ast.CallExpr) *types.Func {
	e := ast.Unparen(c.Fun)
	switch generic := e.(type) {
	case *ast.IndexExpr:
		e = generic.X
	case *ast.IndexListExpr:
		e = generic.X
	}
	id, _ := e.(*ast.Ident)
	if s, ok := e.(*ast.SelectorExpr); ok {
		id = s.Sel
	}
	if f, ok := u.info.Uses[id].(*types.Func); ok {
		return f.Origin()
	}
	return nil
}

// walk follows one function, statement by statement. Of several ways it takes all: what one of them leaves held is held.
type walk struct {
	*unit
	name string          // of the function
	held map[string]bool // mutexes, as they are written
}

func (w *walk) report(at ast.Node, format string, args ...any) {
	if len(w.held) > 0 {
		w.found[w.name+": "+strings.ReplaceAll(fmt.Sprintf(format, args...), module+"/", "")] = at.Pos()
	}
}

// ways follows some of which one is taken; open: or none is. It is true when nothing comes after them.
func (w *walk) ways(open bool, ways ...[]ast.Stmt) (ended bool) {
	before, after := w.held, make(map[string]bool)
	if ended = !open; open {
		maps.Copy(after, before)
	}
	for _, way := range ways {
		w.held = maps.Clone(before)
		if !slices.ContainsFunc(way, w.stmt) {
			ended = false
			maps.Copy(after, w.held)
		}
	}
	w.held = after
	return ended
}

// stmt follows a statement; true when it ends the function.
func (w *walk) stmt(s ast.Stmt) (ended bool) {
	switch s := s.(type) {
	case nil:
	case *ast.BlockStmt:
		return slices.ContainsFunc(s.List, w.stmt)
	case *ast.LabeledStmt:
		return w.stmt(s.Stmt)
	case *ast.ReturnStmt:
		w.expr(s)
		return true
	case *ast.IfStmt:
		w.stmt(s.Init)
		w.expr(s.Cond)
		if s.Else != nil {
			return w.ways(false, s.Body.List, []ast.Stmt{s.Else})
		}
		w.ways(true, s.Body.List)
	case *ast.ForStmt:
		w.stmt(s.Init)
		if s.Cond != nil {
			w.expr(s.Cond)
		}
		w.ways(true, s.Body.List)
		w.stmt(s.Post)
	case *ast.RangeStmt:
		w.expr(s.X)
		switch w.info.TypeOf(s.X).Underlying().(type) {
		case *types.Chan:
			w.report(s, "receives from a channel")
		case *types.Signature:
			if c, ok := s.X.(*ast.CallExpr); !ok || w.called(c) == nil || w.called(c).Pkg() == w.pkg {
				w.report(s, "calls the function value %s", types.ExprString(s.X))
			}
		}
		w.ways(true, s.Body.List)
	case *ast.SwitchStmt:
		w.stmt(s.Init)
		if s.Tag != nil {
			w.expr(s.Tag)
		}
		return w.clauses(s.Body)
	case *ast.TypeSwitchStmt:
		w.stmt(s.Init)
		w.stmt(s.Assign)
		return w.clauses(s.Body)
	case *ast.SelectStmt:
		if !slices.ContainsFunc(s.Body.List, func(c ast.Stmt) bool { return c.(*ast.CommClause).Comm == nil }) {
			w.report(s, "waits in a select")
		}
		return w.clauses(s.Body)
	case *ast.GoStmt:
		w.expr(s.Call.Fun)
		for _, arg := range s.Call.Args {
			w.expr(arg)
		}
	case *ast.DeferStmt:
		before := maps.Clone(w.held)
		if f := w.called(s.Call); f != nil && w.turn(f) < 0 {
			before[types.ExprString(s.Call.Fun)] = true // held until then, by whomever it was taken
		}
		w.held = maps.Clone(before)
		w.call(s.Call)
		w.held = before
	default:
		w.expr(s)
		if _, ok := s.(*ast.SendStmt); ok {
			w.report(s, "sends to a channel")
		}
		e, ok := s.(*ast.ExprStmt)
		return ok && strings.HasPrefix(types.ExprString(e.X), "panic(")
	}
	return false
}

// clauses follows those of a switch or select. What a select sends and receives is its own business.
func (w *walk) clauses(body *ast.BlockStmt) bool {
	var ways [][]ast.Stmt
	open := true
	for _, c := range body.List {
		switch c := c.(type) {
		case *ast.CaseClause:
			open = open && c.List != nil
			for _, e := range c.List {
				w.expr(e)
			}
			ways = append(ways, c.Body)
		case *ast.CommClause:
			open = false
			ways = append(ways, c.Body)
		}
	}
	return w.ways(open, ways...)
}

// expr follows the calls in an expression, or in a statement that has no others inside.
func (w *walk) expr(n ast.Node) {
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit: // it runs at another time
			(&walk{unit: w.unit, name: w.name, held: make(map[string]bool)}).stmt(n.Body)
			return false
		case *ast.CallExpr:
			w.call(n)
			return false
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				w.report(n, "receives from a channel")
			}
		}
		return true
	})
}

// call follows a call.
func (w *walk) call(c *ast.CallExpr) {
	f := w.called(c)
	now := []ast.Expr{c.Fun} // function literals that run before the call returns
	if f != nil && f.Pkg() != w.pkg && !later.MatchString(f.FullName()) {
		now = append(now, c.Args...)
	}
	for _, e := range append([]ast.Expr{c.Fun}, c.Args...) {
		if lit, ok := e.(*ast.FuncLit); ok && slices.Contains(now, e) {
			w.ways(false, lit.Body.List, nil)
		} else {
			w.expr(e)
		}
	}
	if f != nil {
		w.callNamed(c, f)
	} else if t := w.info.Types[c.Fun]; !t.IsType() && !t.IsBuiltin() && t.Type.String() != "context.CancelFunc" {
		if _, ok := c.Fun.(*ast.FuncLit); !ok {
			w.report(c, "calls the function value %s", types.ExprString(c.Fun))
		}
	}
}

// callNamed follows a call of a function or method.
func (w *walk) callNamed(c *ast.CallExpr, f *types.Func) {
	if f.Pkg() == nil {
		return // the Error of error
	}
	name, turn := f.FullName(), w.turn(f)
	own, ours := strings.CutPrefix(f.Pkg().Path(), module+"/")
	holder := types.ExprString(c.Fun)
	holder = holder[:max(0, strings.LastIndex(holder, "."))]
	switch recv := f.Signature().Recv(); {
	case recv != nil && types.IsInterface(recv.Type()):
		if !quiet.MatchString(name) {
			w.report(c, "calls an interface, %s", name)
		}
	case w.bodies[f] != nil:
		if len(w.held) > 0 {
			w.follow(f, true)
		}
		if turn < 0 {
			clear(w.held)
		}
	case turn < 0:
		delete(w.held, holder)
		delete(w.held, "the caller's")
	case ours && floor(own) > machines:
		w.report(c, "calls another package, %s", name)
	case ours && recv != nil && hasMutex(recv.Type()):
		w.report(c, "takes another package's mutex, %s", name)
	case !ours && !quiet.MatchString(name) && (loud.MatchString(name) || strings.Contains(strings.Split(f.Pkg().Path(), "/")[0], ".")):
		w.report(c, "leaves memory, %s", name)
	}
	if turn > 0 {
		w.regions++
		w.held[holder] = true
	}
}

// hasMutex reports whether a type, or what it points to, is a struct with a mutex.
func hasMutex(t types.Type) bool {
	if p, ok := t.(*types.Pointer); ok {
		t = p.Elem()
	}
	s, ok := t.Underlying().(*types.Struct)
	for i := 0; ok && i < s.NumFields(); i++ {
		if name := s.Field(i).Type().String(); name == "sync.Mutex" || name == "sync.RWMutex" {
			return true
		}
	}
	return false
}
