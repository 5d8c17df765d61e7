//! The tonic client of `npm run interop`, case by case. The only argument is the task as JSON; each case is answered with one line
//! of JSON on standard output. See interop/cases.ts.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::{wrappers::ReceiverStream, Stream};
use tonic::codec::CompressionEncoding;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

pub mod sluice {
    pub mod rules {
        pub mod v1 {
            tonic::include_proto!("sluice.rules.v1");
        }
    }
    pub mod event {
        pub mod v1 {
            tonic::include_proto!("sluice.event.v1");
        }
    }
    pub mod ingest {
        pub mod v1 {
            tonic::include_proto!("sluice.ingest.v1");
        }
    }
}

use sluice::event::v1::{Event, EventBatch, EventType};
use sluice::ingest::v1::ingest_service_client::IngestServiceClient;
use sluice::ingest::v1::publish_stream_response::Message;
use sluice::ingest::v1::{PublishRequest, PublishStreamRequest};

type Client = IngestServiceClient<Channel>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Task {
    address: String,
    swallow: String,
    key: String,
    wrong_key: String,
    run: String,
    flood_calls: u32,
    flood_refused: u32,
    oversize_bytes: usize,
    restart_millis: u64,
    cases: Vec<String>,
}

#[derive(Serialize, Default)]
struct Outcome {
    accepted: u32,
    refused: u32,
    code: String,
    note: String,
}

#[derive(Serialize)]
struct Line<'a> {
    case: &'a str,
    #[serde(flatten)]
    outcome: Outcome,
}

fn event(id: &str, padding: usize) -> Event {
    Event {
        event_id: id.to_string(),
        r#type: EventType::Click.into(),
        occurred_at: Some(SystemTime::now().into()),
        properties: [("padding".to_string(), "x".repeat(padding))].into(),
        ..Default::default()
    }
}

/// `attempt` is left out: this program does not count retries.
fn batch(id: &str, events: Vec<Event>) -> PublishRequest {
    PublishRequest { batch_id: id.to_string(), batch: Some(EventBatch { events }), ..Default::default() }
}

fn oversize(id: &str, bytes: usize) -> PublishRequest {
    batch(id, (0..bytes).step_by(4000).map(|at| event(&format!("{id}-{at}"), 4000)).collect())
}

fn with_key<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request.set_timeout(Duration::from_secs(30));
    request
}

fn client(address: &str) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    Client::new(endpoint.connect_lazy())
}

/// DEADLINE_EXCEEDED of DeadlineExceeded.
fn name(code: Code) -> String {
    let mut out = String::new();
    for (at, letter) in format!("{code:?}").chars().enumerate() {
        if at > 0 && letter.is_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}

/// tonic answers a deadline that it notices itself with CANCELLED "Timeout expired".
fn failed(status: Status) -> Outcome {
    let timed_out = status.code() == Code::Cancelled && status.message().contains("Timeout");
    let code = if timed_out { Code::DeadlineExceeded } else { status.code() };
    Outcome { code: name(code), note: status.message().to_string(), ..Default::default() }
}

async fn publish(client: &mut Client, key: &str, message: PublishRequest) -> Outcome {
    match client.publish(with_key(message, key)).await {
        Err(status) => failed(status),
        Ok(response) => {
            let result = response.into_inner().result.unwrap_or_default();
            let fields: Vec<String> = result.rejections.iter().map(|r| format!("{} {}", r.index, r.field)).collect();
            Outcome { accepted: result.accepted, refused: result.rejected, code: String::new(), note: fields.join(" ") }
        }
    }
}

fn pair(id: &str, padding: usize) -> PublishRequest {
    batch(id, vec![event(&format!("{id}-1"), padding), event(&format!("{id}-2"), padding)])
}

/// Sends a stream, and reads it to its end.
async fn stream<S>(client: &mut Client, key: &str, batches: S, within: Duration) -> Outcome
where
    S: Stream<Item = PublishStreamRequest> + Send + 'static,
{
    let mut request = with_key(batches, key);
    request.set_timeout(within);
    let mut outcome = Outcome::default();
    let mut answers = match client.publish_stream(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return failed(status),
    };
    loop {
        match answers.message().await {
            Ok(None) => return outcome,
            Ok(Some(answer)) => match answer.message {
                Some(Message::Accepted(result)) => outcome.accepted += result.accepted,
                Some(Message::Failed(_)) => outcome.refused += 1,
                _ => {}
            },
            Err(status) => {
                let end = failed(status);
                return Outcome { accepted: outcome.accepted, refused: outcome.refused, ..end };
            }
        }
    }
}

fn streamed(request: PublishRequest) -> PublishStreamRequest {
    PublishStreamRequest { batch_id: request.batch_id, batch: request.batch, ..Default::default() }
}

async fn deadline(task: &Task, id: &str) -> Outcome {
    let (sender, receiver) = mpsc::channel(4);
    sender.send(streamed(batch(id, vec![event(&format!("{id}-1"), 0)]))).await.unwrap();
    let mut client = client(&task.address);
    let outcome = stream(&mut client, &task.key, ReceiverStream::new(receiver), Duration::from_secs(2));
    // tonic ends no stream by itself once it is open: the server does, at the deadline that it was told.
    let outcome = tokio::time::timeout(Duration::from_secs(10), outcome).await;
    drop(sender);
    outcome.unwrap_or(Outcome { code: "HANGS".to_string(), ..Default::default() })
}

/// All calls at once on one connection. Half of those to be refused have a wrong key, half are too large.
async fn flood(task: &Task, id: &str) -> Outcome {
    let shared = client(&task.address);
    let every = task.flood_calls / task.flood_refused;
    let mut calls = Vec::new();
    let mut start = |key: &str, message: PublishRequest, want: &'static str| {
        let (mut client, key) = (shared.clone(), key.to_string());
        calls.push(tokio::spawn(async move { (publish(&mut client, &key, message).await, want) }));
    };
    for i in 0..task.flood_calls {
        let one = format!("{id}-{i}");
        start(&task.key, batch(&one, vec![event(&one, 200)]), "");
        if i % every == 0 && i / every % 2 == 0 {
            let refused = format!("{one}-key");
            start(&task.wrong_key, batch(&refused, vec![event(&refused, 4000)]), "UNAUTHENTICATED");
        } else if i % every == 0 {
            start(&task.key, oversize(&format!("{id}-large"), task.oversize_bytes), "INVALID_ARGUMENT");
        }
    }
    let mut sum = Outcome::default();
    for call in calls {
        let (outcome, want) = call.await.unwrap();
        if outcome.code != want {
            sum.note = format!("wanted {want:?}, got {:?}: {}", outcome.code, outcome.note);
            sum.code = "WRONG".to_string();
        } else if want.is_empty() {
            sum.accepted += outcome.accepted;
        } else {
            sum.refused += 1;
        }
    }
    sum
}

/// Calls go on while the gateway is replaced or killed. A call that fails is made again, until it is answered.
async fn restart(task: &Task, case: &str, id: &str) -> Outcome {
    println!("{{\"case\":\"{case}\",\"started\":true}}");
    let shared = client(&task.address);
    let end = Instant::now() + Duration::from_millis(task.restart_millis);
    let (accepted, again) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut lanes = Vec::new();
    for lane in 0..8 {
        let (mut client, key, id) = (shared.clone(), task.key.clone(), id.to_string());
        let (accepted, again) = (accepted.clone(), again.clone());
        lanes.push(tokio::spawn(async move {
            let mut i = 0;
            while Instant::now() < end {
                let one = format!("{id}-{lane}-{i}");
                let message = batch(&one, vec![event(&one, 100)]);
                while Instant::now() < end + Duration::from_secs(20) {
                    let outcome = publish(&mut client, &key, message.clone()).await;
                    accepted.fetch_add(outcome.accepted, Ordering::Relaxed);
                    if outcome.code.is_empty() {
                        break;
                    }
                    again.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                i += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }));
    }
    for lane in lanes {
        lane.await.unwrap();
    }
    let note = format!("{} calls made again", again.load(Ordering::Relaxed));
    Outcome { accepted: accepted.load(Ordering::Relaxed), note, ..Default::default() }
}

/// tonic does not retry: the program sends the same message again.
async fn retry(task: &Task, id: &str) -> Outcome {
    let mut client = client(&task.swallow);
    let message = batch(id, vec![event(&format!("{id}-1"), 0)]);
    let first = publish(&mut client, &task.key, message.clone()).await;
    if first.code.is_empty() {
        return first;
    }
    let second = publish(&mut client, &task.key, message).await;
    Outcome { note: format!("{}sent again by hand", second.note), ..second }
}

async fn answer(task: &Task, case: &str) -> Outcome {
    let id = format!("{}-{}", task.run, case);
    let mut client = client(&task.address);
    match case {
        "unary" => publish(&mut client, &task.key, pair(&id, 0)).await,
        "gzip" => {
            let mut client = client.send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
            publish(&mut client, &task.key, pair(&id, 2000)).await
        }
        "wrong-key" => publish(&mut client, &task.wrong_key, pair(&id, 0)).await,
        "bad-event" => {
            let bad = Event { currency: "euro".to_string(), ..event(&format!("{id}-bad"), 0) };
            publish(&mut client, &task.key, batch(&id, vec![event(&format!("{id}-1"), 0), bad])).await
        }
        "too-large" => publish(&mut client, &task.key, oversize(&id, task.oversize_bytes)).await,
        "stream" => {
            let batches: Vec<_> = (0..300).map(|i| streamed(pair(&format!("{id}-{i}"), 4000))).collect();
            stream(&mut client, &task.key, tokio_stream::iter(batches), Duration::from_secs(30)).await
        }
        "deadline" => deadline(task, &id).await,
        "flood" => flood(task, &id).await,
        "retry" => retry(task, &id).await,
        _ => restart(task, case, &id).await,
    }
}

#[tokio::main]
async fn main() {
    let task: Task = serde_json::from_str(&std::env::args().nth(1).expect("the task as JSON")).expect("the task as JSON");
    for case in &task.cases {
        let outcome = answer(&task, case).await;
        println!("{}", serde_json::to_string(&Line { case, outcome }).unwrap());
    }
}
