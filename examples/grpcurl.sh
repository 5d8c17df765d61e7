#!/bin/sh
# gRPC with grpcurl. The gateway serves reflection, so no .proto files are needed.
set -eu
gateway=${GATEWAY:-http://127.0.0.1:7070}
key=${KEY:-$(cat sluice-data/demo-key)}

call() {
  grpcurl -plaintext -H "authorization: Bearer $key" -d "$2" "${gateway#http://}" "sluice.ingest.v1.IngestService/$1"
}

# What a client must keep to.
call GetLimits '{}'

# A batch.
call Publish '{
  "batchId": "example-grpcurl-batch",
  "batch": {"events": [{"eventId": "example-grpcurl-1", "type": "EVENT_TYPE_INSTALL", "occurredAt": "2026-01-31T12:00:00Z"}]}
}'

# Whether ClickHouse has it. A second later the answer is yes.
call GetBatchStatus '{"batchId": "example-grpcurl-batch"}'
