// Package cmdline lets the programs take their arguments as those of nvme-stas
// 2.x do: a long option may be cut short as long as it stays unambiguous.
package cmdline

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// ExpandFlags spells out the options of a program without commands.
func ExpandFlags(flags *pflag.FlagSet, args []string) ([]string, error) {
	return Expand(args, flags.Lookup, flags.VisitAll, func(string) {})
}

// Expand spells out the options among the arguments. What it does not
// understand it leaves to the parser to complain of. The options are found by
// lookup and visit; word is called for each argument that is neither an option
// nor the value of one, after which there may be others.
func Expand(args []string, lookup func(string) *pflag.Flag, visit func(func(*pflag.Flag)), word func(string)) ([]string, error) {
	out := slices.Clone(args)
	for i := 0; i < len(out); i++ {
		arg := out[i]
		name, isLong := strings.CutPrefix(arg, "--")
		switch {
		case arg == "--":
			return out, nil
		case isLong:
			name, value, hasValue := strings.Cut(name, "=")
			flag := lookup(name)
			if flag == nil {
				found := beginWith(name, visit)
				if len(found) > 1 {
					return nil, fmt.Errorf("ambiguous option: --%s could be --%s", name, strings.Join(found, ", --"))
				}
				if len(found) == 0 {
					continue
				}
				flag = lookup(found[0])
				out[i] = "--" + found[0]
				if hasValue {
					out[i] += "=" + value
				}
			}
			if !hasValue && flag.NoOptDefVal == "" {
				i++ // the next one is its value
			}
		case strings.HasPrefix(arg, "-") && arg != "-":
			if valueFollows(arg[1:], visit) {
				i++
			}
		default:
			word(arg)
		}
	}
	return out, nil
}

// beginWith lists the options that begin with a text.
func beginWith(prefix string, visit func(func(*pflag.Flag))) (names []string) {
	visit(func(f *pflag.Flag) {
		if strings.HasPrefix(f.Name, prefix) && !f.Hidden && !slices.Contains(names, f.Name) {
			names = append(names, f.Name)
		}
	})
	slices.Sort(names)
	return names
}

// valueFollows tells whether the last one of joined short options takes the
// next argument.
func valueFollows(letters string, visit func(func(*pflag.Flag))) bool {
	takesValue := make(map[string]bool)
	visit(func(f *pflag.Flag) { takesValue[f.Shorthand] = f.NoOptDefVal == "" })
	for i := range letters {
		if takesValue[letters[i:i+1]] {
			return i == len(letters)-1
		}
	}
	return false
}
