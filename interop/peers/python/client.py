"""The grpcio client of `npm run interop`, case by case. The only argument is the task as JSON; each case is answered with one
line of JSON on standard output. See interop/cases.ts."""

import json
import sys
import threading
import time

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from sluice.event.v1 import event_pb2
from sluice.ingest.v1 import ingest_pb2, ingest_pb2_grpc

# grpcio's own retry: the library sends the same bytes again.
SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "sluice.ingest.v1.IngestService"}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ]
    }
)
OPTIONS = [
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.use_local_subchannel_pool", 1),
]


def event(event_id, padding=0):
    now = Timestamp()
    now.GetCurrentTime()
    return event_pb2.Event(
        event_id=event_id,
        type=event_pb2.EVENT_TYPE_CLICK,
        occurred_at=now,
        properties={"padding": "x" * padding},
    )


def request(batch_id, *events):
    """`attempt` is left out: what counts retries here is the library, below this code."""
    return ingest_pb2.PublishRequest(batch_id=batch_id, batch=event_pb2.EventBatch(events=events))


def oversize(batch_id, size):
    return request(batch_id, *(event(f"{batch_id}-{i}", 4000) for i in range(0, size, 4000)))


def auth(key):
    return [("authorization", "Bearer " + key)]


def outcome(accepted=0, refused=0, code="", note=""):
    return {"accepted": accepted, "refused": refused, "code": code, "note": note}


def failed(error):
    return outcome(code=error.code().name, note=error.details() or "")


def publish(task, message, key=None, address=None, **options):
    with grpc.insecure_channel(address or task["address"], OPTIONS) as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        try:
            result = stub.Publish(message, metadata=auth(key or task["key"]), timeout=30, **options).result
        except grpc.RpcError as error:
            return failed(error)
        fields = " ".join(f"{r.index} {r.field}" for r in result.rejections)
        return outcome(result.accepted, result.rejected, note=fields)


def unary(task, name):
    batch = f"{task['run']}-{name}"
    return publish(task, request(batch, event(batch + "-1"), event(batch + "-2")))


def gzipped(task, name):
    batch = f"{task['run']}-{name}"
    message = request(batch, event(batch + "-1", 2000), event(batch + "-2", 2000))
    return publish(task, message, compression=grpc.Compression.Gzip)


def wrong_key(task, name):
    batch = f"{task['run']}-{name}"
    return publish(task, request(batch, event(batch + "-1")), key=task["wrongKey"])


def bad_event(task, name):
    batch = f"{task['run']}-{name}"
    bad = event(batch + "-bad")
    bad.currency = "euro"
    return publish(task, request(batch, event(batch + "-1"), bad))


def too_large(task, name):
    return publish(task, oversize(f"{task['run']}-{name}", task["oversizeBytes"]))


def retry(task, name):
    batch = f"{task['run']}-{name}"
    message = request(batch, event(batch + "-1"))
    message.attempt = 1
    return publish(task, message, address=task["swallow"])


def read(calls):
    """Reads a stream to its end."""
    accepted, refused, note = 0, 0, ""
    try:
        for answer in calls:
            accepted += answer.accepted.accepted
            if answer.HasField("failed"):
                refused, note = refused + 1, answer.failed.message
    except grpc.RpcError as error:
        return outcome(accepted, refused, error.code().name, error.details() or "")
    return outcome(accepted, refused, note=note)


def stream(task, name):
    def batches():
        for i in range(300):
            batch = f"{task['run']}-{name}-{i}"
            message = request(batch, event(batch + "-1", 4000), event(batch + "-2", 4000))
            yield ingest_pb2.PublishStreamRequest(batch_id=batch, batch=message.batch)

    with grpc.insecure_channel(task["address"], OPTIONS) as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        return read(stub.PublishStream(batches(), metadata=auth(task["key"]), timeout=30))


def deadline(task, name):
    over = threading.Event()

    def batches():
        batch = f"{task['run']}-{name}"
        yield ingest_pb2.PublishStreamRequest(batch_id=batch, batch=request(batch, event(batch + "-1")).batch)
        over.wait(10)

    with grpc.insecure_channel(task["address"], OPTIONS) as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        answer = read(stub.PublishStream(batches(), metadata=auth(task["key"]), timeout=2))
        over.set()
        return answer


def flood(task, name):
    """All calls at once on one connection. Half of those to be refused have a wrong key, half are too large."""
    every = task["floodCalls"] // task["floodRefused"]
    large = oversize(f"{task['run']}-{name}-large", task["oversizeBytes"])
    calls = []
    with grpc.insecure_channel(task["address"], OPTIONS) as channel:
        grpc.channel_ready_future(channel).result(10)
        stub = ingest_pb2_grpc.IngestServiceStub(channel)

        def start(message, key, want):
            calls.append((stub.Publish.future(message, metadata=auth(key), timeout=30), want))

        for i in range(task["floodCalls"]):
            batch = f"{task['run']}-{name}-{i}"
            start(request(batch, event(batch, 200)), task["key"], "")
            if i % every == 0 and i // every % 2 == 0:
                start(request(batch + "-key", event(batch + "-key", 4000)), task["wrongKey"], "UNAUTHENTICATED")
            elif i % every == 0:
                start(large, task["key"], "INVALID_ARGUMENT")
        accepted, refused, code, note = 0, 0, "", ""
        for call, want in calls:
            error = call.exception()
            got = "" if error is None else error.code().name
            if got != want:
                code, note = "WRONG", f"wanted {want or 'success'}, got {got or 'success'}: {error}"
            elif got == "":
                accepted += call.result().result.accepted
            else:
                refused += 1
        return outcome(accepted, refused, code, note)


def restart(task, name):
    """Calls go on while the gateway is replaced or killed. A call that fails is made again, until it is answered."""
    end = time.monotonic() + task["restartMillis"] / 1000
    give_up = end + 20
    accepted, again, odd = [], [], set()
    print(json.dumps({"case": name, "started": True}), flush=True)

    def lane(stub, number):
        i = 0
        while time.monotonic() < end:
            batch = f"{task['run']}-{name}-{number}-{i}"
            message = request(batch, event(batch, 100))
            while time.monotonic() < give_up:
                try:
                    accepted.append(stub.Publish(message, metadata=auth(task["key"]), timeout=10).result.accepted)
                    break
                except grpc.RpcError as error:
                    again.append(1)
                    if error.code() != grpc.StatusCode.UNAVAILABLE:
                        odd.add(f"{error.code().name}: {error.details()}")
                    time.sleep(0.05)
            i += 1
            time.sleep(0.005)

    with grpc.insecure_channel(task["address"], [*OPTIONS, ("grpc.max_reconnect_backoff_ms", 500)]) as channel:
        stub = ingest_pb2_grpc.IngestServiceStub(channel)
        lanes = [threading.Thread(target=lane, args=(stub, number)) for number in range(8)]
        for thread in lanes:
            thread.start()
        for thread in lanes:
            thread.join()
    return outcome(sum(accepted), note="; ".join([f"{len(again)} calls made again", *sorted(odd)]))


CASES = {
    "unary": unary,
    "stream": stream,
    "wrong-key": wrong_key,
    "bad-event": bad_event,
    "too-large": too_large,
    "deadline": deadline,
    "gzip": gzipped,
    "flood": flood,
    "retry": retry,
    "drain": restart,
    "kill": restart,
}

given = json.loads(sys.argv[1])
for case in given["cases"]:
    print(json.dumps({"case": case, **CASES[case](given, case)}), flush=True)
