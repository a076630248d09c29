//go:build !linux

package rtnl

import "context"

// Advertised hands on nothing: macOS keeps what routers advertise to itself.
func Advertised(context.Context, func(link int, option []byte)) error { return nil }
