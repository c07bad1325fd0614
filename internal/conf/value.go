package conf

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
)

// FilePrefix begins a value that is in a file of its own.
const FilePrefix = "file://"

// maxLine bounds what is read of a file that should have one short line.
const maxLine = 4096

// FirstLine reads a file that holds one value, without the blanks around it.
func FirstLine(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxLine))
	if err != nil {
		return "", err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return string(bytes.TrimSpace(line)), nil
}

// FirstWord is what counts of a line that holds a name or a key.
func FirstWord(line string) string {
	for word := range strings.FieldsSeq(line) {
		return word
	}
	return ""
}

// readWord reads a key from its file.
func readWord(path string) (string, error) {
	line, err := FirstLine(path)
	if err == nil && line == "" {
		err = fmt.Errorf("the first line of %s is empty", path)
	}
	return FirstWord(line), err
}
