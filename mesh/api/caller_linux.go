package api

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func callerOfSocket(fd int) (caller, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return caller{}, fmt.Errorf("ask for peer credentials: %w", err)
	}
	return caller{uid: cred.Uid}, nil
}
