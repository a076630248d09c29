package path

import (
	"fmt"
	"log/slog"
	"strings"

	"warren/mesh/identity"
)

// Reason says why something is as it is. Members stand in it by their IDs until Words or String makes the sentence: only who shows
// it knows their names.
type Reason string

// mark begins a member: the 32 bytes of its ID follow. No other text has it.
const mark = "\x00"

// because makes a reason as fmt.Sprintf would. Members are given by their IDs, with %s.
func because(format string, args ...any) Reason {
	for i, a := range args {
		switch a := a.(type) {
		case identity.NodeID:
			args[i] = mark + string(a[:])
		case Reason:
			args[i] = string(a)
		case string:
			args[i] = strings.ReplaceAll(a, mark, "") // the text of an error may come from elsewhere
		}
	}
	return Reason(fmt.Sprintf(format, args...))
}

// Words is the sentence; name says what a member is called.
func (r Reason) Words(name func(identity.NodeID) string) string {
	var out strings.Builder
	text := string(r)
	for {
		before, after, more := strings.Cut(text, mark)
		out.WriteString(before)
		var id identity.NodeID
		if !more || len(after) < len(id) {
			return out.String()
		}
		copy(id[:], after)
		out.WriteString(name(id))
		text = after[len(id):]
	}
}

// String is the sentence with short IDs, for logs.
func (r Reason) String() string { return r.Words(identity.NodeID.Short) }

// LogValue has logs show String, whatever their form.
func (r Reason) LogValue() slog.Value { return slog.StringValue(r.String()) }
