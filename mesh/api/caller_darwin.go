package api

import (
	"fmt"

	"golang.org/x/sys/unix"
)

func callerOfSocket(fd int) (caller, error) {
	cred, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return caller{}, fmt.Errorf("ask for peer credentials: %w", err)
	}
	return caller{uid: cred.Uid}, nil
}
