package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	ingestv1 "sluice/gen/go/sluice/ingest/v1"
)

// serviceConfig is grpc-go's own retry: the library sends the same bytes again.
const serviceConfig = `{"methodConfig": [{
  "name": [{"service": "sluice.ingest.v1.IngestService"}],
  "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

type grpcClient struct {
	connection *grpc.ClientConn
	ingest     ingestv1.IngestServiceClient
}

func newGrpc(address string) client {
	connection, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}))
	if err != nil {
		panic(err)
	}
	return &grpcClient{connection, ingestv1.NewIngestServiceClient(connection)}
}

func (c *grpcClient) close() { c.connection.Close() }

func (c *grpcClient) code(err error) string {
	if err == nil || errors.Is(err, io.EOF) {
		return ""
	}
	return upperSnake(status.Code(err).String())
}

// upperSnake makes DEADLINE_EXCEEDED of DeadlineExceeded.
func upperSnake(name string) string {
	var out strings.Builder
	for i, letter := range name {
		if i > 0 && letter >= 'A' && letter <= 'Z' {
			out.WriteByte('_')
		}
		out.WriteRune(letter)
	}
	return strings.ToUpper(out.String())
}

func withKey(ctx context.Context, key string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
}

func (c *grpcClient) publish(ctx context.Context, key string, request *ingestv1.PublishRequest) (*ingestv1.PublishResponse, error) {
	return c.ingest.Publish(withKey(ctx, key), request)
}

func (c *grpcClient) publishGzip(ctx context.Context, key string, request *ingestv1.PublishRequest) (*ingestv1.PublishResponse, error) {
	return c.ingest.Publish(withKey(ctx, key), request, grpc.UseCompressor(gzip.Name))
}

type grpcStream struct {
	grpc.BidiStreamingClient[ingestv1.PublishStreamRequest, ingestv1.PublishStreamResponse]
}

func (s grpcStream) closeSend() error { return s.CloseSend() }

func (c *grpcClient) stream(ctx context.Context, key string) (stream, error) {
	s, err := c.ingest.PublishStream(withKey(ctx, key))
	return grpcStream{s}, err
}

