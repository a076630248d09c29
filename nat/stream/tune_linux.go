package stream

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	userTimeout     = unix.TCP_USER_TIMEOUT
	userTimeoutUnit = time.Millisecond
)
