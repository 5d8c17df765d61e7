// Peer (e): the OpenTelemetry Collector's own OTLP receiver, its gRPC protocol alone, with its way of asking for a key. What
// it takes in goes to an exporter of ours that waits for JetStream. There is no batch processor and no sending queue, which
// would answer before the log has anything: the answer is the ack.
//
//	main.go      the receiver and its life (this file)
//	host.go      what a Collector would be to the receiver: where it finds the key's check, and whom it tells that it failed
//	key.go       the key's check
//	exporter.go  one request, one message of the log
//
// It holds records to no rules: OTLP has none for them. It measures nothing of itself, as the other peers do not.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configauth"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/receiver"
	"go.opentelemetry.io/collector/receiver/otlpreceiver"
	metrics "go.opentelemetry.io/otel/metric/noop"
	traces "go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/zap"
)

const (
	maxBodyMiB = 8
	stopWithin  = time.Second
)

func main() {
	natsURL := flag.String("nats-url", "", "host:port of nats-server")
	stream := flag.String("stream", "", "JetStream stream, which exists")
	tenant := flag.String("tenant", "", "last part of the subject")
	key := flag.String("key", "", "the key that callers show")
	flag.Parse()
	if err := run(*natsURL, *stream+"."+*tenant, *key); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(natsURL, subject, key string) error {
	nc, err := nats.Connect(natsURL, nats.MaxReconnects(-1), nats.Name("bench-peer"))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(256))
	if err != nil {
		return err
	}
	exporter, err := consumer.NewLogs((&exporter{js: js, subject: subject}).consume)
	if err != nil {
		return err
	}
	address, err := freeAddress()
	if err != nil {
		return err
	}
	host := newHost(key)
	server, err := newReceiver(address, exporter)
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
	if err := server.Start(ctx, host); err != nil {
		return err
	}
	fmt.Printf("{\"port\":%d}\n", address.Port)
	select {
	case err := <-host.failed:
		return err
	case <-ctx.Done():
	}
	// It waits for calls that wait for the log, however long: those are given up.
	stopped := make(chan error, 1)
	go func() { stopped <- server.Shutdown(context.Background()) }()
	select {
	case err := <-stopped:
		return err
	case <-time.After(stopWithin):
		return nil
	}
}

func newReceiver(address *net.TCPAddr, exporter consumer.Logs) (receiver.Logs, error) {
	factory := otlpreceiver.NewFactory()
	config := factory.CreateDefaultConfig().(*otlpreceiver.Config)
	config.Protocols.HTTP = configoptional.None[otlpreceiver.HTTPConfig]()
	grpc := config.Protocols.GRPC.GetOrInsertDefault()
	grpc.NetAddr.Endpoint = address.String()
	grpc.MaxRecvMsgSizeMiB = maxBodyMiB
	grpc.Auth = configoptional.Some(configauth.Config{AuthenticatorID: keyCheckID})
	settings := receiver.Settings{
		ID: component.NewID(factory.Type()),
		TelemetrySettings: component.TelemetrySettings{
			Logger:         zap.NewNop(),
			TracerProvider: traces.NewTracerProvider(),
			MeterProvider:  metrics.NewMeterProvider(),
			Resource:       pcommon.NewResource(),
		},
		BuildInfo: component.NewDefaultBuildInfo(),
	}
	return factory.CreateLogs(context.Background(), settings, config, exporter)
}

// The receiver tells nobody which port it got, so that it is given one that was free a moment ago.
func freeAddress() (*net.TCPAddr, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return listener.Addr().(*net.TCPAddr), listener.Close()
}
