// Calls of grpc-go on one connection, valid ones beside refused ones, and how each of them ended. A connection that breaks is
// made again, and counted.
//
// There are no stubs: a request is bytes that the caller has made, and answers are not looked at.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const publish = "/sluice.ingest.v1.IngestService/Publish"

// bytesAsTheyAre is a codec that changes nothing.
type bytesAsTheyAre struct{}

func (bytesAsTheyAre) Name() string                  { return "proto" }
func (bytesAsTheyAre) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (bytesAsTheyAre) Unmarshal(b []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), b...)
	return nil
}

// ends counts how calls ended, with the first message of each code.
type ends struct {
	mutex    sync.Mutex
	Codes    map[string]int    `json:"codes"`
	Messages map[string]string `json:"messages"`
}

func (e *ends) add(err error) {
	e.mutex.Lock()
	defer e.mutex.Unlock()
	code := status.Code(err).String()
	e.Codes[code]++
	if err != nil && e.Messages[code] == "" {
		e.Messages[code] = err.Error()
	}
}

type caller struct {
	conn        *grpc.ClientConn
	connections atomic.Int32
	timeout     time.Duration
}

func dial(address string, timeout time.Duration) (*caller, error) {
	c := &caller{timeout: timeout}
	conn, err := grpc.NewClient("passthrough:///"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		// A call that fails is counted, and not hidden by another try.
		grpc.WithDisableRetry(),
		grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) {
			c.connections.Add(1)
			return (&net.Dialer{}).DialContext(ctx, "tcp", to)
		}),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesAsTheyAre{}), grpc.WaitForReady(true)),
	)
	c.conn = conn
	return c, err
}

func (c *caller) context(key string) (context.Context, context.CancelFunc) {
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+key)
	return context.WithTimeout(ctx, c.timeout)
}

func (c *caller) call(key string, request []byte) error {
	ctx, cancel := c.context(key)
	defer cancel()
	var answer []byte
	return c.conn.Invoke(ctx, publish, &request, &answer)
}

// open makes a call whose request never ends.
func (c *caller) open(key string) error {
	ctx, cancel := c.context(key)
	defer cancel()
	stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, publish)
	if err != nil {
		return err
	}
	var answer []byte
	return stream.RecvMsg(&answer)
}

// repeat makes `count` calls, `atOnce` of them at the same time.
func repeat(count, atOnce int, wait *sync.WaitGroup, call func() error) *ends {
	all := &ends{Codes: map[string]int{}, Messages: map[string]string{}}
	var begun atomic.Int64
	for range atOnce {
		wait.Go(func() {
			for begun.Add(1) <= int64(count) {
				all.add(call())
			}
		})
	}
	return all
}

func main() {
	address := flag.String("address", "", "host:port of the gateway")
	key := flag.String("key", "", "a key that is known")
	file := flag.String("request", "", "file with a PublishRequest")
	valid := flag.Int("valid", 1000, "valid calls")
	atOnce := flag.Int("at-once", 400, "valid calls at the same time")
	refused := flag.Int("refused", 100, "refused calls of each kind")
	refusedAtOnce := flag.Int("refused-at-once", 50, "refused calls of each kind at the same time")
	tooLarge := flag.Int("too-large", 3<<20, "bytes of a request above the limit")
	timeout := flag.Duration("timeout", 60*time.Second, "deadline of each call")
	flag.Parse()

	request, err := os.ReadFile(*file)
	exitOn(err)
	c, err := dial(*address, *timeout)
	exitOn(err)
	defer c.conn.Close()
	// The connection is there, and its settings are known, before anything is counted.
	exitOn(c.call(*key, request))

	large := make([]byte, *tooLarge)
	var wait sync.WaitGroup
	all := map[string]*ends{
		"valid":         repeat(*valid, *atOnce, &wait, func() error { return c.call(*key, request) }),
		"tooLarge":      repeat(*refused, *refusedAtOnce, &wait, func() error { return c.call(*key, large) }),
		"wrongKey":      repeat(*refused, *refusedAtOnce, &wait, func() error { return c.call("wrong", request) }),
		"wrongKeyLarge": repeat(*refused, *refusedAtOnce, &wait, func() error { return c.call("wrong", large) }),
		"wrongKeyOpen":  repeat(*refused, *refusedAtOnce, &wait, func() error { return c.open("wrong") }),
	}
	wait.Wait()
	exitOn(json.NewEncoder(os.Stdout).Encode(map[string]any{"ends": all, "connections": c.connections.Load()}))
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
