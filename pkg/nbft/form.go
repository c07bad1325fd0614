package nbft

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"
)

var le = binary.LittleEndian

// codec is a table on its way from bytes to a Table, or back.
type codec struct {
	encoding bool
	problems []Problem

	// What references point to. While decoding, raw is all of the table, and
	// the heap a part of it, from heapAt to heapEnd. While encoding, raw is
	// what is in front of the heap.
	raw             []byte
	heapAt, heapEnd int
	heap            []byte
	next            int // where in raw the next list goes, while encoding
}

// form is a structure of the table, to be filled in or to be read. Its methods
// move one field, at an offset, between the bytes and a variable: into the
// variable while decoding, out of it while encoding. So the layout of a
// structure is written down once.
//
// Methods that can find something wrong report it as a problem, and return
// false; the variable has no value then.
type form struct {
	*codec
	b       []byte // at least as long as the structure
	kind    string // for problems, as is what follows
	index   int
	part    string // of a structure within the structure
	ignored bool   // it makes no sense, whatever else is in it
}

// problem reports one, and returns false.
func (f *form) problem(field, format string, args ...any) bool {
	f.problems = append(f.problems, Problem{
		Structure: f.kind, Index: f.index, Field: f.part + field, Text: fmt.Sprintf(format, args...),
	})
	return false
}

// must is about a field without which the structure is good for nothing.
func (f *form) must(ok bool) bool {
	f.ignored = f.ignored || !ok
	return ok
}

// begin is about what all descriptors begin with: their ID, and a flag without
// which they mean nothing.
func (f *form) begin(id byte, offFlags int) bool {
	if !f.valid(offFlags) {
		f.ignored = true // an empty place in the list is no problem
		return false
	}
	return f.must(f.id(id))
}

func (f *form) id(id byte) bool {
	if f.encoding {
		f.b[0] = id
	}
	return f.b[0] == id || f.problem("structure ID", "is %d, want %d", f.b[0], id)
}

// valid is about bit 0 of all flags.
func (f *form) valid(off int) bool {
	v := true
	f.flag(off, 0, &v)
	return v
}

func (f *form) u8(off int, v *uint8) {
	if f.encoding {
		f.b[off] = *v
	}
	*v = f.b[off]
}

func (f *form) u16(off int, v *uint16) {
	if f.encoding {
		le.PutUint16(f.b[off:], *v)
	}
	*v = le.Uint16(f.b[off:])
}

func (f *form) u32(off int, v *uint32) {
	if f.encoding {
		le.PutUint32(f.b[off:], *v)
	}
	*v = le.Uint32(f.b[off:])
}

func (f *form) bytes(off int, v []byte) {
	if f.encoding {
		copy(f.b[off:], v)
	}
	copy(v, f.b[off:])
}

// flag is one bit of the flags that begin at off.
func (f *form) flag(off, bit int, v *bool) {
	b, mask := &f.b[off+bit/8], byte(1)<<(bit%8)
	if f.encoding && *v {
		*b |= mask
	}
	*v = *b&mask != 0
}

// pair is two bits of the flags that begin at off, from bit on.
func (f *form) pair(off, bit int, v *uint8) {
	low, high := *v&1 != 0, *v&2 != 0
	f.flag(off, bit, &low)
	f.flag(off, bit+1, &high)
	*v = 0
	if low {
		*v |= 1
	}
	if high {
		*v |= 2
	}
}

// name is a text of fixed length; the ACPI header has such.
func (f *form) name(off, size int, v *string) {
	if f.encoding {
		copy(f.b[off:off+size], *v)
	}
	text := strings.TrimRight(string(f.b[off:off+size]), "\x00 ")
	*v = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, text)
}

// same is a field that repeats the index of the structure that refers here.
func (f *form) same(off int, index uint16) {
	was := index
	f.u16(off, &was)
	f.must(was == index || f.problem("index", "is of %d", was))
}

func (f *form) trtype(off int, v *TransportType) {
	f.u8(off, (*uint8)(v))
	f.must(*v == TCP || f.problem("transport type", "%d is none that is known", *v))
}

// ip is an address of 16 bytes; one of IPv4 is mapped into IPv6.
func (f *form) ip(off int, v *netip.Addr) {
	b := v.As16()
	f.bytes(off, b[:])
	*v = netip.AddrFrom16(b).Unmap()
}

// has reports whether there is an object. While encoding, want decides.
func (f *form) has(off int, want bool) bool {
	if f.encoding {
		return want
	}
	return le.Uint16(f.b[off+4:]) != 0
}

// object is bytes on the heap, to which there is a reference at off: their
// offset in the table, and their number. No object is nil.
func (f *form) object(off int, field string, v *[]byte) bool {
	if f.encoding {
		return f.put(off, field, *v)
	}
	b, ok := f.get(off, field, 0)
	*v = bytes.Clone(b) // of the table nothing is kept
	return ok
}

// put appends an object to the heap, and a byte that ends it should it be text.
func (f *form) put(off int, field string, b []byte) bool {
	if len(b) == 0 {
		return true
	}
	if len(b) > 0xffff {
		return f.problem(field, "has %d bytes, %d are allowed", len(b), 0xffff)
	}
	le.PutUint32(f.b[off:], uint32(f.heapAt+len(f.heap)))
	le.PutUint16(f.b[off+4:], uint16(len(b)))
	f.heap = append(append(f.heap, b...), 0)
	return true
}

// get returns an object with the given number of bytes behind it.
func (f *form) get(off int, field string, more int) ([]byte, bool) {
	at, size := int64(le.Uint32(f.b[off:])), int64(le.Uint16(f.b[off+4:]))
	if size == 0 {
		return nil, true
	}
	size += int64(more)
	if at < int64(f.heapAt) || at+size > int64(f.heapEnd) {
		return nil, f.problem(field, "%d bytes at %#x are outside of the heap, which is from %#x to %#x", size, at, f.heapAt, f.heapEnd)
	}
	return f.raw[at : at+size], true
}

// text is an object that is text. The table has a NUL behind it.
func (f *form) text(off int, field string, v *string) bool {
	if f.encoding {
		return (isText(*v) || f.problem(field, "is not text that can be printed")) && f.put(off, field, []byte(*v))
	}
	*v = ""
	b, ok := f.get(off, field, 1)
	if !ok || b == nil {
		return ok
	}
	text, nul := string(b[:len(b)-1]), b[len(b)-1]
	if nul != 0 {
		return f.problem(field, "no NUL ends it")
	}
	if !isText(text) { // not quoted: it may have a password in it
		return f.problem(field, "is not text that can be printed")
	}
	*v = text
	return true
}

// isText refuses what would not survive a log line or a terminal.
func isText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// uri is a text that may be a URI. User and password are dropped here, so that
// nobody can show or log them.
func (f *form) uri(off int, field string, v *string) bool {
	if !f.text(off, field, v) {
		return false
	}
	var err error
	if *v, err = stripURI(*v); err != nil {
		return f.problem(field, "%v", err)
	}
	return true
}

// sub is a structure on the heap, to which there is a reference at off. It has
// to be there.
func (f *form) sub(off int, field string, id byte, size int, layout func(*form)) bool {
	b := make([]byte, size)
	if !f.encoding {
		switch ok := f.object(off, field, &b); {
		case !ok:
			return false
		case b == nil:
			return f.problem(field, "is missing")
		case len(b) < size:
			return f.problem(field, "has %d bytes, want %d", len(b), size)
		}
	}
	in := &form{codec: f.codec, b: b, kind: f.kind, index: f.index, part: f.part + field + ": "}
	if in.must(in.id(id)) {
		layout(in)
	}
	if f.encoding {
		return f.put(off, field, b)
	}
	return !in.ignored
}

// indexed is a descriptor that others refer to by its index.
type indexed interface{ index() uint8 }

// find returns the descriptor that has the index.
func find[T indexed](list []T, index uint8) Ref {
	for i, d := range list {
		if index != 0 && d.index() == index {
			return Ref(i + 1)
		}
	}
	return 0
}

// claim is about the index by which a descriptor wants to be referred to. The
// list has those before it, or all of them while encoding.
func claim[T indexed](f *form, index uint8, list []T) {
	taken := 0
	for _, d := range list {
		if d.index() == index {
			taken++
		}
	}
	if f.encoding {
		taken--
	}
	if index == 0 || taken > 0 {
		f.must(f.problem("index", "%d is not allowed, or taken", index))
	}
}

// ref is the index of another descriptor; 0 refers to none.
func ref[T indexed](f *form, off int, field string, list []T, v *Ref) {
	var index uint8
	if f.encoding && *v != 0 {
		if *v < 0 || int(*v) > len(list) {
			f.problem(field, "there is no %d", *v)
			return
		}
		index = list[*v-1].index()
	}
	f.u8(off, &index)
	*v = find(list, index)
	if index != 0 && *v == 0 {
		f.problem(field, "there is no %d, or it is ignored", index)
	}
}

// list is descriptors one behind the other, of which the control structure has
// offset, stride, version and number.
func list[T any](control *form, off int, kind string, size int, all *[]T, layout func(*form, *T)) {
	c := control.codec
	if c.encoding {
		if len(*all) > 0xff {
			control.problem(kind+" list", "has %d entries, %d are allowed", len(*all), 0xff)
			return
		}
		if len(*all) > 0 {
			le.PutUint32(control.b[off:], uint32(c.next))
			le.PutUint16(control.b[off+4:], uint16(size))
			control.b[off+6], control.b[off+7] = 1, uint8(len(*all))
		}
		for i := range *all {
			layout(&form{codec: c, b: c.raw[c.next:][:size], kind: kind, index: i + 1}, &(*all)[i])
			c.next += size
		}
		return
	}
	*all = []T{}
	at := int64(le.Uint32(control.b[off:])) // an int may be too small
	stride, count := int(le.Uint16(control.b[off+4:])), int(control.b[off+7])
	if count == 0 {
		return
	}
	if stride < size {
		control.problem(kind+" list", "has entries of %d bytes, want %d", stride, size)
		return
	}
	if fit := int(max(0, int64(len(c.raw))-at)) / stride; at < sizeHeader+sizeControl || fit < count {
		control.problem(kind+" list", "%d entries of %d bytes at %#x are not all in the table", count, stride, at)
		if count = fit; at < sizeHeader+sizeControl {
			return
		}
	}
	for i := range count {
		f := &form{codec: c, b: c.raw[int(at)+i*stride:][:stride], kind: kind, index: i + 1}
		before := len(c.problems)
		var d T
		if layout(f, &d); !f.ignored {
			*all = append(*all, d)
			continue
		}
		for j := range c.problems[before:] {
			c.problems[before+j].Ignored = true
		}
	}
}
