package main

const defaultStateRoot = "/Library/Application Support/warren"
