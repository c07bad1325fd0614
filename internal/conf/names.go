package conf

// Option is an option of a daemon's file, for whoever documents it.
type Option struct {
	Section, Name string
	Default       string // in the words of the file; empty: the kernel's, or none
}

// Options lists the options that a daemon's file may have.
func Options(d Daemon) []Option {
	var list []Option
	for i := range options {
		o := &options[i]
		if def, ok := o.def(d); ok {
			list = append(list, Option{o.section, o.name, def})
		}
	}
	return list
}

// RuleFields lists the fields that an exclude=, include= or subsystem= line may
// match controllers by.
func RuleFields() []string { return ruleFields }

// ControllerFields lists the fields that a controller= line may have.
func ControllerFields(d Daemon) []string {
	return append(paramNames(d), idNames...)
}
