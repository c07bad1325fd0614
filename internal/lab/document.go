package lab

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/nvme-stas/stas/pkg/dhchap"
	"github.com/nvme-stas/stas/pkg/nvme"
)

// document is a YAML file that is being understood, with all that is wrong
// with it. Places in it are "listeners[0].address".
//
// The decoder of the library is strict, too, but it stops at the first mistake,
// speaks of Go types, quotes the lines around, keys and all, and does not know
// the line of a value that is no valid address or time span.
type document struct {
	path  string
	lines map[string]int // of places
	wrong []error
}

// at is the place of an element.
func at(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }

// decode reads a file into a configuration.
func decode(path string, data []byte, into *Config) *document {
	d := &document{path: path, lines: make(map[string]int)}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		d.refuse(err)
		return d
	}
	if len(file.Docs) > 1 {
		d.lines[""] = file.Docs[1].GetToken().Position.Line
		d.complain("", "a second document begins here, one is allowed")
		return d
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return d // an empty file is an empty lab
	}
	d.walk(file.Docs[0].Body, reflect.TypeFor[Config](), "")
	if len(d.wrong) == 0 {
		if err := yaml.NodeToValue(file.Docs[0].Body, into, yaml.Strict()); err != nil {
			d.refuse(err)
		}
	}
	return d
}

// refuse notes an error of the library.
func (d *document) refuse(err error) {
	if e, ok := errors.AsType[yaml.Error](err); ok && e.GetToken() != nil {
		d.lines["yaml"] = e.GetToken().Position.Line
		d.complain("yaml", "%s", e.GetMessage())
		return
	}
	d.complain("", "%w", err)
}

// complain notes what is wrong at a place.
func (d *document) complain(place, format string, args ...any) {
	where := d.path
	if line := d.lines[place]; line > 0 {
		where = fmt.Sprintf("%s:%d", d.path, line)
	}
	d.wrong = append(d.wrong, fmt.Errorf("%s: %w", where, fmt.Errorf(format, args...)))
}

// err is everything that is wrong, a line each.
func (d *document) err() error { return errors.Join(d.wrong...) }

// walk compares what is written to what can be.
func (d *document) walk(node ast.Node, t reflect.Type, place string) {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if a, ok := node.(*ast.AnchorNode); ok {
		node = a.Value
	}
	d.lines[place] = line(node)
	switch node.(type) {
	case *ast.NullNode, *ast.AliasNode, *ast.TagNode:
		return // nothing, or what stands elsewhere; the library decodes it
	}
	name := place[strings.LastIndex(place, ".")+1:]
	if isText(t) {
		if text, ok := scalar(node); !ok {
			d.complain(place, "%s is to be a single value", name)
		} else if err := reflect.New(t).Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
			if also := allowed[t]; also != "" {
				err = fmt.Errorf("%w; allowed are %s", err, also)
			}
			d.complain(place, "%s: %w", name, err)
		}
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		d.walkMapping(node, t, place)
	case reflect.Slice:
		list, ok := node.(*ast.SequenceNode)
		if !ok {
			d.complain(place, `%s is to be a list, each element behind a "-"`, name)
			return
		}
		for i, element := range list.Values {
			d.walk(element, t.Elem(), at(place, i))
		}
	default:
		if text, ok := scalar(node); !ok || !readable(text, t.Kind()) {
			d.complain(place, "%s is to be %s", name, kindNames[t.Kind()])
		}
	}
}

func (d *document) walkMapping(node ast.Node, t reflect.Type, place string) {
	pairs, ok := node.(ast.MapNode)
	fields := fieldsOf(t)
	about := place
	if place == "" {
		about = "the configuration"
	}
	if !ok {
		d.complain(place, "%s is to have keys with values; allowed are %s", about, keyNames(fields))
		return
	}
	for pair := pairs.MapRange(); pair.Next(); {
		if pair.Key().IsMergeKey() {
			continue
		}
		key := pair.Key().GetToken().Value
		i := slices.IndexFunc(fields, func(f field) bool { return f.key == key })
		inner := strings.TrimPrefix(place+"."+key, ".")
		if i < 0 {
			d.lines[inner] = line(pair.Key())
			d.complain(inner, "there is no key %q in %s; allowed are %s", key, about, keyNames(fields))
			continue
		}
		d.walk(pair.Value(), fields[i].Type, inner)
		if isText(fields[i].Type) {
			pair.KeyValue().Value = asText(pair.Value())
		}
	}
}

// asText makes a text of a number. To the library 0x4184 is the text "16772",
// 0012 is "10" and 1e10 "1e+10".
func asText(node ast.Node) ast.Node {
	switch node.(type) {
	case *ast.IntegerNode, *ast.FloatNode:
		t := node.GetToken()
		return ast.String(token.SingleQuote(t.Value, "'"+t.Value+"'", t.Position))
	}
	return node
}

// isText reports whether values of a type are read from text.
func isText(t reflect.Type) bool {
	return reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// line is the line on which a node begins.
func line(node ast.Node) int {
	if m, ok := node.(*ast.MappingNode); ok && len(m.Values) > 0 {
		node = m.Values[0].Key
	}
	if t := node.GetToken(); t != nil {
		return t.Position.Line
	}
	return 0
}

// scalar is the text of a single value.
func scalar(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case ast.ScalarNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// allowed is what may be written for a type whose own complaint does not say.
var allowed = map[reflect.Type]string{
	reflect.TypeFor[slog.Level]():    "debug, info, warn, error",
	reflect.TypeFor[nvme.ANAState](): "optimized, non-optimized, inaccessible, persistent-loss, change",
	reflect.TypeFor[dhchap.Hash]():   joined(dhchap.Hashes()),
	reflect.TypeFor[dhchap.Group]():  joined(dhchap.Groups()),
}

func joined[T fmt.Stringer](all []T) string {
	var list []string
	for _, v := range all {
		list = append(list, v.String())
	}
	return strings.Join(list, ", ")
}

// kindNames are the kinds of plain values in the configuration.
var kindNames = map[reflect.Kind]string{
	reflect.String: "a text",
	reflect.Bool:   "true or false",
	reflect.Int:    "a number",
	reflect.Uint8:  "a number from 0 to 255",
	reflect.Uint16: "a number from 0 to 65535",
	reflect.Uint32: "a number from 0 to 4294967295",
	reflect.Uint64: "a number that is not negative",
}

// readable reports whether a text is a value of a kind.
func readable(text string, kind reflect.Kind) bool {
	var err error
	switch kind {
	case reflect.Bool:
		return text == "true" || text == "false"
	case reflect.Int:
		_, err = strconv.ParseInt(text, 0, 0)
	case reflect.Uint8:
		_, err = strconv.ParseUint(text, 0, 8)
	case reflect.Uint16:
		_, err = strconv.ParseUint(text, 0, 16)
	case reflect.Uint32:
		_, err = strconv.ParseUint(text, 0, 32)
	case reflect.Uint64:
		_, err = strconv.ParseUint(text, 0, 64)
	}
	return err == nil
}

// field is a key that may be written.
type field struct {
	key string
	reflect.StructField
}

// fieldsOf lists the keys of a structure in the order of its fields.
func fieldsOf(t reflect.Type) []field {
	var all []field
	for f := range t.Fields() {
		if f.Anonymous {
			all = append(all, fieldsOf(f.Type)...)
			continue
		}
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		all = append(all, field{key, f})
	}
	return all
}

func keyNames(fields []field) string {
	var list []string
	for _, f := range fields {
		list = append(list, f.key)
	}
	return strings.Join(list, ", ")
}

// Keys lists the places of all keys that a file may have, as "listeners[].name".
func Keys() []string { return keysOf(reflect.TypeFor[Config](), "") }

func keysOf(t reflect.Type, place string) (all []string) {
	switch {
	case t.Kind() == reflect.Pointer:
		return keysOf(t.Elem(), place)
	case isText(t):
		return nil
	case t.Kind() == reflect.Slice:
		return keysOf(t.Elem(), place+"[]")
	case t.Kind() != reflect.Struct:
		return nil
	}
	for _, f := range fieldsOf(t) {
		key := strings.TrimPrefix(place+"."+f.key, ".")
		all = append(append(all, key), keysOf(f.Type, key)...)
	}
	return all
}
