package main

import (
	"cmp"
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// usualWidth is that of a terminal, and of what is no terminal. Wider ones are used up to maxWidth, as far as there is something to show.
const (
	usualWidth = 80
	maxWidth   = 120
	minWidth   = 24
)

// screen is where output is shown: how much fits, and whether it may have colours.
type screen struct {
	width  int // in columns
	height int // in lines; 0: no end
	colour bool
	live   bool // a terminal
}

// screenOf looks at what the output goes to.
func screenOf(out io.Writer) screen {
	s := screen{width: usualWidth}
	file, ok := out.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return s
	}
	s.live, s.colour = true, os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" // https://no-color.org
	if width, height, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
		s.width, s.height = min(max(width, minWidth), maxWidth), height
	}
	return s
}

// endless is the width of what is not broken into lines.
const endless = 1 << 16

// listed is the width of a list: one that goes into another program is a line for each.
func (s screen) listed() int {
	if !s.live {
		return endless
	}
	return s.width
}

// paint is a colour, by the number of SGR (ECMA-48).
type paint string

const (
	plain  paint = ""
	red    paint = "31"
	green  paint = "32"
	yellow paint = "33"
	bold   paint = "1"
	faint  paint = "2"
)

// paint colours a text, if colours are wanted.
func (s screen) paint(p paint, text string) string {
	if !s.colour || p == plain || text == "" {
		return text
	}
	return "\x1b[" + string(p) + "m" + text + "\x1b[0m"
}

// columns is how many columns of a terminal a text takes: two for a wide character of East Asia or an emoji, none for a mark that is put
// onto the one before (UAX #11; terminals differ in the rest).
func columns(text string) (n int) {
	for _, c := range text {
		n += columnsOf(c)
	}
	return n
}

func columnsOf(c rune) int {
	switch {
	case unicode.In(c, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case c < 0x1100:
		return 1
	}
	for _, r := range wide {
		if c >= r[0] && c <= r[1] {
			return 2
		}
	}
	return 1
}

// wide are the ranges of characters of class W and F.
var wide = [][2]rune{
	{0x1100, 0x115f}, {0x231a, 0x231b}, {0x2329, 0x232a}, {0x23e9, 0x23ec}, {0x2614, 0x2615}, {0x2648, 0x2653}, {0x26a1, 0x26a1}, {0x2705, 0x2705}, {0x274c, 0x274c},
	{0x2e80, 0x303e}, {0x3041, 0x33ff}, {0x3400, 0x4dbf}, {0x4e00, 0x9fff}, {0xa000, 0xa4cf}, {0xa960, 0xa97f}, {0xac00, 0xd7a3}, {0xf900, 0xfaff}, {0xfe30, 0xfe6f},
	{0xff00, 0xff60}, {0xffe0, 0xffe6}, {0x16fe0, 0x18aff}, {0x1b000, 0x1b2ff}, {0x1f004, 0x1f004}, {0x1f0cf, 0x1f0cf}, {0x1f18e, 0x1f19a}, {0x1f200, 0x1f320},
	{0x1f32d, 0x1f64f}, {0x1f680, 0x1f6ff}, {0x1f7e0, 0x1f7eb}, {0x1f900, 0x1faff}, {0x20000, 0x3fffd},
}

// cut shortens a text to so many columns; what was longer ends in an ellipsis.
func cut(text string, most int) string {
	if columns(text) <= most {
		return text
	}
	if most <= 0 {
		return ""
	}
	return strings.TrimRight(start(text, most-1), " ") + "…"
}

// start is as much of a text as fits so many columns.
func start(text string, room int) string {
	for i, c := range text {
		if room -= columnsOf(c); room < 0 {
			return text[:i]
		}
	}
	return text
}

// padded fills a text up with spaces to so many columns.
func padded(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-columns(text)))
}

// wrap breaks a text into lines of so many columns at spaces; a word that is longer is broken, after a hyphen if it has one. Lines after the first are indented.
func wrap(text string, width, indent int) (lines []string) {
	width = max(width, indent+8)
	line, used := "", 0
	end := func() {
		lines = append(lines, line)
		line, used = strings.Repeat(" ", indent), indent
	}
	empty := func() bool { return strings.TrimSpace(line) == "" }
	for word := range strings.FieldsSeq(text) {
		if n := columns(word); !empty() && used+1+n > width {
			end()
		} else if !empty() {
			line, used = line+" ", used+1
		}
		for columns(word) > width-used {
			part := start(word, width-used)
			if part == "" {
				break
			}
			if i := strings.LastIndexByte(part, '-'); i > 0 {
				part = part[:i+1]
			}
			line += part
			word = word[len(part):]
			end()
		}
		line, used = line+word, used+columns(word)
	}
	if !empty() || len(lines) == 0 {
		lines = append(lines, line)
	}
	return lines
}

// column is one of a grid: what it is called, and how it gives way where the grid is too wide.
type column struct {
	title string
	fair  int // columns beyond which it is narrowed before any other one is; 0: as many as it needs
	least int // columns that it is not narrowed below
	give  int // the order in which columns are narrowed, 1 first; 0: never
	leave int // the order in which they are left out when that is not enough, 1 first; 0: never
}

// gap is between two columns.
const gap = 2

// fit returns how wide the columns of a grid are on a screen; 0 leaves one out. The rows are those that are shown.
func fit(cols []column, rows [][]string, width int) []int {
	widths := make([]int, len(cols))
	for i, c := range cols {
		widths[i] = columns(c.title)
		for _, row := range rows {
			widths[i] = max(widths[i], columns(row[i]))
		}
	}
	over := func() int {
		sum := -gap
		for _, w := range widths {
			if w > 0 {
				sum += w + gap
			}
		}
		return sum - width
	}
	for i, c := range cols {
		if more := over(); more > 0 && c.fair > 0 {
			widths[i] -= min(more, max(0, widths[i]-c.fair))
		}
	}
	for turn := 1; turn <= len(cols) && over() > 0; turn++ {
		for i, c := range cols {
			if c.give == turn {
				widths[i] -= min(over(), max(0, widths[i]-max(c.least, columns(c.title))))
			}
		}
	}
	for turn := 1; turn <= len(cols) && over() > 0; turn++ {
		for i, c := range cols {
			if c.leave == turn {
				widths[i] = 0
			}
		}
	}
	for i := range widths { // what is left has to do
		if more := over(); more > 0 {
			widths[i] = max(1, widths[i]-more)
		}
	}
	return widths
}

// line puts the cells of a row together. style colours the cell of a column.
func (s screen) line(widths []int, cells []string, style func(column int, cell string) paint) string {
	var b strings.Builder
	room := 0 // spaces owed
	for i, cell := range cells {
		if widths[i] == 0 {
			continue
		}
		cell = cut(cmp.Or(cell, "-"), widths[i])
		b.WriteString(strings.Repeat(" ", room))
		b.WriteString(s.paint(style(i, cell), cell))
		room = widths[i] - columns(cell) + gap
	}
	return b.String()
}
