package nvme

import (
	"encoding/binary"
	"fmt"
	"math/bits"
)

// layout lays the fields of a structure over bytes. A structure says once
// where its fields are, and is encoded and decoded by the same words. The
// bytes are as long as the structure; whoever makes a layout has checked that.
type layout struct {
	b      []byte
	encode bool
	err    error // the first
}

// number is an unsigned little-endian field of the size of its type.
func number[T ~uint8 | ~uint16 | ~uint32 | ~uint64](l *layout, at int, v *T) {
	size := bits.Len64(uint64(^T(0))) / 8
	var raw [8]byte
	if l.encode {
		binary.LittleEndian.PutUint64(raw[:], uint64(*v))
		copy(l.b[at:][:size], raw[:])
		return
	}
	copy(raw[:], l.b[at:][:size])
	*v = T(binary.LittleEndian.Uint64(raw[:]))
}

// flag is a field of one byte whose bit 0 means something.
func (l *layout) flag(at int, v *bool) {
	if !l.encode {
		*v = l.b[at]&1 != 0
	} else if *v {
		l.b[at] = 1
	}
}

// bytes is a field without a meaning of its own.
func (l *layout) bytes(at int, v []byte) {
	if l.encode {
		copy(l.b[at:], v)
		return
	}
	copy(v, l.b[at:])
}

// text is a field of text that is padded with pad.
func (l *layout) text(at, size int, pad byte, name string, v *string) {
	field := l.b[at:][:size]
	var err error
	if l.encode {
		err = encodeText(field, name, *v)
		for i := len(*v); i < size; i++ {
			field[i] = pad
		}
	} else {
		*v, err = decodeText(name, field)
	}
	if err != nil {
		l.fail(at, err)
	}
}

func (l *layout) fail(at int, err error) {
	if l.err == nil {
		l.err = &FieldError{Offset: at, err: err}
	}
}

// FieldError is the error of a field that cannot be decoded or encoded. Its
// text names the field.
type FieldError struct {
	Offset int // of the field in its structure, in bytes
	err    error
}

func (e *FieldError) Error() string { return e.err.Error() }

// decodeFields reads the structure of the given size at the beginning of b.
func decodeFields(what string, b []byte, size int, fields func(*layout)) error {
	if len(b) < size {
		return fmt.Errorf("%s: %d bytes, want %d", what, len(b), size)
	}
	l := layout{b: b[:size]}
	fields(&l)
	if l.err != nil {
		return fmt.Errorf("%s: %w", what, l.err)
	}
	return nil
}

// appendFields appends a structure of the given size.
func appendFields(what string, b []byte, size int, fields func(*layout)) ([]byte, error) {
	l := layout{b: make([]byte, size), encode: true}
	fields(&l)
	if l.err != nil {
		return b, fmt.Errorf("%s: %w", what, l.err)
	}
	return append(b, l.b...), nil
}
