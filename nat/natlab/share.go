//go:build linux

package natlab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// inGroup runs a command in a control group.
const inGroup = `echo $$ >"$1/cgroup.procs" && shift && exec "$@"`

// sharePeriod is how often the kernel counts: a group that has had its share stands still for the rest.
const sharePeriod = 100_000 // microseconds

// Share has all that is started in the hosts from now on run with so much of one core together, and says how: by a quota of a control
// group, of either version, or, on a machine without, after everybody else (nice 19). It is removed with the lab.
func (l *Lab) Share(cores float64) (how string) {
	quota := int(cores * sharePeriod)
	dir, err := l.group()
	if err == nil {
		if err = os.WriteFile(filepath.Join(dir, "cpu.max"), fmt.Appendf(nil, "%d %d", quota, sharePeriod), 0); errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			err = errors.Join(
				os.WriteFile(filepath.Join(dir, "cpu.cfs_period_us"), fmt.Append(nil, sharePeriod), 0),
				os.WriteFile(filepath.Join(dir, "cpu.cfs_quota_us"), fmt.Append(nil, quota), 0),
			)
		}
	}
	if err != nil {
		l.share = []string{"nice", "-n", "19"}
		return fmt.Sprintf("nice 19: %v", err)
	}
	l.share = []string{"sh", "-c", inGroup, "sh", dir}
	return fmt.Sprintf("%.0f %% of a core", 100*cores)
}

// group makes the lab's control group under the root of the hierarchy that counts processor time.
func (l *Lab) group() (string, error) {
	for _, root := range []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup"} {
		controllers, _ := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
		_, v1 := os.Stat(filepath.Join(root, "cpu.cfs_quota_us"))
		if v1 != nil && !strings.Contains(" "+string(controllers)+" ", "cpu") {
			continue
		}
		if v1 != nil {
			os.WriteFile(filepath.Join(root, "cgroup.subtree_control"), []byte("+cpu"), 0) // what it lacks then, the quota tells
		}
		dir := filepath.Join(root, "warren-natlab-"+l.claim.id)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("make control group: %w", err)
		}
		return dir, nil
	}
	return "", errors.New("no control group counts processor time here")
}
