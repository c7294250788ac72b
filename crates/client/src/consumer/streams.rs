//! The task of a consumer: streams one after the other, and the handlers beside them.

use std::collections::HashMap;
use std::time::Duration;

use ackwell_proto::v1::queues_client::QueuesClient;
use ackwell_proto::v1::{ConsumeRequest, ConsumeResponse, Delivery, consume_response};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Command, Consume};
use crate::Error;
use crate::error::is_permanent;
use crate::outcome::{Outcome, settlement};
use crate::pauses::Pauses;
use crate::session::{Receipt, Session};
use crate::token::Connection;
use crate::trace;

/// Frames on their way to the transport: enough to keep it busy.
const OUTGOING_FRAMES: usize = 4;
/// How long the other side may take to end a stream that we ended.
const CLOSING: Duration = Duration::from_secs(5);

pub(super) struct Streams<H> {
    queues: QueuesClient<Connection>,
    session: Session,
    options: Consume,
    commands: mpsc::Receiver<Command>,
    handler: H,
    handlers: JoinSet<Result<(), Outcome>>,
    running: HashMap<Receipt, AbortHandle>,
    receipts: HashMap<Id, Receipt>,
    /// When handlers are stopped; once we drain.
    grace: Option<Instant>,
    gave_up: bool,
    again: Vec<Receipt>,
    again_at: Option<Instant>,
    pauses: Pauses,
}

/// Our side of one stream.
struct Stream {
    /// Gone once our side is closed.
    frames: Option<mpsc::Sender<ConsumeRequest>>,
    told: Streaming<ConsumeResponse>,
    /// Until when the other side may go on.
    closing: Option<Instant>,
}

enum Event {
    Told(Result<Option<ConsumeResponse>, Status>),
    Room,
    Ended(Result<(Id, Result<(), Outcome>), JoinError>),
    Command(Option<Command>),
    GraceIsOver,
    SayAgain,
    ClosingIsOver,
}

impl<H, F> Streams<H>
where
    H: Fn(Delivery) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), Outcome>> + Send + 'static,
{
    pub(super) fn new(
        queues: QueuesClient<Connection>,
        session: Session,
        options: Consume,
        commands: mpsc::Receiver<Command>,
        handler: H,
    ) -> Self {
        Self {
            queues,
            session,
            options,
            commands,
            handler,
            handlers: JoinSet::new(),
            running: HashMap::new(),
            receipts: HashMap::new(),
            grace: None,
            gave_up: false,
            again: Vec::new(),
            again_at: None,
            pauses: Pauses::new(),
        }
    }

    /// Until everything is drained, or the queue cannot be consumed.
    pub(super) async fn run(mut self) -> Result<(), Error> {
        while !self.is_done() {
            match self.stream().await {
                Err(status) if is_permanent(&status) && !self.gave_up => return Err(status.into()),
                // What is temporary is over with the next stream.
                Ok(()) | Err(_) => (),
            }
            self.pause().await;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.gave_up || self.session.is_done()
    }

    /// Lives as long as one stream; `Ok` when both sides ended it.
    async fn stream(&mut self) -> Result<(), Status> {
        let Some(mut stream) = self.open().await? else { return Ok(()) };
        loop {
            self.begin_handlers();
            if self.session.is_over() && stream.frames.take().is_some() {
                stream.closing.get_or_insert_with(|| Instant::now() + CLOSING);
            }
            match self.next_event(Some(&mut stream)).await {
                Event::Told(told) => match told? {
                    Some(response) => self.take(response),
                    None => return Ok(()),
                },
                Event::Room => self.say(&mut stream).await,
                Event::ClosingIsOver => return Ok(()),
                Event::GraceIsOver => {
                    self.give_up();
                    stream.closing.get_or_insert_with(|| Instant::now() + CLOSING);
                }
                event => self.on_event(event),
            }
        }
    }

    /// Opens a stream; `None` when we gave up meanwhile.
    async fn open(&mut self) -> Result<Option<Stream>, Status> {
        let (frames, requests) = mpsc::channel(OUTGOING_FRAMES);
        frames.try_send(self.session.open()).expect("the channel is empty");
        let mut queues = self.queues.clone();
        let mut opening = Box::pin(async move { queues.consume(ReceiverStream::new(requests)).await });
        loop {
            tokio::select! {
                opened = &mut opening => {
                    let told = opened?.into_inner();
                    return Ok(Some(Stream { frames: Some(frames), told, closing: None }));
                }
                event = self.next_event(None) => self.on_event(event),
            }
            if self.is_done() {
                return Ok(None);
            }
        }
    }

    /// Between two streams.
    async fn pause(&mut self) {
        let until = Instant::now() + self.pauses.next();
        while !self.is_done() {
            tokio::select! {
                () = sleep_until(until) => return,
                event = self.next_event(None) => self.on_event(event),
            }
        }
    }

    async fn next_event(&mut self, stream: Option<&mut Stream>) -> Event {
        let (told, frames, closing) = match stream {
            Some(stream) => (Some(&mut stream.told), stream.frames.as_ref(), stream.closing),
            None => (None, None, None),
        };
        let has_frame = self.session.has_frame();
        tokio::select! {
            told = async { told.expect("the branch needs a stream").message().await }, if told.is_some() => {
                Event::Told(told)
            }
            _ = async { frames.expect("the branch needs a side").reserve().await }, if has_frame && frames.is_some() => {
                Event::Room
            }
            Some(ended) = self.handlers.join_next_with_id() => Event::Ended(ended),
            command = self.commands.recv(), if self.grace.is_none() || !self.commands.is_closed() => {
                Event::Command(command)
            }
            () = at(self.grace), if !self.gave_up => Event::GraceIsOver,
            () = at(self.again_at) => Event::SayAgain,
            () = at(closing) => Event::ClosingIsOver,
        }
    }

    /// What happens with a stream and without.
    fn on_event(&mut self, event: Event) {
        match event {
            Event::Ended(ended) => self.on_ended(ended),
            Event::Command(command) => self.drain(command.as_ref()),
            Event::GraceIsOver => self.give_up(),
            Event::SayAgain => {
                self.again_at = None;
                let receipts = std::mem::take(&mut self.again);
                self.session.say_again(receipts);
            }
            Event::Told(_) | Event::Room | Event::ClosingIsOver => (),
        }
    }

    fn take(&mut self, response: ConsumeResponse) {
        let Some(frame) = response.frame else { return };
        if matches!(frame, consume_response::Frame::Opened(_)) {
            self.pauses.reset();
        }
        let effects = self.session.take(frame);
        for receipt in effects.revoked {
            self.stop_handler(&receipt);
        }
        if !effects.again.is_empty() {
            self.again.extend(effects.again);
            self.again_at = Some(Instant::now() + effects.again_after);
        }
    }

    async fn say(&mut self, stream: &mut Stream) {
        if let (Some(frames), Some(frame)) = (&stream.frames, self.session.next_frame()) {
            // A stream that is gone says so where it is read.
            let _ = frames.send(frame).await;
        }
    }

    fn begin_handlers(&mut self) {
        while self.running.len() < self.options.concurrency.max(1) as usize {
            let Some(delivery) = self.session.begin() else { return };
            let receipt = delivery.receipt.to_vec();
            let context = trace::of_message(delivery.message.as_ref());
            let handling = trace::with(context, (self.handler)(delivery));
            let task = self.handlers.spawn(handling);
            self.receipts.insert(task.id(), receipt.clone());
            self.running.insert(receipt, task);
        }
    }

    fn on_ended(&mut self, ended: Result<(Id, Result<(), Outcome>), JoinError>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            Err(error) if error.is_cancelled() => (error.id(), Err(Outcome::Release)),
            Err(error) => (error.id(), Err(Outcome::Failed("the handler panicked".to_owned()))),
        };
        if let Some(receipt) = self.receipts.remove(&id) {
            self.running.remove(&receipt);
            self.session.settle(&receipt, |delivery| settlement(delivery, outcome));
        }
    }

    fn stop_handler(&mut self, receipt: &Receipt) {
        if let Some(task) = self.running.get(receipt) {
            task.abort();
        }
    }

    /// Without a command nobody is left who could stop us: that is a stop, too.
    fn drain(&mut self, command: Option<&Command>) {
        let grace = match command {
            Some(Command::Stop(Some(grace))) => *grace,
            Some(Command::Stop(None)) | None => self.options.grace,
        };
        self.session.drain();
        self.grace = Some(Instant::now() + grace);
    }

    /// Handlers are stopped, and what they hold is given back.
    fn give_up(&mut self) {
        self.session.give_up();
        self.gave_up = true;
        self.handlers.abort_all();
    }
}

/// Waits until then; for ever, without a time.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
