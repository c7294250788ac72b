//! Works on deliveries of a stream that is opened again, with what is held, whenever it breaks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ackwell_proto::v1::consume_request::Frame as Say;
use ackwell_proto::v1::consume_response::Frame as Heard;
use ackwell_proto::v1::settlement::Outcome;
use ackwell_proto::v1::{
    Ack, ConsumeRequest, ConsumeResponse, Delivery, Drain, Nack, Open, Release, SettleFrame, SettledFrame,
    Settlement, Window,
};
use ackwell_tests::caller::{Caller, delivered};
use ackwell_tests::dice::Dice;
use ackwell_tests::ledger::{Event, Ledger};
use ackwell_tests::numbered;
use ackwell_tests::processes::QUEUE;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::sender::is_temporary;

const WINDOW: Window = Window { max_messages: 20, max_bytes: 0 };
/// More than there can be settlements and a few frames besides.
const FRAMES: usize = 1024;
const PAUSE: Duration = Duration::from_millis(50);
/// For what is released when the application is told to stop.
const GRACE: Duration = Duration::from_secs(15);

pub(crate) struct Consumer {
    caller: Caller,
    ledger: Arc<Ledger>,
    dice: Dice,
    held: HashMap<Bytes, Job>,
    /// When each is done, and which of the deliveries it is.
    due: BTreeMap<(Instant, u64), Bytes>,
    begun: u64,
    unanswered: HashMap<u64, Bytes>,
    seq: u64,
    is_leaving: bool,
}

struct Job {
    outcome: Outcome,
    is_said: bool,
}

impl Consumer {
    pub(crate) fn new(caller: Caller, ledger: Arc<Ledger>, dice: Dice) -> Self {
        let (held, due, unanswered) = (HashMap::new(), BTreeMap::new(), HashMap::new());
        Self { caller, ledger, dice, held, due, begun: 0, unanswered, seq: 0, is_leaving: false }
    }

    pub(crate) async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        while !*stopping.borrow() {
            if let Err(status) = self.stream(&mut stopping).await
                && !is_temporary(&status)
            {
                self.ledger.note(&Event::Broken { what: format!("consume: {status:?}") });
            }
            sleep(PAUSE).await;
        }
    }

    async fn stream(&mut self, stopping: &mut watch::Receiver<bool>) -> Result<(), Status> {
        let (say, said) = mpsc::channel(FRAMES);
        let held = self.held.keys().map(|receipt| receipt.to_vec()).collect();
        let open = Open { queue: QUEUE.to_owned(), window: Some(WINDOW), held, consumer: "chaos".to_owned() };
        tell(&say, Say::Open(open));
        let mut heard = self.caller.queues.clone().consume(ReceiverStream::new(said)).await?.into_inner();
        self.unanswered.clear();
        let again: Vec<_> =
            self.held.iter().filter(|(_, job)| job.is_said).map(|(receipt, _)| receipt.clone()).collect();
        again.into_iter().for_each(|receipt| self.settle(&say, receipt));
        loop {
            let due = self.due.keys().next().map(|(due, _)| *due);
            tokio::select! {
                frame = heard.message() => {
                    let Some(frame) = frame? else { return Ok(()) };
                    if self.hear(frame).await {
                        return Ok(());
                    }
                }
                () = async { sleep_until(due.expect("there is one")).await }, if due.is_some() => {
                    let (_, receipt) = self.due.pop_first().expect("it was seen");
                    self.settle(&say, receipt);
                }
                _ = stopping.changed() => {
                    _ = timeout(GRACE, self.leave(say, heard)).await;
                    return Ok(());
                }
            }
        }
    }

    /// Whether the other side leaves.
    async fn hear(&mut self, frame: ConsumeResponse) -> bool {
        match frame.frame {
            Some(Heard::Deliveries(deliveries)) => {
                deliveries.deliveries.iter().for_each(|delivery| self.begin(delivery));
            }
            Some(Heard::Settled(settled)) => self.settled(&settled),
            Some(Heard::Revoked(revoked)) => {
                revoked.receipts.iter().for_each(|receipt| self.forget(receipt));
            }
            Some(Heard::GoAway(_)) => return true,
            Some(Heard::Opened(_) | Heard::Extended(_)) | None => {}
        }
        if self.dice.one_in(300) {
            // A slow reader: what comes meanwhile waits.
            sleep(self.dice.millis(100, 1500)).await;
        }
        false
    }

    fn begin(&mut self, delivery: &Delivery) {
        let message = delivered(delivery);
        let Some(number) = numbered::number(&message.body) else {
            return self.ledger.note(&Event::Broken { what: format!("the body of {}", message.id) });
        };
        let (receipt, id) = (hex(&delivery.receipt), message.id.clone());
        let (attempts, deliveries) = (message.attempts, message.deliveries);
        self.ledger.note(&Event::Got { receipt, number, id, attempts, deliveries });
        let outcome = match self.dice.below(100) {
            _ if self.is_leaving => Outcome::Release(Release {}),
            0..85 => Outcome::Ack(Ack {}),
            85..93 => Outcome::Nack(Nack::default()),
            _ => Outcome::Release(Release {}),
        };
        let work = if self.dice.one_in(60) { self.dice.millis(500, 3000) } else { self.dice.millis(1, 40) };
        let work = if self.is_leaving { Duration::ZERO } else { work };
        self.held.insert(delivery.receipt.clone(), Job { outcome, is_said: false });
        self.begun += 1;
        self.due.insert((Instant::now() + work, self.begun), delivery.receipt.clone());
    }

    fn settle(&mut self, say: &mpsc::Sender<ConsumeRequest>, receipt: Bytes) {
        let Some(job) = self.held.get_mut(&receipt) else { return };
        if !job.is_said {
            let outcome = word(&job.outcome).to_owned();
            self.ledger.note(&Event::Settling { receipt: hex(&receipt), outcome });
        }
        job.is_said = true;
        self.seq += 1;
        let settlement = Settlement { receipt: receipt.clone(), outcome: Some(job.outcome.clone()) };
        self.unanswered.insert(self.seq, receipt);
        tell(say, Say::Settle(SettleFrame { seq: self.seq, settlements: vec![settlement] }));
    }

    fn settled(&mut self, settled: &SettledFrame) {
        let Some(receipt) = self.unanswered.remove(&settled.seq) else { return };
        let error = settled.results.first().and_then(|result| result.error.as_ref());
        let answer = error.map_or("OK", |error| error.reason.as_str()).to_owned();
        self.ledger.note(&Event::Settled { receipt: hex(&receipt), answer });
        self.forget(&receipt);
    }

    fn forget(&mut self, receipt: &[u8]) {
        self.held.remove(receipt);
        self.due.retain(|_, due| due != receipt);
    }

    /// Gives back what is not done, and what still comes.
    async fn leave(&mut self, say: mpsc::Sender<ConsumeRequest>, mut heard: Streaming<ConsumeResponse>) {
        self.is_leaving = true;
        tell(&say, Say::Drain(Drain {}));
        let undone: Vec<Bytes> = std::mem::take(&mut self.due).into_values().collect();
        for receipt in undone {
            if let Some(job) = self.held.get_mut(&receipt) {
                job.outcome = Outcome::Release(Release {});
            }
            self.settle(&say, receipt);
        }
        while !self.held.is_empty() {
            let Ok(Some(frame)) = heard.message().await else { return };
            self.hear(frame).await;
            while let Some((_, receipt)) = self.due.pop_first() {
                self.settle(&say, receipt);
            }
        }
        drop(say);
        while let Ok(Some(_)) = heard.message().await {}
    }
}

fn tell(say: &mpsc::Sender<ConsumeRequest>, frame: Say) {
    // A stream that is gone says so where it is read.
    _ = say.try_send(ConsumeRequest { frame: Some(frame) });
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Ack(_) => "ack",
        Outcome::Nack(_) => "nack",
        _ => "release",
    }
}

fn hex(receipt: &[u8]) -> String {
    receipt.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
