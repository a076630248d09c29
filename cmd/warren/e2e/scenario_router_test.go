//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"warren/mesh/api"
	"warren/nat/natlab"
)

// TestRouterIsAMember has a router that is a member itself, and a member behind it that was there first and has the same port. What
// the one behind has mapped is not the router's own any more.
func TestRouterIsAMember(t *testing.T) {
	t.Parallel()
	bed := newBed(t, 2*time.Minute)
	gate, home := bed.Router("gate", natlab.EIMAPDF), bed.Router("home", natlab.EIMAPDF)
	founder, inner, far := bed.node("founder", nil), bed.node("inner", gate), bed.node("far", home)
	router := NewNode(bed.HostOn(gate), bed.binary)
	bed.nodes = append(bed.nodes, router)
	bed.must(Found(bed.ctx, "home", founder, far, inner))
	bed.connected(inner, far, api.PathDirect)
	bed.step("the one behind is connected")
	bed.must(Admit(bed.ctx, founder, router))
	bed.step("the router has joined")
	reached := func() {
		for _, other := range []*Node{founder, inner, far} {
			_, err := router.WaitPath(bed.ctx, other, api.PathDirect)
			bed.must(err)
			bed.step("direct to %s", other.Name())
			bed.must(router.WaitPing(bed.ctx, other))
		}
	}
	reached()
	port := bed.status(router).Self.Port
	if port == bed.status(inner).Self.Port {
		t.Errorf("got port %d on the router, which is that of the machine behind it", port)
	}

	// It begins with that port the next time, also after a power cut. Until it was found again, others would not reach it.
	bed.must(router.Kill())
	bed.must(router.Start(bed.ctx))
	if got := bed.status(router).Self.Port; got != port {
		t.Errorf("after a restart: got port %d, want %d as before", got, port)
	}
	bed.step("started again")
	reached()
	if log := router.Agent().Output(); strings.Contains(log, "port has another owner") {
		t.Errorf("the port was lost and found again:\n%s", log)
	}

	// Somebody else may have that port by then: the agent starts all the same.
	bed.must(router.Stop())
	thief, err := router.Host.Start("python3", "-c", fmt.Sprintf("import socket,time\ns=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\ns.bind(('',%d))\nprint('have it',flush=True)\ntime.sleep(99)", port))
	bed.must(err)
	bed.eventually("the port is taken", func() bool { return strings.Contains(thief.Output(), "have it") })
	bed.must(router.Start(bed.ctx))
	bed.step("started beside a thief")
}
