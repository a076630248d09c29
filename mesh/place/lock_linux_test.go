package place

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Where nothing can be written the lock is what is there; it keeps out as ever.
func TestLockOnADiskThatCannotBeWritten(t *testing.T) {
	for _, file := range []bool{true, false} {
		_, m := created(t)
		dir := m.StateDir
		if !file {
			if err := os.Remove(filepath.Join(dir, fileLock)); err != nil {
				t.Fatal(err)
			}
		}
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("no file system can be mounted here: %v", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
		if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		lock, err := Lock(dir)
		if err != nil {
			t.Fatalf("with a file %t: got %v, want the lock", file, err)
		}
		if _, err := Lock(dir); !errors.Is(err, syscall.EWOULDBLOCK) {
			t.Errorf("with a file %t: a second one: got %v, want %v", file, err, syscall.EWOULDBLOCK)
		}
		lock.Close()
		if err := LeaveOffline(LeaveOptions{StateDir: dir, Force: true}); !errors.Is(err, syscall.EROFS) && !errors.Is(err, syscall.EBUSY) {
			t.Errorf("leave: got %v, want that of the disk", err)
		}
	}
}
