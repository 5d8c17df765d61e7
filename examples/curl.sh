#!/bin/sh
# JSON over HTTP with curl. docs/json.md has the rules.
set -eu
gateway=${GATEWAY:-http://127.0.0.1:7070}
key=${KEY:-$(cat sluice-data/demo-key)}

post() {
  curl --silent --show-error --fail-with-body "$gateway$1" \
    --header "authorization: Bearer $key" --header 'content-type: application/json' --data "$2"
  echo
}

# One event.
post /v1/events '{
  "eventId": "example-curl-1", "type": "EVENT_TYPE_CLICK", "occurredAt": "2026-01-31T12:00:00Z",
  "userId": "u-1", "touch": {"channel": "paid_search", "campaign": "spring_sale"}
}'

# Many events. A batchId makes it safe to send the batch again: Sluice stores it once.
batch='{
  "batchId": "example-curl-batch",
  "events": [
    {"eventId": "example-curl-2", "type": "EVENT_TYPE_INSTALL", "occurredAt": "2026-01-31T12:00:01Z"},
    {"eventId": "example-curl-3", "type": "EVENT_TYPE_PAGE", "occurredAt": "2026-01-31T12:00:02Z", "page": {"url": "https://shop.example/"}}
  ]
}'
post /v1/events/batch "$batch"
post /v1/events/batch "$batch"
