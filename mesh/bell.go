package mesh

import "log/slog"

// bell tells the user of a Mesh what happened in it.
type bell struct {
	log     *slog.Logger
	changes chan struct{} // coalesced
	within  chan struct{} // the same for the run loop
	fatal   chan error    // the first one only
}

func newBell(log *slog.Logger) *bell {
	return &bell{log: log, changes: make(chan struct{}, 1), within: make(chan struct{}, 1), fatal: make(chan error, 1)}
}

// ring tells that the view has changed.
func (b *bell) ring() {
	for _, hears := range [...]chan struct{}{b.changes, b.within} {
		select {
		case hears <- struct{}{}:
		default:
		}
	}
}

// fail tells that this node must stop; later reasons are not news.
func (b *bell) fail(err *FatalError) {
	select {
	case b.fatal <- err:
		b.log.Error("node must stop", "reason", err.Text)
	default:
	}
}
