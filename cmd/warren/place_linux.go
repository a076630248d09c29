package main

const defaultStateRoot = "/var/lib/warren"
