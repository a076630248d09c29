package main

const (
	defaultStateRoot = "/var/lib/warren"
	defaultRunDir    = "/run/warren"
)
