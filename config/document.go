package config

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// position is a place in the file, both counted from 1.
type position struct{ line, column int }

// kind is the type of a value as TOML names it.
type kind string

const (
	kindString  kind = "string"
	kindInteger kind = "integer"
	kindBool    kind = "boolean"
	kindArray   kind = "array"
	kindTable   kind = "table"
	kindOther   kind = "float or date" // no setting is one
)

// value is a TOML value that knows where it stands.
type value struct {
	kind   kind
	at     position
	text   string            // kindString: unescaped
	number int64             // kindInteger
	truth  bool              // kindBool
	items  []*value          // kindArray
	keys   []entry           // kindTable, in the order of the file
	tables bool              // kindArray: made of [[tables]]
	index  map[string]*value // of keys
}

// entry is a key of a table with its value.
type entry struct {
	key   string
	at    position
	value *value
}

func (v *value) get(key string) *value { return v.index[key] }

func (v *value) set(key entry, to *value) {
	if v.index == nil {
		v.index = map[string]*value{}
	}
	v.index[key.key] = to
	v.keys = append(v.keys, entry{key.key, key.at, to})
}

// maxDepth bounds nested values. The settings need three levels.
const maxDepth = 16

// parseDocument reads a file into a table. The decoder of the TOML library judges first whether the document is well
// formed (double keys, tables that change their kind); the tree, which keeps the positions that the
// decoder drops, is built from its parser afterwards.
func parseDocument(text []byte) (*value, *Error) {
	var ignored map[string]any
	if err := toml.Unmarshal(text, &ignored); err != nil {
		var decode *toml.DecodeError
		if errors.As(err, &decode) {
			line, column := decode.Position()
			return nil, &Error{Line: max(line, 1), Column: max(column, 1), Message: strings.TrimPrefix(decode.Error(), "toml: ")}
		}
		return nil, &Error{Line: 1, Column: 1, Message: strings.TrimPrefix(err.Error(), "toml: ")}
	}
	b := &builder{root: &value{kind: kindTable, at: position{1, 1}}, lines: []int{0}}
	for i, c := range text {
		if c == '\n' {
			b.lines = append(b.lines, i+1)
		}
	}
	b.parser.Reset(text)
	b.table = b.root
	for b.parser.NextExpression() {
		if err := b.expression(b.parser.Expression()); err != nil {
			return nil, err
		}
	}
	if err := b.parser.Error(); err != nil {
		return nil, &Error{Line: 1, Column: 1, Message: err.Error()}
	}
	return b.root, nil
}

// builder makes the tree out of the parser's expressions.
type builder struct {
	parser unstable.Parser
	root   *value
	table  *value // that key = value lines belong to
	lines  []int  // offset of the start of each line
}

func (b *builder) expression(node *unstable.Node) *Error {
	switch node.Kind {
	case unstable.Table, unstable.ArrayTable:
		path := b.path(node.Key())
		last := path[len(path)-1]
		table, err := b.descend(b.root, path[:len(path)-1])
		if err != nil {
			return err
		}
		if node.Kind == unstable.Table {
			b.table, err = b.descend(table, path[len(path)-1:])
			return err
		}
		array := table.get(last.key)
		if array == nil {
			array = &value{kind: kindArray, at: last.at, tables: true}
			table.set(last, array)
		}
		b.table = &value{kind: kindTable, at: last.at}
		array.items = append(array.items, b.table)
		return nil
	case unstable.KeyValue:
		return b.keyValue(b.table, node, 0)
	default:
		return nil
	}
}

// path returns a dotted key as entries without values.
func (b *builder) path(keys unstable.Iterator) []entry {
	var path []entry
	for keys.Next() {
		path = append(path, entry{key: string(keys.Node().Data), at: b.position(keys.Node())})
	}
	return path
}

// descend walks from a table along a dotted key, making the tables that are missing. In an array of tables
// it enters the last one.
func (b *builder) descend(table *value, path []entry) (*value, *Error) {
	for _, step := range path {
		next := table.get(step.key)
		if next == nil {
			next = &value{kind: kindTable, at: step.at}
			table.set(step, next)
		}
		if next.kind == kindArray && len(next.items) > 0 {
			next = next.items[len(next.items)-1]
		}
		if next.kind != kindTable {
			return nil, &Error{Line: step.at.line, Column: step.at.column, Message: fmt.Sprintf("%q is not a table", step.key)}
		}
		table = next
	}
	return table, nil
}

func (b *builder) keyValue(table *value, node *unstable.Node, depth int) *Error {
	path := b.path(node.Key())
	last := path[len(path)-1]
	table, err := b.descend(table, path[:len(path)-1])
	if err != nil {
		return err
	}
	v, err := b.value(node.Value(), last.at, depth+1)
	if err != nil {
		return err
	}
	table.set(last, v)
	return nil
}

// value turns a node into a value. The parser does not say where arrays start; they stand at their key.
func (b *builder) value(node *unstable.Node, key position, depth int) (*value, *Error) {
	v := &value{kind: kindOther, at: key}
	if node.Raw.Length > 0 {
		v.at = b.position(node)
	}
	if depth > maxDepth {
		return nil, &Error{Line: v.at.line, Column: v.at.column, Message: fmt.Sprintf("values nested deeper than %d levels", maxDepth)}
	}
	switch node.Kind {
	case unstable.String:
		v.kind, v.text = kindString, string(node.Data)
	case unstable.Bool:
		v.kind, v.truth = kindBool, node.Data[0] == 't'
	case unstable.Integer:
		number, err := strconv.ParseInt(strings.ReplaceAll(string(node.Data), "_", ""), 0, 64)
		if err != nil {
			return nil, &Error{Line: v.at.line, Column: v.at.column, Message: fmt.Sprintf("integer %s: out of range", node.Data)}
		}
		v.kind, v.number = kindInteger, number
	case unstable.Array:
		v.kind = kindArray
		for children := node.Children(); children.Next(); {
			item, err := b.value(children.Node(), key, depth+1)
			if err != nil {
				return nil, err
			}
			v.items = append(v.items, item)
		}
	case unstable.InlineTable:
		v.kind = kindTable
		for children := node.Children(); children.Next(); {
			if err := b.keyValue(v, children.Node(), depth+1); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

func (b *builder) position(node *unstable.Node) position {
	offset := int(node.Raw.Offset)
	line := sort.SearchInts(b.lines, offset+1) // the first line that starts behind offset
	return position{line, offset - b.lines[line-1] + 1}
}
