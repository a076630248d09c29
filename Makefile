# warren: see README.md. `make` alone lists what can be made; `make demo` shows it; `make test` is what has to be green.

# Any Go from 1.21 on; sudo's PATH need not have it (.ci/go).
GODIR      = $(or $(shell .ci/go),$(error no Go, see above))
GO        ?= PATH="$(GODIR):$$PATH" GOTOOLCHAIN=auto go
RELEASE   ?= $(shell git describe --tags --always --abbrev=12 --dirty 2>/dev/null || echo unknown)
PLATFORMS ?= linux/amd64 linux/arm64 darwin/amd64 darwin/arm64
PREFIX    ?= /usr/local
FUZZTIME  ?= 60s
TESTFLAGS ?=
BENCH     ?= .
SOAK      ?= 30m
HOSTILE   ?= 5m

# Static, and the same bytes wherever it is built by one Go from one commit (.ci/reproducible): without paths of the machine
# that built it, and whatever its environment says of tags and processors. The version is given by hand: left to itself the
# go tool refuses to build in a checkout that another user owns, as many CIs have it.
GOBUILD = CGO_ENABLED=0 GOFLAGS=-trimpath GOAMD64=v1 GOARM64=v8.0 GOFIPS140=off $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -X main.release=$(RELEASE)"

.PHONY: help demo test bench soak hostile build install uninstall lint fuzz

help:
	@echo 'make install     build bin/warren and install it as $(PREFIX)/bin/warren; agents that run as a service are replaced'
	@echo 'make uninstall   take services and program away; the state of meshes stays'
	@echo 'make build       bin/warren for this machine, bin/warren-OS-ARCH for: $(PLATFORMS)'
	@echo 'make demo        three machines behind real NATs on this one, in half a minute; needs root'
	@echo 'make test        all tests; as root those in the lab, too'
	@echo 'make lint        format, vet, staticcheck, known vulnerabilities'
	@echo 'make fuzz        each fuzz target for $(FUZZTIME)'
	@echo 'make bench, make soak, make hostile     take their time; see Makefile'

# Three machines behind real NATs on this one, from create to revoke. Needs root.
demo:
	@.ci/setup demo
	@$(GOBUILD) -o bin/warren ./cmd/warren
	@$(GOBUILD) -o bin/warren-demo ./cmd/warren-demo
	@bin/warren-demo bin/warren

# Everything, with the race detector. Never cached: the lab's tests run programs
# that the go tool does not know of. As root they run in the lab; else they say why not.
test:
	@[ "$$(id -u)" != 0 ] || .ci/setup
	.ci/test -race -count=1 -timeout 60m $(TESTFLAGS)

# Throughput beside a plain wireguard-go built from the module in go.mod, and through a relay beside pion's TURN; then the
# benchmarks of the packages, those in the lab included. Needs root.
bench:
	@.ci/setup
	$(GO) run ./cmd/warren-bench
	$(GO) run ./cmd/warren-bench -relay -rounds 6
	$(GO) test -run '^$$' -bench '$(BENCH)' -timeout 90m $(TESTFLAGS) ./...

# Random events to eight agents for SOAK; it prints a seed, and WARREN_SEED=N does the same again. Needs root.
soak:
	@.ci/setup
	WARREN_SOAK=$(SOAK) $(GO) test ./cmd/warren/e2e -run 'TestSoak$$' -count=1 -v -timeout 24h $(TESTFLAGS)

# Two attackers in a mesh of eight agents; each of their attacks goes on for HOSTILE. It prints a table. Needs root.
hostile:
	@.ci/setup
	WARREN_HOSTILE=$(HOSTILE) $(GO) test ./cmd/warren/e2e -run 'TestHostile$$' -count=1 -v -timeout 24h $(TESTFLAGS)

# bin/warren for this machine, bin/warren-OS-ARCH for all.
build:
	$(GOBUILD) -o bin/warren ./cmd/warren
	$(foreach p,$(PLATFORMS),GOOS=$(word 1,$(subst /, ,$p)) GOARCH=$(word 2,$(subst /, ,$p)) $(GOBUILD) -o bin/warren-$(subst /,-,$p) ./cmd/warren &&) true

# Also the way to upgrade: a program that runs is not overwritten but replaced, and then the agents that run it are. To package,
# with DESTDIR, it is files alone.
install:
	$(GOBUILD) -o bin/warren ./cmd/warren
	install -d $(DESTDIR)$(PREFIX)/bin
	install -m 0755 bin/warren $(DESTDIR)$(PREFIX)/bin/warren
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ]; then $(PREFIX)/bin/warren restart --all; fi

uninstall:
	@if [ -z "$(DESTDIR)" ] && [ "$$(id -u)" = 0 ] && [ -x $(PREFIX)/bin/warren ]; then $(PREFIX)/bin/warren service uninstall --all; fi
	rm -f $(DESTDIR)$(PREFIX)/bin/warren
	@[ -n "$(DESTDIR)" ] || echo 'the state of meshes is kept in /var/lib/warren, the config in /etc/warren; to leave a mesh for good: warren leave, before this'

lint:
	@unformatted=$$(PATH="$(GODIR):$$PATH" gofmt -l .); \
		if [ -n "$$unformatted" ]; then echo "gofmt has something to say on:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags hostile ./...
	GOOS=darwin GOARCH=arm64 $(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) tool staticcheck -tags hostile ./mesh/...
	.ci/vuln

# Every fuzz target of the module in turn, FUZZTIME each.
fuzz:
	.ci/fuzz $(FUZZTIME)
