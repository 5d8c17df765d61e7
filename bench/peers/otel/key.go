package main

import (
	"context"
	"errors"

	"go.opentelemetry.io/collector/component"
)

var keyCheckID = component.MustNewID("key")

var errKey = errors.New("the key is not known")

// An authenticator as the Collector has them: the receiver asks it about each call, and answers UNAUTHENTICATED to an error.
type keyCheck struct {
	component.StartFunc
	component.ShutdownFunc
	expected string
}

func (k *keyCheck) Authenticate(ctx context.Context, metadata map[string][]string) (context.Context, error) {
	if shown := metadata["authorization"]; len(shown) != 1 || shown[0] != k.expected {
		return ctx, errKey
	}
	return ctx, nil
}
