// The Go clients of `npm run interop`: grpc-go and connect-go against a gateway, case by case. The only argument is the
// task as JSON; each case is answered with one line of JSON on standard output.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "sluice/gen/go/sluice/event/v1"
	ingestv1 "sluice/gen/go/sluice/ingest/v1"
)

// Task is what the suite asks for.
type Task struct {
	// Client is grpc-go, connect-go or connect-go-grpc.
	Client string
	// Address and Swallow are host:port; the proxy at Swallow loses its first answer.
	Address, Swallow string
	Key, WrongKey    string
	// Run begins every event id.
	Run                          string
	FloodCalls, FloodRefused     int
	OversizeBytes, RestartMillis int
	Cases                        []string
}

// Outcome is one line of the answer.
type Outcome struct {
	Case     string `json:"case"`
	Accepted int    `json:"accepted"`
	Refused  int    `json:"refused"`
	Code     string `json:"code"`
	Note     string `json:"note"`
}

// client is what both libraries offer to the cases.
type client interface {
	// code names the status of an error in gRPC's spelling, "" without an error.
	code(err error) string
	publish(ctx context.Context, key string, request *ingestv1.PublishRequest) (*ingestv1.PublishResponse, error)
	publishGzip(ctx context.Context, key string, request *ingestv1.PublishRequest) (*ingestv1.PublishResponse, error)
	stream(ctx context.Context, key string) (stream, error)
	close()
}

type stream interface {
	Send(*ingestv1.PublishStreamRequest) error
	Recv() (*ingestv1.PublishStreamResponse, error)
	closeSend() error
}

func event(id string, padding int) *eventv1.Event {
	return &eventv1.Event{
		EventId:    id,
		Type:       eventv1.EventType_EVENT_TYPE_CLICK,
		OccurredAt: timestamppb.Now(),
		Properties: map[string]string{"padding": strings.Repeat("x", padding)},
	}
}

// request leaves `attempt` out: what counts retries here is the library, below this code.
func request(batch string, events ...*eventv1.Event) *ingestv1.PublishRequest {
	return &ingestv1.PublishRequest{BatchId: batch, Batch: &eventv1.EventBatch{Events: events}}
}

// oversize is a batch above the limit of bytes.
func oversize(batch string, bytes int) *ingestv1.PublishRequest {
	var events []*eventv1.Event
	for size := 0; size < bytes; size += 4000 {
		events = append(events, event(fmt.Sprintf("%s-%d", batch, size), 4000))
	}
	return request(batch, events...)
}

func main() {
	var task Task
	if err := json.Unmarshal([]byte(os.Args[1]), &task); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	cases := map[string]func(Task, string) Outcome{
		"unary": unary, "stream": streaming, "wrong-key": wrongKey, "bad-event": badEvent, "too-large": tooLarge,
		"deadline": deadline, "gzip": gzipped, "flood": flood, "retry": retry, "drain": restart, "kill": restart,
	}
	out := bufio.NewWriter(os.Stdout)
	for _, name := range task.Cases {
		outcome := cases[name](task, name)
		outcome.Case = name
		line, _ := json.Marshal(outcome)
		fmt.Fprintln(out, string(line))
		out.Flush()
	}
}

func open(task Task, address string) client {
	if task.Client == "grpc-go" {
		return newGrpc(address)
	}
	return newConnect(address, task.Client == "connect-go-grpc")
}

// withClient gives each case a new client, and half a minute.
func withClient(task Task, address string, use func(context.Context, client) Outcome) Outcome {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c := open(task, address)
	defer c.close()
	return use(ctx, c)
}

func result(c client, response *ingestv1.PublishResponse, err error) Outcome {
	o := Outcome{Code: c.code(err), Accepted: int(response.GetResult().GetAccepted()), Refused: int(response.GetResult().GetRejected())}
	if err != nil {
		o.Note = err.Error()
	}
	return o
}

func unary(task Task, name string) Outcome {
	return withClient(task, task.Address, func(ctx context.Context, c client) Outcome {
		id := task.Run + "-" + name
		response, err := c.publish(ctx, task.Key, request(id, event(id+"-1", 0), event(id+"-2", 0)))
		return result(c, response, err)
	})
}

func gzipped(task Task, name string) Outcome {
	return withClient(task, task.Address, func(ctx context.Context, c client) Outcome {
		id := task.Run + "-" + name
		response, err := c.publishGzip(ctx, task.Key, request(id, event(id+"-1", 2000), event(id+"-2", 2000)))
		return result(c, response, err)
	})
}

func wrongKey(task Task, name string) Outcome {
	return withClient(task, task.Address, func(ctx context.Context, c client) Outcome {
		id := task.Run + "-" + name
		response, err := c.publish(ctx, task.WrongKey, request(id, event(id+"-1", 0)))
		return result(c, response, err)
	})
}

func badEvent(task Task, name string) Outcome {
	return withClient(task, task.Address, func(ctx context.Context, c client) Outcome {
		id := task.Run + "-" + name
		bad := event(id+"-bad", 0)
		bad.Currency = "euro"
		response, err := c.publish(ctx, task.Key, request(id, event(id+"-1", 0), bad))
		o := result(c, response, err)
		for _, rejection := range response.GetResult().GetRejections() {
			o.Note += fmt.Sprintf("%d %s", rejection.Index, rejection.Field)
		}
		return o
	})
}

func tooLarge(task Task, name string) Outcome {
	return withClient(task, task.Address, func(ctx context.Context, c client) Outcome {
		response, err := c.publish(ctx, task.Key, oversize(task.Run+"-"+name, task.OversizeBytes))
		return result(c, response, err)
	})
}

// retry sends one batch with `attempt` 1 through a proxy that loses the first answer: the library sends it again by its
// own policy, with the same bytes.
func retry(task Task, name string) Outcome {
	return withClient(task, task.Swallow, func(ctx context.Context, c client) Outcome {
		id := task.Run + "-" + name
		r := request(id, event(id+"-1", 0))
		if task.Client == "grpc-go" {
			r.Attempt = 1
		}
		response, err := c.publish(ctx, task.Key, r)
		o := result(c, response, err)
		if task.Client != "grpc-go" && err != nil {
			response, err = c.publish(ctx, task.Key, r)
			o = result(c, response, err)
			o.Note += "sent again by hand"
		}
		return o
	})
}

// streaming sends 300 batches of two events before it reads an answer.
func streaming(task Task, name string) Outcome {
	return withClient(task, task.Address, func(ctx context.Context, c client) Outcome {
		s, err := c.stream(ctx, task.Key)
		if err != nil {
			return Outcome{Code: c.code(err), Note: err.Error()}
		}
		for i := 0; i < 300; i++ {
			id := fmt.Sprintf("%s-%s-%d", task.Run, name, i)
			r := request(id, event(id+"-1", 4000), event(id+"-2", 4000))
			if err := s.Send(&ingestv1.PublishStreamRequest{BatchId: id, Batch: r.Batch}); err != nil {
				return Outcome{Code: c.code(err), Note: err.Error()}
			}
		}
		if err := s.closeSend(); err != nil {
			return Outcome{Code: c.code(err), Note: err.Error()}
		}
		return drained(c, s)
	})
}

// drained reads a stream to its end.
func drained(c client, s stream) Outcome {
	var o Outcome
	for {
		answer, err := s.Recv()
		if err != nil {
			if o.Code = c.code(err); o.Code != "" {
				o.Note = err.Error()
			}
			return o
		}
		o.Accepted += int(answer.GetAccepted().GetAccepted())
		if failed := answer.GetFailed(); failed != nil {
			o.Refused++
			o.Note = failed.Message
		}
	}
}

// deadline keeps a stream open beyond its deadline, after one batch.
func deadline(task Task, name string) Outcome {
	return withClient(task, task.Address, func(ctx context.Context, c client) Outcome {
		ctx, cancel := context.WithTimeout(ctx, 2000*time.Millisecond)
		defer cancel()
		s, err := c.stream(ctx, task.Key)
		if err != nil {
			return Outcome{Code: c.code(err), Note: err.Error()}
		}
		id := task.Run + "-" + name
		r := request(id, event(id+"-1", 0))
		if err := s.Send(&ingestv1.PublishStreamRequest{BatchId: id, Batch: r.Batch}); err != nil {
			return Outcome{Code: c.code(err), Note: err.Error()}
		}
		return drained(c, s)
	})
}

// flood makes all its calls at once on one connection. Half of those to be refused have a wrong key, half are too large.
func flood(task Task, name string) Outcome {
	return withClient(task, task.Address, func(ctx context.Context, c client) Outcome {
		var accepted, refused atomic.Int64
		var wrong sync.Map
		var all sync.WaitGroup
		run := func(key string, r *ingestv1.PublishRequest, want string) {
			defer all.Done()
			response, err := c.publish(ctx, key, r)
			code := c.code(err)
			switch {
			case code != want:
				wrong.Store(fmt.Sprintf("wanted %q, got %q: %v", want, code, err), true)
			case code == "":
				accepted.Add(int64(response.GetResult().GetAccepted()))
			default:
				refused.Add(1)
			}
		}
		large := oversize(task.Run+"-"+name+"-large", task.OversizeBytes)
		for i := 0; i < task.FloodCalls; i++ {
			id := fmt.Sprintf("%s-%s-%d", task.Run, name, i)
			all.Add(1)
			go run(task.Key, request(id, event(id, 200)), "")
			if i%(task.FloodCalls/task.FloodRefused) != 0 {
				continue
			}
			all.Add(1)
			if i/(task.FloodCalls/task.FloodRefused)%2 == 0 {
				go run(task.WrongKey, request(id+"-key", event(id+"-key", 4000)), "UNAUTHENTICATED")
			} else {
				go run(task.Key, large, "INVALID_ARGUMENT")
			}
		}
		all.Wait()
		o := Outcome{Accepted: int(accepted.Load()), Refused: int(refused.Load())}
		wrong.Range(func(text, _ any) bool {
			o.Code, o.Note = "WRONG", text.(string)
			return false
		})
		return o
	})
}

// restart sends calls while the gateway is replaced or killed. A call that fails is made again, until it is answered.
func restart(task Task, name string) Outcome {
	return withClient(task, task.Address, func(ctx context.Context, c client) Outcome {
		var accepted, again atomic.Int64
		var wrong sync.Map
		var all sync.WaitGroup
		end := time.Now().Add(time.Duration(task.RestartMillis) * time.Millisecond)
		fmt.Printf("{\"case\":%q,\"started\":true}\n", name)
		for lane := 0; lane < 8; lane++ {
			all.Add(1)
			go func() {
				defer all.Done()
				for i := 0; time.Now().Before(end); i++ {
					id := fmt.Sprintf("%s-%s-%d-%d", task.Run, name, lane, i)
					r := request(id, event(id, 100))
					for {
						response, err := c.publish(ctx, task.Key, r)
						if err == nil {
							accepted.Add(int64(response.GetResult().GetAccepted()))
							break
						}
						if code := c.code(err); code != "UNAVAILABLE" {
							wrong.Store(code+": "+err.Error(), true)
						}
						if ctx.Err() != nil {
							return
						}
						again.Add(1)
						time.Sleep(50 * time.Millisecond)
					}
					time.Sleep(5 * time.Millisecond)
				}
			}()
		}
		all.Wait()
		o := Outcome{Accepted: int(accepted.Load()), Note: fmt.Sprintf("%d calls made again", again.Load())}
		wrong.Range(func(text, _ any) bool {
			o.Note += "; " + text.(string)
			return true
		})
		return o
	})
}
