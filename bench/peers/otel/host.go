package main

import (
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/component/componentstatus"
)

type host struct {
	extensions map[component.ID]component.Component
	// Why the receiver cannot go on.
	failed chan error
}

func newHost(key string) *host {
	check := &keyCheck{expected: "Bearer " + key}
	return &host{
		extensions: map[component.ID]component.Component{keyCheckID: check},
		failed:     make(chan error, 1),
	}
}

func (h *host) GetExtensions() map[component.ID]component.Component {
	return h.extensions
}

func (h *host) Report(event *componentstatus.Event) {
	if event.Status() != componentstatus.StatusFatalError {
		return
	}
	select {
	case h.failed <- event.Err():
	default:
	}
}
