// Package hostsfile keeps lines of a mesh in /etc/hosts (hosts(5)) and leaves all others as they are, byte for byte.
//
// Each line of ours says whose it is at its end, so that what others add, move or take away between two changes of ours is theirs, and what we
// added is found again after a crash, with no note of it anywhere else. Which names there are is left to the caller.
//
// Set and Clear may be called by several processes at once.
package hostsfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Path is where systems have the file.
const Path = "/etc/hosts"

// Line is one address and its names, the full one first.
type Line struct {
	Addr  netip.Addr
	Names []string
}

// maxFile bounds what is read: nobody's file is that large.
const maxFile = 16 << 20

// tries is how often a change is made anew because another program changed the file meanwhile.
const tries = 5

// File is one such file as one mesh sees it.
type File struct {
	Path string // "": Path
	Mesh string // whose lines are ours
}

// Set has the file hold just these lines of the mesh. Without any it is Clear.
func (f File) Set(lines []Line) error { return f.change(lines) }

// Clear takes the lines of the mesh out. That there is no file is fine.
func (f File) Clear() error {
	err := f.change(nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (f File) change(lines []Line) error {
	path := f.Path
	if path == "" {
		path = Path
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	unlock, err := lock(path)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer unlock()
	for range tries {
		old, at, err := read(path)
		if err != nil {
			return err
		}
		now := Edit(old, f.Mesh, lines)
		if bytes.Equal(old, now) {
			return nil
		}
		done, err := false, errCannotReplace
		if !mounted(path) {
			done, err = replace(path, at, now)
		}
		if errors.Is(err, errCannotReplace) {
			done, err = true, overwrite(path, old, now)
		}
		if err != nil {
			return explain(path, err)
		}
		if done {
			return nil
		}
	}
	return fmt.Errorf("write %s: another program keeps changing it; the names are written at the next change", path)
}

// explain says what to do where that is known.
func explain(path string, err error) error {
	if errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("write %s: %w; make it writable for the agent (the unit has ReadWritePaths=-%s), or say names = \"off\" in [mesh]", path, err, path)
	}
	return fmt.Errorf("write %s: %w", path, err)
}

func read(path string) ([]byte, os.FileInfo, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read hosts: %w", err)
	}
	if info.Size() > maxFile {
		return nil, nil, fmt.Errorf("read hosts: %s has %d bytes, more than %d", path, info.Size(), maxFile)
	}
	old, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read hosts: %w", err)
	}
	return old, info, nil
}

// errCannotReplace says that the file has to be written where it is: it is mounted by itself, as containers and units have it, or its directory
// may not be written.
var errCannotReplace = errors.New("the file cannot be replaced")

// mounted reports whether a file is mounted by itself (proc_pid_mountinfo(5)): then nothing can take its place. Where that is not told, the attempt
// will tell.
func mounted(path string) bool {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	for line := range bytes.Lines(raw) {
		if fields := bytes.Fields(line); len(fields) > 4 && string(fields[4]) == path {
			return true
		}
	}
	return false
}

// replace puts a new file in the place of the one that was read; false: that one is another by now.
func replace(path string, was os.FileInfo, content []byte) (done bool, err error) {
	temp, err := os.CreateTemp(filepath.Dir(path), ".hosts.warren-*")
	if err != nil {
		return false, errCannotReplace
	}
	defer os.Remove(temp.Name())
	defer temp.Close()
	if _, err := temp.Write(content); err != nil {
		return false, errCannotReplace // a full disk: the tail may still fit where the file is
	}
	if err := like(temp, was); err != nil {
		return false, errCannotReplace
	}
	if err := temp.Sync(); err != nil {
		return false, err
	}
	now, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	if !os.SameFile(was, now) || was.ModTime() != now.ModTime() || was.Size() != now.Size() {
		return false, nil
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return false, errCannotReplace
	}
	return true, nil
}

// like gives a file the owner and the mode of another.
func like(f *os.File, was os.FileInfo) error {
	if err := f.Chmod(was.Mode().Perm()); err != nil {
		return err
	}
	if stat, ok := was.Sys().(*syscall.Stat_t); ok {
		return f.Chown(int(stat.Uid), int(stat.Gid))
	}
	return nil
}

// overwrite writes what differs into the file as it is. The lines of others come first and stay where they are, so that what is torn, if the
// machine dies meanwhile, is our own lines.
func overwrite(path string, old, now []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	same := 0
	for same < len(old) && same < len(now) && old[same] == now[same] {
		same++
	}
	if _, err := f.WriteAt(now[same:], int64(same)); err != nil {
		return err
	}
	if len(now) < len(old) {
		if err := f.Truncate(int64(len(now))); err != nil {
			return err
		}
	}
	return f.Sync()
}

// lock waits for the other agents that change the file. It is the file itself that is locked: when another one stands in its place by then, that.
func lock(path string) (unlock func(), err error) {
	for {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
			f.Close()
			return nil, err
		}
		locked, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		if now, err := os.Stat(path); err == nil && os.SameFile(locked, now) {
			return func() { f.Close() }, nil
		}
		f.Close()
	}
}

// mark ends each line of a mesh.
func mark(mesh string) string { return "\t# warren " + mesh }

// unended ends the first line of a mesh in a file whose last line had no end: Edit without lines takes the end away again.
const unended = " (the line before had no end)"

// Edit returns a file with these lines of the mesh at its end, and no others of the mesh. All else is as it was.
func Edit(old []byte, mesh string, lines []Line) []byte {
	end := mark(mesh)
	var out []byte
	taken := make(map[string]bool)
	for line := range bytes.Lines(old) {
		text := strings.TrimRight(string(line), "\r\n")
		if strings.HasSuffix(text, end+unended) && len(out) > 0 {
			out = bytes.TrimSuffix(out, []byte("\n"))
			continue
		}
		if strings.HasSuffix(text, end) {
			continue
		}
		out = append(out, line...)
		content, _, _ := strings.Cut(text, "#")
		if fields := strings.Fields(content); len(fields) > 1 {
			for _, name := range fields[1:] {
				taken[strings.ToLower(name)] = true
			}
		}
	}
	if len(lines) == 0 {
		return out
	}
	head := "# Names of the mesh " + mesh + ", kept by its agent." + end
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out, head = append(out, '\n'), head+unended
	}
	out = append(append(out, head...), '\n')
	for _, l := range lines {
		names := slices.DeleteFunc(slices.Clone(l.Names), func(name string) bool { return taken[name] })
		if len(names) > 0 {
			out = append(out, l.Addr.String()+"\t"+strings.Join(names, " ")+end+"\n"...)
		}
	}
	return out
}
