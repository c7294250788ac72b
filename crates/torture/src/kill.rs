//! SIGKILL, a thousand times: while it starts, recovers, serves and writes checkpoints.
//!
//! After each restart the counts must fit the ledger, now and then every message is compared with nobody else at work, and at
//! the end the queue is drained. When a kill comes is chance; where in the broker's work that is differs from run to run.

mod consumers;
mod senders;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ackwell_client::{Client, RedriveRequest};
use anyhow::{Context, ensure};
use tokio::sync::{RwLock, watch};
use tokio::task::JoinSet;

use crate::audit;
use crate::body::body;
use crate::broker::{Broker, QUEUE};
use crate::clock::{Stopwatch, percentile};
use crate::console::say;
use crate::dice::Dice;
use crate::ledger::Ledger;
use crate::volume::{self, Volume};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The program `ackwelld`.
    #[arg(long, value_name = "FILE")]
    ackwelld: PathBuf,
    /// Kill so often.
    #[arg(long, default_value_t = 1000)]
    kills: u64,
    /// When to kill; chance decides over it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Put the store on a volume of so many MiB: the smaller, the more segments and checkpoints. 0, or where no volume can be
    /// mounted: in the temporary folder.
    #[arg(long, default_value_t = 128)]
    volume_mib: u64,
}

/// Compare every message after so many kills.
const AUDIT_EVERY: u64 = 25;
/// Callers hold back while so many messages wait, so that comparing them stays short.
const MOST_WAITING: u64 = 3000;
/// One kill in so many comes while the broker starts.
const IN_START_ONCE_IN: u64 = 3;
/// It comes at most so long after the start of the process, or after it was ready.
const START_MS: u64 = 60;
const SERVING_MS: u64 = 250;
/// Everything is drained within this, deliveries that nobody settled included.
const DRAIN_LIMIT: Duration = Duration::from_mins(1);
/// Between two looks at whether it is.
const LOOK: Duration = Duration::from_millis(50);

/// What the callers share.
pub(crate) struct Shared {
    pub(crate) ledger: Ledger,
    /// Held by callers while they work, alone by whoever compares.
    pub(crate) at_work: RwLock<()>,
    /// Senders stop.
    is_ending: watch::Sender<bool>,
}

impl Shared {
    /// Whether senders go on.
    pub(crate) fn goes_on(&self) -> bool {
        !*self.is_ending.borrow()
    }

    /// Whether there is enough to do already.
    pub(crate) fn is_behind(&self) -> bool {
        let counts = self.ledger.counts();
        counts.confirmed.saturating_sub(counts.acked) > MOST_WAITING
    }
}

struct Run {
    broker: Broker,
    client: Client,
    dice: Dice,
    shared: Arc<Shared>,
    callers: JoinSet<anyhow::Result<()>>,
    restarts: Vec<Duration>,
    killed_in_start: u64,
}

#[tokio::main]
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let volume = volume::mounted_or_not(options.volume_mib);
    let data = volume.as_ref().map_or(folder.path(), Volume::path).join("data");
    let mut broker = Broker::prepare(&options.ackwelld, folder.path(), &data)?;
    broker.start()?;
    broker.wait_ready().await?;
    let client = broker.client()?;
    let shared = Shared {
        ledger: Ledger::new(body),
        at_work: RwLock::default(),
        is_ending: watch::Sender::new(false),
    };
    let mut run = Run {
        broker,
        client,
        dice: Dice::new(options.seed),
        shared: Arc::new(shared),
        callers: JoinSet::new(),
        restarts: Vec::new(),
        killed_in_start: 0,
    };
    senders::spawn(&mut run.callers, &run.broker, &run.shared)?;
    consumers::spawn(&mut run.callers, &run.broker, &run.shared)?;
    let since = Stopwatch::start();
    for kill in 1..=options.kills {
        run.kill().await.with_context(|| format!("kill {kill}"))?;
        if kill % AUDIT_EVERY == 0 {
            run.audit().await.with_context(|| format!("after kill {kill}"))?;
        }
        if kill % 100 == 0 {
            run.tell(kill, since.elapsed());
        }
    }
    run.drain().await?;
    run.tell(options.kills, since.elapsed());
    run.broker.stop().await?;
    say(segments(&data)?);
    Ok(())
}

impl Run {
    async fn kill(&mut self) -> anyhow::Result<()> {
        let after = self.dice.below(SERVING_MS);
        self.pass(after).await?;
        self.broker.kill()?;
        self.broker.start()?;
        while self.dice.one_in(IN_START_ONCE_IN) {
            self.killed_in_start += 1;
            let after = self.dice.below(START_MS);
            self.pass(after).await?;
            self.broker.kill()?;
            self.broker.start()?;
        }
        self.restarts.push(self.broker.wait_ready().await?);
        audit::roughly(&self.client, &self.shared.ledger).await
    }

    /// Waits, unless a caller ends, which none does but for a broken promise.
    async fn pass(&mut self, ms: u64) -> anyhow::Result<()> {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(ms)) => Ok(()),
            Some(ended) = self.callers.join_next() => ended.context("a caller panicked")?.context("a caller"),
        }
    }

    async fn audit(&mut self) -> anyhow::Result<()> {
        let shared = Arc::clone(&self.shared);
        let _alone = shared.at_work.write().await;
        audit::exactly(&self.client, &shared.ledger).await?;
        Ok(())
    }

    /// Lets consumers take all that is left.
    async fn drain(&mut self) -> anyhow::Result<()> {
        self.shared.is_ending.send_replace(true);
        let since = Stopwatch::start();
        loop {
            let redrive = RedriveRequest { queue: QUEUE.to_owned(), ..RedriveRequest::default() };
            self.client.redrive(redrive).await?;
            let left = audit::stored(&self.client).await?;
            if left == 0 {
                break;
            }
            ensure!(since.elapsed() < DRAIN_LIMIT, "{left} messages are left after {DRAIN_LIMIT:?}");
            tokio::time::sleep(LOOK).await;
        }
        let alone = self.shared.at_work.write().await;
        self.shared.ledger.check_delivered()?;
        drop(alone);
        while let Some(ended) = self.callers.try_join_next() {
            ended.context("a caller panicked")?.context("a caller")?;
        }
        Ok(())
    }

    fn tell(&mut self, kills: u64, took: Duration) {
        let counts = self.shared.ledger.counts();
        let [half, most, all] = [50, 95, 100].map(|percent| percentile(&mut self.restarts, percent));
        let kills = kills + self.killed_in_start;
        say(format_args!(
            "{kills} kills ({} while it started) in {:.0} s: {:.1} a second; {} sends tried, {} confirmed, {} delivered, \
             {} acks confirmed; ready after {half:.0?}, 95 % {most:.0?}, all {all:.0?}",
            self.killed_in_start,
            took.as_secs_f64(),
            f64::from(u32::try_from(kills).unwrap_or(u32::MAX)) / took.as_secs_f64(),
            counts.tried,
            counts.confirmed,
            counts.delivered,
            counts.acked,
        ));
    }
}

/// How many segments there were, as their names tell: each that is gone was let go by a checkpoint.
fn segments(data: &std::path::Path) -> anyhow::Result<String> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(data)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        let digits = name.strip_suffix(".log").unwrap_or_default();
        numbers.extend(u64::from_str_radix(digits, 16));
    }
    let begun = numbers.iter().max().copied().unwrap_or_default();
    let gone = begun.saturating_sub(numbers.len() as u64);
    Ok(format!("{begun} segments of the log were begun, checkpoints have let go of {gone}"))
}
