//go:build hostile

package hostile

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"syscall"

	"warren/mesh/identity"
)

/* The control socket: HTTP
 *
 *	PUT    /ATTACK   begins it; the body is Orders in JSON
 *	DELETE /ATTACK   ends it, and answers with its counters
 *	GET    /         Report
 */

// Report is what an attacker has.
type Report struct {
	Self     identity.NodeID
	Made     []identity.NodeID           // nodes that it has made
	Sessions []identity.NodeID           // members with which the agent has a session
	Puppets  []string                    // sessions of nodes that it has made and admitted, in words
	Held     int64                       // all connections of its own that stand
	Running  map[string]map[string]int64 // counters of what is under way
}

func (a *Attacker) listen() {
	path := os.Getenv(Variable)
	if path == "" {
		return
	}
	os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		panic("hostile: " + err.Error())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /{attack}", a.begin)
	mux.HandleFunc("DELETE /{attack}", a.end)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { answer(w, a.report()) })
	go http.Serve(l, mux) // until the process ends
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // who asked has gone
}

func (a *Attacker) begin(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("attack")
	f, known := attacks[name]
	var o Orders
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil || !known {
		http.Error(w, "no such attack, or no orders", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &strike{
		Attacker: a, Parts: a.parts.Load(), Orders: o, counters: newCounters(), dice: newDice(o.Seed), stop: cancel, done: make(chan struct{}),
	}
	a.mu.Lock()
	_, runs := a.running[name]
	if !runs {
		a.running[name] = s
	}
	a.mu.Unlock()
	if runs {
		cancel()
		http.Error(w, "it runs already", http.StatusConflict)
		return
	}
	// Those who are attacked are to have the machine first, on which all run in the lab.
	_ = syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19)
	go func() {
		defer close(s.done)
		f(ctx, s)
	}()
	answer(w, name)
}

func (a *Attacker) end(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("attack")
	a.mu.Lock()
	s := a.running[name]
	delete(a.running, name)
	a.mu.Unlock()
	if s == nil {
		http.Error(w, "it does not run", http.StatusNotFound)
		return
	}
	s.stop()
	<-s.done
	answer(w, s.counts())
}

func (a *Attacker) report() Report {
	p := a.parts.Load()
	out := Report{Self: p.State.NodeID(), Held: a.held.Load(), Running: make(map[string]map[string]int64)}
	for _, s := range p.Sessions.Snapshot() {
		if s.Up {
			out.Sessions = append(out.Sessions, s.ID)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.marked {
		out.Made = append(out.Made, id)
	}
	for _, p := range a.puppets {
		out.Puppets = append(out.Puppets, p.sessions()...)
	}
	for name, s := range a.running {
		out.Running[name] = s.counts()
	}
	return out
}
