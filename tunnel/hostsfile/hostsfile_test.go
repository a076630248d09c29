package hostsfile

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

var lines = []Line{
	{netip.MustParseAddr("100.125.0.7"), []string{"nas.home.internal", "nas"}},
	{netip.MustParseAddr("fdfd::7"), []string{"nas.home.internal", "nas"}},
}

const ours = "# Names of the mesh home, kept by its agent.\t# warren home\n" +
	"100.125.0.7\tnas.home.internal nas\t# warren home\nfdfd::7\tnas.home.internal nas\t# warren home\n"

func TestEdit(t *testing.T) {
	for _, test := range []struct{ name, old, want string }{
		{"empty", "", ours},
		{"others", "127.0.0.1 localhost\n", "127.0.0.1 localhost\n" + ours},
		{"again", "127.0.0.1 localhost\n" + ours, "127.0.0.1 localhost\n" + ours},
		{"others came after", ours + "10.0.0.1 printer\n", "10.0.0.1 printer\n" + ours},
		{"half of ours is gone", "fdfd::9\told.home.internal\t# warren home\n10.0.0.1 printer\n", "10.0.0.1 printer\n" + ours},
		{"another mesh's", "100.70.0.1\tx.work.internal x\t# warren work\n", "100.70.0.1\tx.work.internal x\t# warren work\n" + ours},
		{"others have the plain name", "127.0.1.1\tNAS\n", "127.0.1.1\tNAS\n" + strings.ReplaceAll(ours, "internal nas", "internal")},
		{"and in a comment only", "127.0.1.1\tx # nas\n", "127.0.1.1\tx # nas\n" + ours},
		{"carriage returns", "127.0.0.1 localhost\r\n", "127.0.0.1 localhost\r\n" + ours},
	} {
		got := string(Edit([]byte(test.old), "home", lines))
		if got != test.want {
			t.Errorf("%s: got\n%s\nwant\n%s", test.name, got, test.want)
		}
	}
	const open = "127.0.0.1 localhost"
	with := Edit([]byte(open), "home", lines)
	if !strings.HasPrefix(string(with), open+"\n# Names") || string(Edit(with, "home", nil)) != open {
		t.Errorf("a file without an end: got\n%s\nand back\n%s", with, Edit(with, "home", nil))
	}
}

// FuzzEdit asserts that what is put in can be taken out, and that others lose nothing, whatever the file holds.
func FuzzEdit(f *testing.F) {
	for _, old := range []string{"", "\n", "127.0.0.1 localhost", ours, ours + ours, "x" + mark("home") + unended, "a\n\n#b\r\n"} {
		f.Add(old)
	}
	f.Fuzz(func(t *testing.T, old string) {
		clean := string(Edit([]byte(old), "home", nil))
		if strings.Contains(old, "# warren home") { // of what looks like ours, only what is not is compared
			old = clean
		}
		if clean != old {
			t.Fatalf("%q lost something: %q", old, clean)
		}
		with := Edit([]byte(old), "home", lines)
		if back := string(Edit(with, "home", nil)); back != old {
			t.Fatalf("%q became %q on the way in and out, through %q", old, back, with)
		}
		if again := Edit(with, "home", lines); string(again) != string(with) {
			t.Fatalf("the same lines twice: %q, then %q", with, again)
		}
	})
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func content(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestFile(t *testing.T) {
	path := write(t, "127.0.0.1 localhost\n")
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	f := File{Path: link, Mesh: "home"}
	if err := f.Set(lines); err != nil {
		t.Fatal(err)
	}
	if got := content(t, path); got != "127.0.0.1 localhost\n"+ours {
		t.Errorf("got\n%s", got)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is no link any more: %v, %v", info, err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o640 {
		t.Errorf("mode: got %o, want 640", info.Mode().Perm())
	}
	if err := f.Clear(); err != nil || content(t, path) != "127.0.0.1 localhost\n" {
		t.Errorf("cleared: got %v, %q", err, content(t, path))
	}
	if rest, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".hosts*")); len(rest) > 0 {
		t.Errorf("left behind: %v", rest)
	}
	none := File{Path: filepath.Join(t.TempDir(), "none"), Mesh: "home"}
	if err := none.Clear(); err != nil {
		t.Errorf("clear without a file: %v", err)
	}
	if err := none.Set(lines); err == nil {
		t.Error("set without a file: want an error")
	}
}

// TestOverwritten is for files that are mounted by themselves: the inode stays.
func TestOverwritten(t *testing.T) {
	for _, old := range []string{"", "127.0.0.1 localhost\n", ours + "10.0.0.1 printer\n", "127.0.0.1 localhost\n" + ours} {
		path := write(t, old)
		before, _ := os.Stat(path)
		for _, want := range [][]byte{Edit([]byte(old), "home", lines), Edit([]byte(old), "home", nil)} {
			if err := overwrite(path, []byte(content(t, path)), want); err != nil || content(t, path) != string(want) {
				t.Errorf("%q: got %v, %q, want %q", old, err, content(t, path), want)
			}
		}
		if after, _ := os.Stat(path); !os.SameFile(before, after) {
			t.Error("it is another file")
		}
	}
}

// TestSeveralMeshes has many agents change the file at once, and another program beside them: nobody's lines get lost.
func TestSeveralMeshes(t *testing.T) {
	path := write(t, "127.0.0.1 localhost\n")
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			f := File{Path: path, Mesh: fmt.Sprint("m", i)}
			for round := range 20 {
				if err := f.Set([]Line{{netip.AddrFrom4([4]byte{100, 64, byte(i), byte(round)}), []string{fmt.Sprintf("x.m%d.internal", i)}}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	got := content(t, path)
	for i := range 8 {
		if want := fmt.Sprintf("100.64.%d.19\tx.m%d.internal\t# warren m%d\n", i, i, i); strings.Count(got, want) != 1 {
			t.Errorf("got\n%s\nwant %q once", got, want)
		}
		if err := (File{Path: path, Mesh: fmt.Sprint("m", i)}).Clear(); err != nil {
			t.Error(err)
		}
	}
	if got := content(t, path); got != "127.0.0.1 localhost\n" {
		t.Errorf("all cleared: got %q", got)
	}
}
