package main

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// table prints rows in columns of equal width, two spaces apart. Text from other machines is made harmless.
type table struct{ rows [][]string }

func (t *table) add(cells ...string) {
	for i, cell := range cells {
		cells[i] = clean(cell)
		if cell == "" {
			cells[i] = "-"
		}
	}
	t.rows = append(t.rows, cells)
}

// print shows the table in so many columns. Where it is wider, cells are broken, those of the widest columns first; where even that is not
// enough, each row is a sentence. titled says that the first row names the columns.
func (t *table) print(w io.Writer, width int, titled bool) {
	var widths, least []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths, least = append(widths, 0), append(least, leastCell)
			}
			widths[i] = max(widths[i], columns(cell))
			lead := len(cell) - len(strings.TrimLeft(cell, " "))
			for _, piece := range strings.FieldsFunc(cell, func(c rune) bool { return c == ' ' || c == '-' }) {
				least[i] = max(least[i], lead+columns(piece)+1) // with its hyphen
			}
		}
	}
	if !narrowed(widths, least, width) {
		t.sentences(w, width, titled)
		return
	}
	for _, row := range t.rows {
		var cells [][]string
		high := 0
		for i, cell := range row {
			lead := len(cell) - len(strings.TrimLeft(cell, " "))
			lines := wrap(cell, widths[i]-lead, 0)
			for j := range lines {
				lines[j] = cell[:lead] + lines[j]
			}
			cells, high = append(cells, lines), max(high, len(lines))
		}
		for n := range high {
			var line strings.Builder
			for i, lines := range cells {
				part := ""
				if n < len(lines) {
					part = lines[n]
				}
				line.WriteString(padded(part, widths[i]+gap))
			}
			fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
		}
	}
}

// leastCell is how far a column is narrowed: less would be one word below the other.
const leastCell = 10

// narrowed makes the widest columns narrower until a table fits, none below its least, and reports whether it does.
func narrowed(widths, least []int, width int) bool {
	for {
		sum, widest := -gap, -1
		for i, w := range widths {
			if sum += w + gap; w > least[i] && (widest < 0 || w > widths[widest]) {
				widest = i
			}
		}
		if sum <= width {
			return true
		}
		if widest < 0 {
			return false
		}
		widths[widest]--
	}
}

// sentences shows each row as one.
func (t *table) sentences(w io.Writer, width int, titled bool) {
	for n, row := range t.rows {
		if titled && n == 0 {
			continue
		}
		lead := row[0][:len(row[0])-len(strings.TrimLeft(row[0], " "))]
		text := strings.TrimSpace(row[0])
		for i, cell := range row[1:] {
			if titled {
				cell = t.rows[0][i+1] + " " + cell
			}
			text += map[bool]string{true: ": ", false: ", "}[i == 0] + cell
		}
		for _, line := range wrap(text, width-len(lead), 2) {
			fmt.Fprintln(w, lead+line)
		}
	}
}

// size prints a number of bytes in binary units (IEC 80000-13) with three digits at least.
func size(n uint64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1023.95 && unit < 4 { // 1,023.95 would be printed as 1024.0
		value /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %ciB", value, "KMGTP"[unit])
}

// latency prints milliseconds with as many digits as mean something.
func latency(ms float64) string {
	switch {
	case ms <= 0:
		return ""
	case ms < 1:
		return fmt.Sprintf("%.2fms", ms)
	case ms < 10:
		return fmt.Sprintf("%.1fms", ms)
	default:
		return fmt.Sprintf("%.0fms", ms)
	}
}

// span prints a duration in its two largest units.
func span(d time.Duration) string {
	d = max(d, 0).Truncate(time.Second)
	days, hours, minutes := d/(24*time.Hour), d%(24*time.Hour)/time.Hour, d%time.Hour/time.Minute
	switch {
	case days > 0:
		return fmt.Sprintf("%dd%dh", days, hours)
	case hours > 0:
		return fmt.Sprintf("%dh%dm", hours, minutes)
	case minutes > 0:
		return fmt.Sprintf("%dm%ds", minutes, d%time.Minute/time.Second)
	default:
		return fmt.Sprintf("%ds", d/time.Second)
	}
}

// ago prints how long before now t was; "" for a moment that never was.
func ago(now time.Time, t *time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return span(now.Sub(*t)) + " ago"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return fmt.Sprintf("%d %s", n, one)
	}
	return fmt.Sprintf("%d %s", n, many)
}
