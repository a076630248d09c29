package osnames

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
)

// resolverText is a file of /etc/resolver (resolver(5) of macOS) for one domain, which is the name of the file.
func resolverText(mesh string, servers []netip.Addr) []byte {
	var out bytes.Buffer
	out.WriteString(resolverMark(mesh))
	for _, s := range servers {
		fmt.Fprintf(&out, "nameserver %s\n", s)
	}
	return out.Bytes()
}

// resolverMark is the first line of the files of a mesh.
func resolverMark(mesh string) string {
	return "# warren " + mesh + ": kept by the agent of this mesh\n"
}

// setResolvers has a directory hold these files of the mesh and no others of it. A file that somebody else has made stays as it is, and is an error.
func setResolvers(dir, mesh string, domains []string, servers []netip.Addr) error {
	if len(domains) > 0 {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("tell the resolver: %w", err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tell the resolver: %w", err)
	}
	for _, e := range entries {
		if !slices.Contains(domains, e.Name()) && isOurs(filepath.Join(dir, e.Name()), mesh) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("tell the resolver: %w", err)
			}
		}
	}
	text := resolverText(mesh, servers)
	for _, domain := range domains {
		path := filepath.Join(dir, domain)
		old, err := os.ReadFile(path)
		switch {
		case err == nil && bytes.Equal(old, text):
			continue
		case err == nil && !isOurs(path, mesh):
			return fmt.Errorf("tell the resolver: %s is somebody else's: remove it, or say names = \"hosts\" in [mesh]", path)
		}
		temp := filepath.Join(dir, "."+mesh+".warren")
		if err := os.WriteFile(temp, text, 0o644); err != nil {
			return fmt.Errorf("tell the resolver: %w", err)
		}
		if err := os.Rename(temp, path); err != nil {
			return fmt.Errorf("tell the resolver: %w", err)
		}
	}
	return nil
}

// isOurs reports whether a file is one of the mesh.
func isOurs(path, mesh string) bool {
	raw, err := os.ReadFile(path)
	return err == nil && strings.HasPrefix(string(raw), resolverMark(mesh))
}
