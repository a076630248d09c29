package stream

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	userTimeout     = unix.TCP_RXT_CONNDROPTIME
	userTimeoutUnit = time.Second
)
