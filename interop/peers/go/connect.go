package main

import (
	"context"
	"errors"
	"io"
	"net/http"

	"connectrpc.com/connect"

	ingestv1 "sluice/gen/go/sluice/ingest/v1"
	"sluice/gen/go/sluice/ingest/v1/ingestv1connect"
)

type connectClient struct {
	transport   *http.Transport
	plain, gzip ingestv1connect.IngestServiceClient
}

// newConnect speaks HTTP/2 without TLS, Connect's own protocol or gRPC's. Beyond the server's limit of streams it opens further connections:
// with HTTP2Config.StrictMaxConcurrentRequests Go 1.26.8 hangs there, with its own server too.
func newConnect(address string, grpcProtocol bool) client {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols}
	var options []connect.ClientOption
	if grpcProtocol {
		options = append(options, connect.WithGRPC())
	}
	make := func(more ...connect.ClientOption) ingestv1connect.IngestServiceClient {
		all := append(append([]connect.ClientOption{}, options...), more...)
		return ingestv1connect.NewIngestServiceClient(&http.Client{Transport: transport}, "http://"+address, all...)
	}
	return &connectClient{transport, make(), make(connect.WithSendGzip())}
}

func (c *connectClient) close() { c.transport.CloseIdleConnections() }

func (c *connectClient) code(err error) string {
	if err == nil || errors.Is(err, io.EOF) {
		return ""
	}
	switch code := connect.CodeOf(err); code {
	case connect.CodeInvalidArgument:
		return "INVALID_ARGUMENT"
	case connect.CodeDeadlineExceeded:
		return "DEADLINE_EXCEEDED"
	case connect.CodeUnauthenticated:
		return "UNAUTHENTICATED"
	case connect.CodeUnavailable:
		return "UNAVAILABLE"
	case connect.CodeResourceExhausted:
		return "RESOURCE_EXHAUSTED"
	default:
		return code.String()
	}
}

func call(ctx context.Context, ingest ingestv1connect.IngestServiceClient, key string, message *ingestv1.PublishRequest) (*ingestv1.PublishResponse, error) {
	request := connect.NewRequest(message)
	request.Header().Set("authorization", "Bearer "+key)
	response, err := ingest.Publish(ctx, request)
	if err != nil {
		return nil, err
	}
	return response.Msg, nil
}

func (c *connectClient) publish(ctx context.Context, key string, request *ingestv1.PublishRequest) (*ingestv1.PublishResponse, error) {
	return call(ctx, c.plain, key, request)
}

func (c *connectClient) publishGzip(ctx context.Context, key string, request *ingestv1.PublishRequest) (*ingestv1.PublishResponse, error) {
	return call(ctx, c.gzip, key, request)
}

type connectStream struct {
	*connect.BidiStreamForClient[ingestv1.PublishStreamRequest, ingestv1.PublishStreamResponse]
}

func (s connectStream) Recv() (*ingestv1.PublishStreamResponse, error) { return s.Receive() }
func (s connectStream) closeSend() error                               { return s.CloseRequest() }

func (c *connectClient) stream(ctx context.Context, key string) (stream, error) {
	s := c.plain.PublishStream(ctx)
	s.RequestHeader().Set("authorization", "Bearer "+key)
	return connectStream{s}, nil
}
