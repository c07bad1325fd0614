package lab

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTutorial types what docs/lab.md has its readers type.
func TestTutorial(t *testing.T) {
	data, err := os.ReadFile("../../docs/lab.md")
	if err != nil {
		t.Fatal(err)
	}
	before, after, ok := strings.Cut(string(data), "```yaml\n")
	file, after, closed := strings.Cut(after, "```\n")
	if !ok || !closed {
		t.Fatal("docs/lab.md has no file")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{"lab.yaml": file, "host1.key": regexp.MustCompile(`DHHC-1:[^"]+`).FindString(Example)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)

	typed := regexp.MustCompile(`(?m)^\$ stas-lab (ctl|check|faults)( .+)$`)
	ports := regexp.MustCompile(`(127\.0\.0\.1):\d+`)
	run := func(socket, text string, atLeast int) {
		t.Helper()
		lines := typed.FindAllStringSubmatch(text, -1)
		if len(lines) < atLeast {
			t.Errorf("only %d commands found", len(lines))
		}
		for _, l := range lines {
			args := append([]string{l[1]}, strings.Fields(l[2])...)
			if l[1] == "ctl" {
				args = append(args, "--control", socket)
			}
			if code, _, stderr := stasLab(t, "", args...); code != exitOK || stderr != "" {
				t.Errorf("%s: %d %s", l[0], code, stderr)
			}
		}
	}
	quickLab := quick{listen: []string{"127.0.0.1:0"}, kind: "ddc", subsystems: 3, size: 64 << 20}.config()
	quickLab.Control = filepath.Join(dir, "quick.sock")
	first, err := Start(quickLab, silence)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	run(quickLab.Control, before, 15)
	select {
	case <-first.Stopped():
	default:
		t.Error("the first lab was not stopped")
	}
	_, socket := open(t, ports.ReplaceAllString(file, "$1:0"))
	run(socket, after, 9)
}
