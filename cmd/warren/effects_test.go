package main

import (
	"reflect"
	"slices"
	"testing"

	"warren/config"
	"warren/mesh/node"
)

// TestEachKeyHasItsEffect goes through all keys of the config file: of each it is known whether a reload is enough.
func TestEachKeyHasItsEffect(t *testing.T) {
	var keys []string
	file := reflect.TypeOf(config.Config{})
	for i := range file.NumField() {
		table := file.Field(i).Type
		if table.Kind() == reflect.Slice {
			table = table.Elem()
		}
		for j := range table.NumField() {
			keys = append(keys, file.Field(i).Tag.Get("toml")+"."+table.Field(j).Tag.Get("toml"))
		}
	}
	for _, key := range keys {
		if _, ok := node.Effects[key]; !ok {
			t.Errorf("%s: got no effect: does a change of it take effect at a reload?", key)
		}
	}
	for key := range node.Effects {
		if !slices.Contains(keys, key) {
			t.Errorf("%s: got an effect of what is no key", key)
		}
	}
}
