package osnames

import (
	"context"

	"warren/tunnel/hostsfile"
)

// way is one means of telling this machine's resolver. All methods but name and says are called by the owner's goroutine alone.
type way interface {
	name() string
	says() string                                // in words, when it is in use and nothing was missing
	lacks(ctx context.Context, d Desired) string // why it cannot be used here; "": it can
	set(ctx context.Context, d Desired) error    // idempotent
	holds() bool                                 // false: somebody has changed what was told
	clear(ctx context.Context) error             // takes back what set did, and nothing else; idempotent
	sweep(ctx context.Context) error             // takes back what a run that was killed has left
	changes() <-chan struct{}                    // a value: the way may know nothing any more; nil: that is not told
	close()
}

// notAnswering is why nobody can be had to ask the agent.
const notAnswering = "the agent does not answer on port 53"

// file is lines in /etc/hosts.
type file struct{ hostsfile.File }

func inFile(o Options) *file {
	return &file{hostsfile.File{Mesh: o.Mesh}}
}

func (f *file) name() string                          { return string(InHosts) }
func (f *file) says() string                          { return "names stand in /etc/hosts" }
func (f *file) lacks(context.Context, Desired) string { return "" }
func (f *file) changes() <-chan struct{}              { return nil }
func (f *file) holds() bool                           { return false } // it is read to know: nothing is written when it is as it should be
func (f *file) close()                                {}

func (f *file) set(_ context.Context, d Desired) error { return f.Set(linesOf(d.Hosts)) }
func (f *file) clear(context.Context) error            { return f.Clear() }
func (f *file) sweep(context.Context) error            { return f.Clear() }

func linesOf(hosts []Host) (out []hostsfile.Line) {
	for _, h := range hosts {
		out = append(out, hostsfile.Line(h))
	}
	return out
}

// TakeBack takes back what an agent of a mesh has left on this machine, and that no agent will: after leave. It waits for nothing but the disk.
func TakeBack(mesh string) error {
	var first error
	for _, w := range ways(Options{Mesh: mesh}) {
		if err := w.sweep(context.Background()); err != nil && first == nil {
			first = err
		}
		w.close()
	}
	return first
}
