//go:build !linux

package resolved

import "context"

func dial(context.Context) (bus, error) { return nil, ErrAbsent }
