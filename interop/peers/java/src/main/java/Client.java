import com.google.common.util.concurrent.ListenableFuture;
import com.google.gson.Gson;
import com.google.protobuf.Timestamp;
import com.sluice.event.v1.Event;
import com.sluice.event.v1.EventBatch;
import com.sluice.event.v1.EventType;
import com.sluice.ingest.v1.BatchResult;
import com.sluice.ingest.v1.IngestServiceGrpc;
import com.sluice.ingest.v1.PublishRequest;
import com.sluice.ingest.v1.PublishResponse;
import com.sluice.ingest.v1.PublishStreamRequest;
import com.sluice.ingest.v1.PublishStreamResponse;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.okhttp.OkHttpChannelBuilder;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.time.Instant;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * The grpc-java clients of `npm run interop`, case by case. The only argument is the task as JSON; each case is answered with one line of
 * JSON on standard output. See interop/cases.ts.
 */
public class Client {
  static class Task {
    String client;
    String address;
    String swallow;
    String key;
    String wrongKey;
    String run;
    int floodCalls;
    int floodRefused;
    int oversizeBytes;
    long restartMillis;
    List<String> cases;
  }

  static class Outcome {
    int accepted;
    int refused;
    String code = "";
    String note = "";
  }

  interface Use {
    Outcome with(ManagedChannel channel) throws Exception;
  }

  /** grpc-java's own retry: the library sends the same bytes again. */
  static final Map<String, ?> RETRIES =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name", List.of(Map.of("service", "sluice.ingest.v1.IngestService")),
                  "retryPolicy",
                      Map.of(
                          "maxAttempts", 4.0,
                          "initialBackoff", "0.1s",
                          "maxBackoff", "1s",
                          "backoffMultiplier", 2.0,
                          "retryableStatusCodes", List.of("UNAVAILABLE")))));

  static final Gson GSON = new Gson();

  static Event event(String id, int padding) {
    Instant now = Instant.now();
    return Event.newBuilder()
        .setEventId(id)
        .setType(EventType.EVENT_TYPE_CLICK)
        .setOccurredAt(Timestamp.newBuilder().setSeconds(now.getEpochSecond()).setNanos(now.getNano()))
        .putProperties("padding", "x".repeat(padding))
        .build();
  }

  /** `attempt` is left out: what counts retries here is the library, below this code. */
  static PublishRequest request(String batch, Event... events) {
    return PublishRequest.newBuilder()
        .setBatchId(batch)
        .setBatch(EventBatch.newBuilder().addAllEvents(List.of(events)))
        .build();
  }

  static PublishRequest oversize(String batch, int bytes) {
    List<Event> events = new ArrayList<>();
    for (int at = 0; at < bytes; at += 4000) events.add(event(batch + "-" + at, 4000));
    return request(batch, events.toArray(new Event[0]));
  }

  static PublishStreamRequest streamed(PublishRequest request) {
    return PublishStreamRequest.newBuilder().setBatchId(request.getBatchId()).setBatch(request.getBatch()).build();
  }

  static <S extends AbstractStub<S>> S as(S stub, String key) {
    Metadata headers = new Metadata();
    headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + key);
    return stub.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
  }

  static Outcome on(Task task, String address, Use use) throws Exception {
    ManagedChannelBuilder<?> builder =
        task.client.endsWith("okhttp") ? OkHttpChannelBuilder.forTarget(address) : NettyChannelBuilder.forTarget(address);
    ManagedChannel channel =
        builder
            .usePlaintext()
            .enableRetry()
            .defaultServiceConfig(RETRIES)
            .keepAliveTime(10, TimeUnit.SECONDS)
            .keepAliveWithoutCalls(true)
            .build();
    try {
      return use.with(channel);
    } finally {
      channel.shutdownNow().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  static Outcome outcome(BatchResult result) {
    Outcome outcome = new Outcome();
    outcome.accepted = result.getAccepted();
    outcome.refused = result.getRejected();
    for (var rejection : result.getRejectionsList()) outcome.note += rejection.getIndex() + " " + rejection.getField();
    return outcome;
  }

  static Outcome outcome(Throwable error) {
    Status status = Status.fromThrowable(error);
    Outcome outcome = new Outcome();
    outcome.code = status.getCode().name();
    outcome.note = String.valueOf(status.getDescription());
    return outcome;
  }

  static Outcome publish(ManagedChannel channel, String key, PublishRequest request, String compression) {
    var stub = as(IngestServiceGrpc.newBlockingStub(channel), key).withDeadlineAfter(30, TimeUnit.SECONDS);
    if (compression != null) stub = stub.withCompression(compression);
    try {
      return outcome(stub.publish(request).getResult());
    } catch (StatusRuntimeException error) {
      return outcome(error);
    }
  }

  /** Sends batches, and reads the stream to its end. */
  static Outcome stream(ManagedChannel channel, String key, List<PublishRequest> batches, boolean end, long withinMillis)
      throws InterruptedException {
    Outcome outcome = new Outcome();
    CountDownLatch over = new CountDownLatch(1);
    StreamObserver<PublishStreamRequest> requests =
        as(IngestServiceGrpc.newStub(channel), key)
            .withDeadlineAfter(withinMillis, TimeUnit.MILLISECONDS)
            .publishStream(
                new StreamObserver<PublishStreamResponse>() {
                  @Override
                  public void onNext(PublishStreamResponse answer) {
                    outcome.accepted += answer.getAccepted().getAccepted();
                    if (answer.hasFailed()) outcome.refused++;
                  }

                  @Override
                  public void onError(Throwable error) {
                    Outcome failed = outcome(error);
                    outcome.code = failed.code;
                    outcome.note = failed.note;
                    over.countDown();
                  }

                  @Override
                  public void onCompleted() {
                    over.countDown();
                  }
                });
    for (PublishRequest batch : batches) requests.onNext(streamed(batch));
    if (end) requests.onCompleted();
    if (!over.await(40, TimeUnit.SECONDS)) outcome.code = "HANGS";
    return outcome;
  }

  /** All calls at once on one connection. Half of those to be refused have a wrong key, half are too large. */
  static Outcome flood(Task task, ManagedChannel channel, String id) throws InterruptedException {
    int every = task.floodCalls / task.floodRefused;
    PublishRequest large = oversize(id + "-large", task.oversizeBytes);
    List<ListenableFuture<PublishResponse>> calls = new ArrayList<>();
    List<String> wanted = new ArrayList<>();
    for (int i = 0; i < task.floodCalls; i++) {
      String one = id + "-" + i;
      calls.add(start(channel, task.key, request(one, event(one, 200))));
      wanted.add("");
      if (i % every == 0 && i / every % 2 == 0) {
        calls.add(start(channel, task.wrongKey, request(one + "-key", event(one + "-key", 4000))));
        wanted.add("UNAUTHENTICATED");
      } else if (i % every == 0) {
        calls.add(start(channel, task.key, large));
        wanted.add("INVALID_ARGUMENT");
      }
    }
    Outcome sum = new Outcome();
    for (int i = 0; i < calls.size(); i++) {
      Outcome one;
      try {
        one = outcome(calls.get(i).get().getResult());
      } catch (ExecutionException error) {
        one = outcome(error.getCause());
      }
      if (!one.code.equals(wanted.get(i))) {
        sum.code = "WRONG";
        sum.note = "wanted '" + wanted.get(i) + "', got '" + one.code + "': " + one.note;
      } else if (one.code.isEmpty()) {
        sum.accepted += one.accepted;
      } else {
        sum.refused++;
      }
    }
    return sum;
  }

  static ListenableFuture<PublishResponse> start(ManagedChannel channel, String key, PublishRequest request) {
    return as(IngestServiceGrpc.newFutureStub(channel), key).withDeadlineAfter(30, TimeUnit.SECONDS).publish(request);
  }

  /** Calls go on while the gateway is replaced or killed. A call that fails is made again, until it is answered. */
  static Outcome restart(Task task, ManagedChannel channel, String name, String id) throws InterruptedException {
    System.out.println("{\"case\":\"" + name + "\",\"started\":true}");
    long end = System.nanoTime() + task.restartMillis * 1_000_000;
    long giveUp = end + 20_000_000_000L;
    AtomicInteger accepted = new AtomicInteger();
    AtomicInteger again = new AtomicInteger();
    List<Thread> lanes = new ArrayList<>();
    for (int lane = 0; lane < 8; lane++) {
      int number = lane;
      Thread thread =
          new Thread(
              () -> {
                for (int i = 0; System.nanoTime() < end; i++) {
                  String one = id + "-" + number + "-" + i;
                  PublishRequest request = request(one, event(one, 100));
                  while (System.nanoTime() < giveUp) {
                    Outcome outcome = publish(channel, task.key, request, null);
                    accepted.addAndGet(outcome.accepted);
                    if (outcome.code.isEmpty()) break;
                    again.incrementAndGet();
                    pause(50);
                  }
                  pause(5);
                }
              });
      thread.start();
      lanes.add(thread);
    }
    for (Thread thread : lanes) thread.join();
    Outcome outcome = new Outcome();
    outcome.accepted = accepted.get();
    outcome.note = again.get() + " calls made again";
    return outcome;
  }

  static void pause(long millis) {
    try {
      Thread.sleep(millis);
    } catch (InterruptedException error) {
      Thread.currentThread().interrupt();
    }
  }

  static PublishRequest pair(String id, int padding) {
    return request(id, event(id + "-1", padding), event(id + "-2", padding));
  }

  static Outcome answer(Task task, String name) throws Exception {
    String id = task.run + "-" + name;
    switch (name) {
      case "unary":
        return on(task, task.address, channel -> publish(channel, task.key, pair(id, 0), null));
      case "gzip":
        return on(task, task.address, channel -> publish(channel, task.key, pair(id, 2000), "gzip"));
      case "wrong-key":
        return on(task, task.address, channel -> publish(channel, task.wrongKey, pair(id, 0), null));
      case "bad-event":
        Event bad = event(id + "-bad", 0).toBuilder().setCurrency("euro").build();
        return on(task, task.address, channel -> publish(channel, task.key, request(id, event(id + "-1", 0), bad), null));
      case "too-large":
        return on(task, task.address, channel -> publish(channel, task.key, oversize(id, task.oversizeBytes), null));
      case "stream":
        List<PublishRequest> batches = new ArrayList<>();
        for (int i = 0; i < 300; i++) batches.add(pair(id + "-" + i, 4000));
        return on(task, task.address, channel -> stream(channel, task.key, batches, true, 30_000));
      case "deadline":
        List<PublishRequest> one = List.of(request(id, event(id + "-1", 0)));
        return on(task, task.address, channel -> stream(channel, task.key, one, false, 2_000));
      case "retry":
        // When a connection breaks, grpc-okhttp repeats its calls as if the server had refused them: without grpc-previous-rpc-attempts. Such a
        // copy is recognised only when `attempt` is left out.
        int attempt = task.client.endsWith("okhttp") ? 0 : 1;
        PublishRequest first = request(id, event(id + "-1", 0)).toBuilder().setAttempt(attempt).build();
        return on(task, task.swallow, channel -> publish(channel, task.key, first, null));
      case "flood":
        return on(task, task.address, channel -> flood(task, channel, id));
      default:
        return on(task, task.address, channel -> restart(task, channel, name, id));
    }
  }

  public static void main(String[] args) throws Exception {
    Task task = GSON.fromJson(args[0], Task.class);
    for (String name : task.cases) {
      Outcome outcome = answer(task, name);
      Map<String, Object> line = new LinkedHashMap<>();
      line.put("case", name);
      line.put("accepted", outcome.accepted);
      line.put("refused", outcome.refused);
      line.put("code", outcome.code);
      line.put("note", outcome.note);
      System.out.println(GSON.toJson(line));
    }
    System.exit(0);
  }
}
