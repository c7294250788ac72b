//! The driver of the Rust client; the protocol is in tests/conformance/README.md.

mod words;

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ackwell_client::{
    Client, CloudEvent, CommitRequest, Confirm, Consume, Consumer, Delivery, Error, Message, Outcome,
    Produce, Producer, Receive, SendRequest, SettleRequest, Stopper, trace,
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use words::{Refused, bytes, list, milliseconds, text};

type Answer = Result<Value, Refused>;

/// Messages that wait for a producer's room.
const LINE: usize = 4096;

/// What commands work on.
#[derive(Clone)]
struct Driver {
    client: Client,
    state: Arc<Mutex<State>>,
    last_delivery: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    calls: HashMap<u64, AbortHandle>,
    finishes: HashMap<String, oneshot::Sender<Value>>,
    consumers: HashMap<String, (Stopper, tokio::sync::watch::Receiver<bool>)>,
    producers: HashMap<String, mpsc::Sender<Line>>,
}

/// What a producer is told, in its order.
enum Line {
    Send(Value),
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut driver =
        Driver { client: Client::from_env()?, state: Arc::default(), last_delivery: Arc::default() };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    say(&json!({"event": "ready", "protocol": 1}));
    let mut commands = commands();
    let mut closing = None;
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) if text(&command, "op") == "close" => closing = Some(driver.closing(Some(command))),
                Some(command) => driver.begin(command),
                None => {
                    driver.close().await;
                    return Ok(());
                }
            },
            _ = terminate.recv() => closing = Some(driver.closing(None)),
            () = ended(&mut closing) => return Ok(()),
        }
    }
}

/// What the runner says. Read in a thread, which does not end by itself.
fn commands() -> mpsc::Receiver<Value> {
    let (tell, commands) = mpsc::channel(LINE);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let command = serde_json::from_str(&line).expect("the runner speaks JSON");
            if tell.blocking_send(command).is_err() {
                return;
            }
        }
    });
    commands
}

async fn ended(closing: &mut Option<tokio::task::JoinHandle<()>>) {
    match closing {
        Some(task) => _ = task.await,
        None => std::future::pending().await,
    }
}

impl Driver {
    /// Begins a command; those that change the driver itself are done here.
    fn begin(&mut self, command: Value) {
        match text(&command, "op").as_str() {
            "options" => {
                self.client = self.client.clone().with_retry_limit(milliseconds(&command["retry_limit_ms"]));
                answer(&command, Ok(json!({})));
            }
            "finish" => {
                let finish = self.locked().finishes.remove(&text(&command, "delivery"));
                answer(&command, Ok(json!({})));
                // Its handler may have been stopped.
                let _ = finish.map(|finish| finish.send(command));
            }
            "cancel_call" => {
                let call = self.locked().calls.remove(&command["call"].as_u64().unwrap_or_default());
                call.inspect(AbortHandle::abort);
                answer(&command, Ok(json!({})));
            }
            "consume" => answer(&command, Ok(self.consume(&command))),
            "producer_open" => answer(&command, Ok(self.producer_open(&command))),
            "producer_send" => self.producer_send(&command),
            _ => self.call(command),
        }
    }

    /// Carries a command out beside the others; aborting it is how a call is cancelled.
    fn call(&self, command: Value) {
        let id = command["id"].as_u64().unwrap_or_default();
        let (driver, asked) = (self.clone(), command.clone());
        let task = tokio::spawn(async move { driver.carry_out(&asked).await });
        self.locked().calls.insert(id, task.abort_handle());
        tokio::spawn(async move {
            match task.await {
                Ok(Some(result)) => answer(&command, result),
                Ok(None) => say(&json!({"id": command["id"], "unsupported": true})),
                Err(error) if error.is_cancelled() => answer(&command, Err(Refused::cancelled())),
                Err(error) => answer(&command, Err(Refused::client(&error))),
            }
        });
    }

    async fn carry_out(&self, command: &Value) -> Option<Answer> {
        let queue = text(command, "queue");
        let client = match command.get("timeout_ms") {
            Some(limit) => self.client.clone().with_retry_limit(milliseconds(limit)),
            None => self.client.clone(),
        };
        Some(match text(command, "op").as_str() {
            "send" => send(&client, &queue, command).await,
            "send_many" => send_many(&client, &queue, command).await,
            "receive" => receive(&client, &queue, command).await,
            "settle" => settle(&client, &queue, command).await,
            "extend" => extend(&client, &queue, command).await,
            "commit" => commit(&client, command).await,
            "stats" => stats(&client, &queue).await,
            "peek" => peek(&client, &queue, command).await,
            "get" => get(&client, &queue, command).await,
            "cancel" => cancel(&client, &queue, command).await,
            "to_message" => {
                Ok(json!({"message": words::message_json(&words::event(&command["cloud_event"]).into())}))
            }
            "to_cloud_event" => match CloudEvent::try_from(&words::message(&command["message"])) {
                Ok(event) => Ok(json!({"cloud_event": words::event_json(&event)})),
                Err(error) => Err(Refused::client(&error)),
            },
            "seal" => seal(&queue, command),
            "open" => open(&queue, command),
            "producer_flush" => self.tell_line(command, Line::Flush).await,
            "producer_close" => self.tell_line(command, Line::Close).await,
            "consume_stop" => self.consume_stop(command).await,
            _ => return None,
        })
    }

    fn consume(&self, command: &Value) -> Value {
        let name = text(command, "consumer");
        let number = |field: &str| command[field].as_u64().and_then(|number| u32::try_from(number).ok());
        let options = Consume {
            concurrency: number("concurrency").unwrap_or(1),
            prefetch: number("prefetch").unwrap_or(0),
            name: name.clone(),
            ..Consume::default()
        };
        let (driver, of_handler) = (self.clone(), name.clone());
        let consumer = self.client.consume(&text(command, "queue"), options, move |delivery| {
            driver.clone().handle(of_handler.clone(), delivery)
        });
        let (ended, is_ended) = tokio::sync::watch::channel(false);
        self.locked().consumers.insert(name.clone(), (consumer.stopper(), is_ended));
        tokio::spawn(watch(name, consumer, ended));
        json!({})
    }

    async fn handle(self, consumer: String, delivery: Delivery) -> Result<(), Outcome> {
        let name = format!("d{}", self.last_delivery.fetch_add(1, Ordering::Relaxed));
        let (finish, finished) = oneshot::channel();
        self.locked().finishes.insert(name.clone(), finish);
        let message = delivery.message.unwrap_or_default();
        let mut event = json!({"event": "handle", "consumer": consumer, "delivery": name});
        event["message"] = words::message_json(&message);
        if let Some(context) = trace::current() {
            event["traceparent"] = context.traceparent.into();
        }
        say(&event);
        let mut dropped = Dropped(Some(name));
        let finish = finished.await.unwrap_or_default();
        dropped.0 = None;
        words::outcome(&finish)
    }

    async fn consume_stop(&self, command: &Value) -> Answer {
        let consumer = self.locked().consumers.get(&text(command, "consumer")).cloned();
        let Some((stopper, mut is_ended)) = consumer else {
            return Err(Refused::client(&"no such consumer"));
        };
        stopper.stop(command.get("grace_ms").map(milliseconds)).await;
        // An error means that its task is gone, which is an end, too.
        let _ = is_ended.wait_for(|ended| *ended).await;
        Ok(json!({}))
    }

    fn producer_open(&self, command: &Value) -> Value {
        let mut options = Produce::default();
        if let Some(most) = command["max_outstanding"].as_u64() {
            options.max_outstanding = u32::try_from(most).unwrap_or(u32::MAX);
        }
        let producer = self.client.producer(&text(command, "queue"), options);
        let (tell, line) = mpsc::channel(LINE);
        self.locked().producers.insert(text(command, "producer"), tell);
        tokio::spawn(produce(producer, line));
        json!({})
    }

    fn producer_send(&self, command: &Value) {
        let line = self.locked().producers.get(&text(command, "producer")).cloned();
        let refused = match line.map(|line| line.try_send(Line::Send(command.clone()))) {
            Some(Ok(())) => return,
            Some(Err(_)) | None => Refused::client(&Error::Closed),
        };
        answer(command, Err(refused));
    }

    async fn tell_line(&self, command: &Value, line: fn(oneshot::Sender<()>) -> Line) -> Answer {
        let producer = self.locked().producers.get(&text(command, "producer")).cloned();
        let (done, is_done) = oneshot::channel();
        if let Some(producer) = producer {
            // A producer that is closed has flushed.
            let _ = producer.send(line(done)).await;
            let _ = is_done.await;
        }
        Ok(json!({}))
    }

    /// Closes beside what else is said; answers `command` then.
    fn closing(&self, command: Option<Value>) -> tokio::task::JoinHandle<()> {
        let driver = self.clone();
        tokio::spawn(async move {
            driver.close().await;
            if let Some(command) = command {
                // Its tasks are the consumers and producers, and those have ended.
                answer(&command, Ok(json!({"leaks": []})));
            }
        })
    }

    async fn close(&self) {
        let (consumers, producers) = {
            let mut state = self.locked();
            (std::mem::take(&mut state.consumers), std::mem::take(&mut state.producers))
        };
        for (stopper, mut is_ended) in consumers.into_values() {
            stopper.stop(None).await;
            let _ = is_ended.wait_for(|ended| *ended).await;
        }
        for producer in producers.into_values() {
            let (done, is_done) = oneshot::channel();
            let _ = producer.send(Line::Close(done)).await;
            let _ = is_done.await;
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics with it")
    }
}

/// Says that a handler was stopped: its future is dropped before it ends.
struct Dropped(Option<String>);

impl Drop for Dropped {
    fn drop(&mut self) {
        if let Some(name) = self.0.take() {
            say(&json!({"event": "cancelled", "delivery": name}));
        }
    }
}

async fn watch(name: String, consumer: Consumer, ended: tokio::sync::watch::Sender<bool>) {
    let mut event = json!({"event": "consumer_ended", "consumer": name});
    if let Err(error) = consumer.wait().await {
        event["error"] = Refused::from(error).json();
    }
    say(&event);
    ended.send_replace(true);
}

async fn produce(producer: Producer, mut line: mpsc::Receiver<Line>) {
    while let Some(next) = line.recv().await {
        match next {
            Line::Send(command) => match producer.send(words::message(&command["message"])).await {
                Ok(confirm) => {
                    say(&json!({"event": "accepted", "call": command["id"]}));
                    tokio::spawn(confirmed(command, confirm));
                }
                Err(error) => answer(&command, Err(error.into())),
            },
            Line::Flush(done) => {
                producer.flush().await;
                let _ = done.send(());
            }
            Line::Close(done) => {
                line.close();
                producer.close().await;
                let _ = done.send(());
                return;
            }
        }
    }
    producer.close().await;
}

async fn confirmed(command: Value, confirm: Confirm) {
    answer(&command, confirm.await.map(|sent| words::sent_json(&sent)).map_err(Refused::from));
}

async fn send(client: &Client, queue: &str, command: &Value) -> Answer {
    let context = command["traceparent"].as_str().map(|traceparent| trace::TraceContext {
        traceparent: traceparent.to_owned(),
        tracestate: String::new(),
    });
    let sent = trace::with(context, client.send(queue, words::message(&command["message"]))).await?;
    Ok(words::sent_json(&sent))
}

async fn send_many(client: &Client, queue: &str, command: &Value) -> Answer {
    let messages: Vec<Message> = list(&command["messages"]).map(words::message).collect();
    let results = if command["atomic"].as_bool() == Some(true) {
        client.send_atomic(queue, messages).await?
    } else {
        client.send_many(queue, messages).await
    };
    Ok(json!({"results": words::each(results, |sent| words::sent_json(&sent))}))
}

async fn receive(client: &Client, queue: &str, command: &Value) -> Answer {
    let mut receive = Receive { consumer: text(command, "consumer"), ..Receive::default() };
    if let Some(most) = command["max_messages"].as_u64() {
        receive.max_messages = u32::try_from(most).unwrap_or(u32::MAX);
    }
    if let Some(wait) = command.get("wait_ms") {
        receive.wait = milliseconds(wait);
    }
    receive.ack_timeout = command.get("ack_timeout_ms").map(milliseconds);
    // The limit of the whole call is said by `timeout_ms`: the wait is within it.
    let deliveries = match command.get("timeout_ms").map(milliseconds) {
        Some(limit) => match tokio::time::timeout(limit, client.receive(queue, receive)).await {
            Ok(deliveries) => deliveries?,
            Err(_) => return Err(Error::TimedOut { limit }.into()),
        },
        None => client.receive(queue, receive).await?,
    };
    Ok(json!({"deliveries": deliveries.iter().map(words::delivery_json).collect::<Vec<_>>()}))
}

async fn settle(client: &Client, queue: &str, command: &Value) -> Answer {
    let settlements = list(&command["settlements"]).map(words::settlement).collect();
    let results = client.settle(queue, settlements).await?;
    Ok(json!({"results": words::each(results, |settled| words::settled_json(&settled))}))
}

async fn extend(client: &Client, queue: &str, command: &Value) -> Answer {
    let held = |receipt: &Value| Delivery { receipt: bytes(receipt).into(), ..Delivery::default() };
    let deliveries: Vec<_> = list(&command["receipts"]).map(held).collect();
    let ack_timeout = command.get("ack_timeout_ms").map(milliseconds);
    let results = client.extend(queue, &deliveries, ack_timeout).await?;
    let shown = |deadline| json!({"ack_deadline_at_ms": words::at_ms(&deadline)});
    Ok(json!({"results": words::each(results, shown)}))
}

async fn commit(client: &Client, command: &Value) -> Answer {
    let settle = |one: &Value| SettleRequest {
        queue: text(one, "queue"),
        settlements: list(&one["settlements"]).map(words::settlement).collect(),
    };
    let send = |one: &Value| SendRequest {
        queue: text(one, "queue"),
        messages: list(&one["messages"]).map(words::message).collect(),
        ..SendRequest::default()
    };
    let request = CommitRequest {
        request_id: text(command, "request_id"),
        settle: list(&command["settle"]).map(settle).collect(),
        send: list(&command["send"]).map(send).collect(),
    };
    let done = client.commit(request).await?;
    let settled = done.settled.iter().map(|one| one.results.iter().map(words::settled_json).collect());
    let stored = |one: &ackwell_client::SendResult| json!({"id": one.id, "duplicate": one.duplicate});
    let stored = done.sent.iter().map(|one| one.results.iter().map(stored).collect());
    Ok(json!({"settled": settled.collect::<Vec<Value>>(), "sent": stored.collect::<Vec<Value>>()}))
}

async fn stats(client: &Client, queue: &str) -> Answer {
    let stats = client.stats(queue).await?;
    Ok(json!({
        "ready": stats.ready,
        "delayed": stats.delayed,
        "in_flight": stats.in_flight,
        "dead": stats.dead,
        "consumers": stats.consumers,
    }))
}

async fn peek(client: &Client, queue: &str, command: &Value) -> Answer {
    let number = |field: &str| u32::try_from(command[field].as_u64().unwrap_or_default()).unwrap_or(u32::MAX);
    let request = ackwell_client::PeekRequest {
        queue: queue.to_owned(),
        limit: number("limit"),
        body_bytes: number("body_bytes"),
        ..ackwell_client::PeekRequest::default()
    };
    let messages = client.peek(request).await?.messages;
    Ok(json!({"messages": messages.iter().map(words::message_json).collect::<Vec<_>>()}))
}

async fn get(client: &Client, queue: &str, command: &Value) -> Answer {
    let message = client.get(queue, &text(command, "message_id")).await?;
    Ok(json!({"message": words::message_json(&message)}))
}

async fn cancel(client: &Client, queue: &str, command: &Value) -> Answer {
    let ids = list(&command["message_ids"]).filter_map(Value::as_str).map(str::to_owned).collect();
    let results = client.cancel(queue, ids).await?;
    Ok(json!({"results": words::each(results, |()| json!({}))}))
}

fn seal(queue: &str, command: &Value) -> Answer {
    let sealed = words::keyring(command)?.seal(queue, words::message(&command["message"]));
    Ok(json!({"message": words::message_json(&sealed.map_err(|error| Refused::client(&error))?)}))
}

fn open(queue: &str, command: &Value) -> Answer {
    let opened = words::keyring(command)?.open(queue, &words::message(&command["message"]));
    Ok(json!({"message": words::message_json(&opened.map_err(|error| Refused::client(&error))?)}))
}

fn answer(command: &Value, result: Answer) {
    match result {
        Ok(ok) => say(&json!({"id": command["id"], "ok": ok})),
        Err(refused) => say(&json!({"id": command["id"], "error": refused.json()})),
    }
}

/// A line as a whole, and at once.
fn say(line: &Value) {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).expect("the runner reads");
}
