package stasbus

import (
	"context"
	"time"
)

// Plan is what a reload would do.
type Plan struct {
	Version int       `json:"version"` // [ReportVersion]
	Daemon  string    `json:"daemon"`
	Time    time.Time `json:"time,omitzero"`
	// Refused is why nothing would be reloaded at all.
	Refused string `json:"refused,omitempty"`
	// Issues are what is wrong with the configuration, and what is used instead.
	Issues []string `json:"issues"`
	// Doubtful says that something of the configuration would be ignored, or is
	// not known, so that it takes no connection away.
	Doubtful bool   `json:"configuration-doubtful"`
	Steps    []Step `json:"steps"`
	// Unchanged is the number of controllers to which nothing would happen.
	Unchanged int `json:"unchanged"`
}

// The actions of a step.
const (
	PlanConnect    = "connect"
	PlanTakeOver   = "take-over"  // the connection exists already
	PlanDisconnect = "disconnect" // the connection is removed
	PlanKeep       = "keep"       // not wanted any more, or in doubt; the connection stays
	PlanForget     = "forget"     // not wanted any more, and not connected
	PlanAdjust     = "adjust"     // parameters change, at once as far as that is possible
	PlanHold       = "hold"       // an operator has it left alone
	PlanRefuse     = "refuse"     // listed, but not connected
)

// Step is what would happen to one controller.
type Step struct {
	ID
	Device  string   `json:"device,omitempty"`
	Action  string   `json:"action"`
	Why     string   `json:"why"`
	Changes []Change `json:"changes,omitempty"` // of parameters
}

// Change is a parameter of a connection that would change.
type Change struct {
	Parameter string `json:"parameter"`
	// Was and Becomes are empty for what is left to the kernel, and for keys.
	Was     string `json:"was,omitempty"`
	Becomes string `json:"becomes,omitempty"`
	// AtOnce says that the connection that exists takes it; else the next one does.
	AtOnce bool `json:"at-once"`
}

// Planner tells what a reload would do, with the configuration as its files
// are now, or with a text in place of the daemon's main file.
type Planner interface {
	Plan(ctx context.Context, text string) (Plan, error)
}

// maxCandidate bounds the text of a configuration, in bytes.
const maxCandidate = 1 << 20

// Plan calls the method of that name.
func (c *Client) Plan(ctx context.Context, text string) (p Plan, err error) {
	return p, c.callReport(ctx, &p, "plan", text)
}
