package main

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/collector/pdata/plog"
)

const ackWithin = 10 * time.Second

type exporter struct {
	js        jetstream.JetStream
	subject   string
	marshaler plog.ProtoMarshaler
}

// Returns once JetStream has the records. Of an error the receiver makes UNAVAILABLE: the caller may try again.
func (e *exporter) consume(ctx context.Context, logs plog.Logs) error {
	payload, err := e.marshaler.MarshalLogs(logs)
	if err != nil {
		return err
	}
	future, err := e.js.PublishMsgAsync(&nats.Msg{Subject: e.subject, Data: payload})
	if err != nil {
		return err
	}
	timer := time.NewTimer(ackWithin)
	defer timer.Stop()
	select {
	case <-future.Ok():
		return nil
	case err := <-future.Err():
		return err
	case <-timer.C:
		return errors.New("JetStream has not acknowledged in time")
	case <-ctx.Done():
		return ctx.Err()
	}
}
