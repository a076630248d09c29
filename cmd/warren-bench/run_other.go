//go:build !linux

package main

import (
	"context"
	"errors"
)

func run(context.Context, settings) error {
	return errors.New("needs Linux, for its network namespaces")
}
