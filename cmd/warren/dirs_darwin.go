package main

const (
	defaultStateRoot = "/Library/Application Support/warren"
	defaultRunDir    = "/var/run/warren" // there is no /run
)
