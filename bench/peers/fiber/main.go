// Peer (d): a JSON API in Go with Fiber, goccy/go-json and nats.go, objects and buffers from pools.
//
//	main.go    the server (this file)
//	event.go   what is read, stored and answered
//	check.go   the field rules
//
// --store raw leaves out the encoding: a batch without faults is stored as the text that came.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	json "github.com/goccy/go-json"
	"github.com/gofiber/fiber/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	maxBody       = 8 << 20
	maxEvents     = 10_000
	maxRejections = 100
	ackWithin      = 10 * time.Second
)

var batches = sync.Pool{New: func() any { return new(batch) }}
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func main() {
	natsURL := flag.String("nats-url", "", "host:port of nats-server")
	stream := flag.String("stream", "", "JetStream stream, which exists")
	tenant := flag.String("tenant", "", "last part of the subject")
	key := flag.String("key", "", "the key that callers show")
	store := flag.String("store", "encoded", "encoded or raw")
	flag.Parse()
	if err := run(*natsURL, *stream, *tenant, *key, *store == "raw"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(natsURL, stream, tenant, key string, raw bool) error {
	nc, err := nats.Connect(natsURL, nats.MaxReconnects(-1), nats.Name("bench-peer"))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(256))
	if err != nil {
		return err
	}
	server := fiber.New(fiber.Config{
		BodyLimit:             maxBody,
		DisableStartupMessage: true,
		JSONEncoder:           json.Marshal,
		JSONDecoder:           json.Unmarshal,
	})
	service := &service{js: js, stream: stream, subject: stream + "." + tenant, tenant: tenant, key: "Bearer " + key, raw: raw}
	server.Post("/v1/events/batch", service.ingest)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	// It ends on SIGTERM, and when its standard input does: whoever started it is gone then.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	go func() {
		<-ctx.Done()
		_ = server.ShutdownWithTimeout(time.Second)
	}()
	fmt.Printf("{\"port\":%d}\n", listener.Addr().(*net.TCPAddr).Port)
	return server.Listener(listener)
}

type service struct {
	js                           jetstream.JetStream
	stream, subject, tenant, key string
	raw                          bool
}

func refuse(c *fiber.Ctx, status int, reason string) error {
	return c.Status(status).JSON(fiber.Map{"error": reason})
}

func (s *service) ingest(c *fiber.Ctx) error {
	if c.Get("authorization") != s.key {
		return refuse(c, fiber.StatusUnauthorized, "the key is not known")
	}
	b := batches.Get().(*batch)
	defer func() {
		// Values that stay out of a batch would show those of an earlier one.
		clear(b.Events)
		*b = batch{Events: b.Events[:0]}
		batches.Put(b)
	}()
	if err := json.UnmarshalNoEscape(c.Body(), b); err != nil {
		return refuse(c, fiber.StatusBadRequest, err.Error())
	}
	if len(b.BatchID) == 0 || len(b.BatchID) > 64 || !only(b.BatchID, 1) {
		return refuse(c, fiber.StatusBadRequest, "batchId is 1 to 64 letters, digits and . _ : / -")
	}
	if len(b.Events) == 0 || len(b.Events) > maxEvents {
		return refuse(c, fiber.StatusBadRequest, "a batch has 1 to 10000 events")
	}

	answer := result{BatchID: b.BatchID, Rejections: []rejection{}}
	kept := 0
	for i := range b.Events {
		f, ok := checkEvent(&b.Events[i])
		if ok {
			if kept < i {
				b.Events[kept] = b.Events[i]
			}
			kept++
			continue
		}
		answer.Rejected++
		if len(answer.Rejections) < maxRejections {
			answer.Rejections = append(answer.Rejections, rejection{i, f.field, f.code, f.field + " breaks the rule " + f.code})
		}
	}
	answer.Accepted = kept
	if kept > 0 {
		sequence, err := s.append(c, b, kept, answer.Rejected == 0)
		if err != nil {
			return refuse(c, fiber.StatusServiceUnavailable, err.Error())
		}
		answer.Position = &position{Stream: s.stream, Sequence: sequence}
	}
	return c.Status(fiber.StatusAccepted).JSON(&answer)
}

// Returns once JetStream has the batch.
func (s *service) append(c *fiber.Ctx, b *batch, kept int, whole bool) (uint64, error) {
	buffer := buffers.Get().(*[]byte)
	payload := (*buffer)[:0]
	// The client may read the payload until the ack has come.
	defer func() {
		*buffer = payload
		buffers.Put(buffer)
	}()
	now := time.Now().UTC()
	if s.raw && whole {
		payload = append(payload, `{"tenant":"`...)
		payload = append(payload, s.tenant...)
		payload = append(payload, `","receivedAt":"`...)
		payload = now.AppendFormat(payload, time.RFC3339Nano)
		payload = append(payload, `","request":`...)
		payload = append(payload, c.Body()...)
		payload = append(payload, '}')
	} else {
		into := writer{payload}
		encoder := json.NewEncoder(&into)
		encoder.SetEscapeHTML(false)
		one := stored{s.tenant, now, b.BatchID, b.Attempt, b.SentAt, b.Events[:kept]}
		err := encoder.EncodeWithOption(&one, json.UnorderedMap())
		payload = into.bytes
		if err != nil {
			return 0, err
		}
	}
	future, err := s.js.PublishMsgAsync(&nats.Msg{Subject: s.subject, Data: payload})
	if err != nil {
		return 0, err
	}
	timer := time.NewTimer(ackWithin)
	defer timer.Stop()
	select {
	case ack := <-future.Ok():
		return ack.Sequence, nil
	case err := <-future.Err():
		return 0, err
	case <-timer.C:
		// Not given back to the pool: it may still be sent.
		payload = nil
		return 0, errors.New("JetStream has not acknowledged in time")
	}
}

type writer struct{ bytes []byte }

func (w *writer) Write(more []byte) (int, error) {
	w.bytes = append(w.bytes, more...)
	return len(more), nil
}
