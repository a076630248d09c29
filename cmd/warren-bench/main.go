// Command bench measures what the tunnel costs: TCP throughput through package tunnel with package tunnel/bind, beside
// plain wireguard-go, built from the very module in go.mod, in the same namespaces over the same veth pair in the
// same minute. It prints the ratio, and what it ran on, since only the ratio means anything elsewhere.
//
//	go run ./cmd/warren-bench [-rounds 8] [-time 2s] [-streams 1]
//
// With -relay it measures instead the tunnel straight, through a relay as an agent runs it, and through pion's TURN
// server and client, and the processor time of the relay for each byte.
//
// It needs root, iperf3 and iproute2. All that it makes lives in a network and a mount namespace of its
// own, and so goes away with it, also when it is killed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"time"
)

// limit ends a run in any case.
const limit = 90 * time.Second

// settings are the flags.
type settings struct {
	rounds  int
	time    time.Duration // of one transfer
	streams int
	relay   bool // compare relays instead
}

func main() {
	var s settings
	flag.IntVar(&s.rounds, "rounds", 8, "rounds; each measures both, in alternating order and direction")
	flag.DurationVar(&s.time, "time", 2*time.Second, "length of one transfer")
	flag.IntVar(&s.streams, "streams", 1, "parallel TCP streams")
	flag.BoolVar(&s.relay, "relay", false, "compare the path through a relay with the direct one and with pion's TURN")
	flag.Parse()
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, limit)
	defer cancel()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
