//! A real volume that is full: by the broker's own messages up to where senders are refused, and then to the last block by
//! somebody else.
//!
//! On it messages are received, acked, nacked and extended; the broker is killed and starts again; everything is drained. Then
//! messages are stored again without a restart, as they are when somebody else makes room, or the volume grows.

mod applications;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;

use crate::audit;
use crate::body::sized;
use crate::broker::Broker;
use crate::clock::Stopwatch;
use crate::console::say;
use crate::ledger::Ledger;
use crate::volume::Volume;
use applications::Applications;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The program `ackwelld`.
    #[arg(long, value_name = "FILE")]
    ackwelld: PathBuf,
    /// Sizes of the volumes in MiB.
    #[arg(long = "volume-mib", default_values_t = [64, 200])]
    volumes_mib: Vec<u64>,
    /// How often each is filled from outside and drained.
    #[arg(long, default_value_t = 2)]
    rounds: u64,
}

/// Room that is made is found within this.
const LIMIT: Duration = Duration::from_mins(1);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// Written at once by somebody else.
const FILLING: usize = 128 << 10;
/// In its log, each time the broker opens its store anew.
const REOPENED: &str = "the store failed; reopening it";
const SOME: u64 = 300;
const MOST_FILLINGS: u64 = 50;
/// Calls before somebody else begins to fill the volume, too.
const BEFORE_RACE: u64 = 60;

#[tokio::main]
pub(crate) async fn run(options: &Options) -> anyhow::Result<()> {
    for mib in &options.volumes_mib {
        let volume = match Volume::mounted(*mib) {
            Ok(volume) => volume,
            Err(error) => {
                say(format_args!("SKIPPED: no volume can be mounted here: {error:#}"));
                return Ok(());
            }
        };
        let mut test = Test::start(&options.ackwelld, volume, *mib).await?;
        let tortured = test.torture(options.rounds).await;
        tortured.with_context(|| format!("a volume of {mib} MiB\n{}", test.broker.last_words()))?;
    }
    Ok(())
}

struct Test {
    broker: Broker,
    applications: Applications,
    volume: Volume,
    mib: u64,
    _folder: tempfile::TempDir,
}

impl Test {
    async fn start(program: &Path, volume: Volume, mib: u64) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut broker = Broker::prepare(program, folder.path(), &volume.path().join("data"))?;
        broker.start()?;
        broker.wait_ready().await?;
        let applications = Applications { client: broker.client()?, ledger: Ledger::new(body) };
        Ok(Self { broker, applications, volume, mib, _folder: folder })
    }

    async fn torture(&mut self, rounds: u64) -> anyhow::Result<()> {
        for round in 1..=rounds {
            self.fill_and_drain().await.with_context(|| format!("round {round}"))?;
            self.race().await.with_context(|| format!("round {round}, filled while it is sent"))?;
            self.grow().await.with_context(|| format!("round {round}, grown"))?;
            self.applications.drain().await?;
        }
        self.applications.ledger.check_delivered()?;
        self.broker.stop().await?;
        self.broker.start()?;
        self.broker.wait_ready().await?;
        ensure!(
            audit::exactly(&self.applications.client, &self.applications.ledger).await? == 0,
            "it is empty"
        );
        let counts = self.applications.ledger.counts();
        say(format_args!(
            "volume of {} MiB: {} messages confirmed, {} delivered, {} acked; the store was opened anew {} times",
            self.mib,
            counts.confirmed,
            counts.delivered,
            counts.acked,
            self.broker.said(REOPENED),
        ));
        Ok(())
    }

    /// Full to the last block: what makes room works, and makes room.
    async fn fill_and_drain(&mut self) -> anyhow::Result<()> {
        self.applications.fill().await?;
        say(format_args!(
            "volume of {} MiB: senders are refused, {} KiB are free",
            self.mib,
            self.free_kib()?
        ));
        self.applications.consume(SOME).await.context("while senders are refused")?;
        let before = self.broker.said(REOPENED);
        let filler = self.fill_up().await?;
        self.applications.consume(SOME).await.context("on a full volume")?;
        self.applications.return_some().await.context("on a full volume")?;
        self.broker.kill()?;
        self.broker.start()?;
        let took = self.broker.wait_ready().await.context("on a full volume")?;
        audit::exactly(&self.applications.client, &self.applications.ledger).await?;
        self.applications.drain().await.context("on a full volume")?;
        say(format_args!(
            "volume of {} MiB: drained while it was full, {} KiB are free; ready {took:.0?} after a kill",
            self.mib,
            self.free_kib()?
        ));
        let reopened = self.broker.said(REOPENED) - before;
        ensure!(reopened == 0, "the store was opened anew {reopened} times: the reserve was not enough");
        self.is_admitted().await.context("after it was drained")?;
        drop(filler);
        Ok(())
    }

    /// Not a block is left, and none becomes free by a checkpoint that was still being written.
    async fn fill_up(&mut self) -> anyhow::Result<Filler> {
        let mut filler = Filler::begin(self.volume.path())?;
        for _ in 0..MOST_FILLINGS {
            self.applications.fill().await?;
            filler.fill_up()?;
            tokio::time::sleep(LOOK).await;
            if self.free_kib()? == 0 && !self.applications.send(1).await? {
                return Ok(filler);
            }
        }
        bail!("after filling it {MOST_FILLINGS} times {} KiB are free", self.free_kib()?)
    }

    /// Filled to the last block while messages are sent: what is confirmed is there.
    async fn race(&mut self) -> anyhow::Result<()> {
        for _ in 0..BEFORE_RACE {
            self.applications.send_any().await?;
        }
        let path = self.volume.path().to_owned();
        let filling = tokio::task::spawn_blocking(move || {
            let mut filler = Filler::begin(&path)?;
            filler.fill_up().map(|()| filler)
        });
        while !filling.is_finished() {
            self.applications.send_any().await?;
        }
        let filler = filling.await??;
        for _ in 0..20 {
            self.applications.send_any().await?;
        }
        self.applications.consume(SOME).await.context("on a full volume")?;
        audit::exactly(&self.applications.client, &self.applications.ledger).await?;
        drop(filler);
        self.is_admitted().await.context("after somebody else made room")
    }

    async fn grow(&mut self) -> anyhow::Result<()> {
        self.applications.fill().await?;
        if let Err(error) = self.volume.grow(self.mib + self.mib / 2) {
            say(format_args!("SKIPPED: a mounted volume cannot grow here: {error:#}"));
            return Ok(());
        }
        self.mib += self.mib / 2;
        self.is_admitted().await.context("after the volume grew")
    }

    /// Messages are stored again, soon and without a restart.
    async fn is_admitted(&mut self) -> anyhow::Result<()> {
        let since = Stopwatch::start();
        loop {
            match self.applications.send(1).await {
                Ok(true) => return Ok(()),
                Ok(false) if since.elapsed() < LIMIT => tokio::time::sleep(LOOK).await,
                Ok(false) => {
                    bail!("messages are still refused after {LIMIT:?}, {} KiB are free", self.free_kib()?)
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn free_kib(&self) -> anyhow::Result<u64> {
        let volume = rustix::fs::statvfs(self.volume.path())?;
        Ok((volume.f_bavail * volume.f_frsize) >> 10)
    }
}

/// Somebody else's file, removed when it is dropped.
struct Filler {
    path: PathBuf,
    file: File,
}

impl Filler {
    fn begin(folder: &Path) -> anyhow::Result<Self> {
        let path = folder.join("filler");
        Ok(Self { file: File::create(&path).context("make a file that fills the volume")?, path })
    }

    /// Writes until nothing more fits.
    fn fill_up(&mut self) -> anyhow::Result<()> {
        let mut size = FILLING;
        while size > 0 {
            match self.file.write_all(&vec![7; size]) {
                // Not faster than the disk: others write meanwhile.
                Ok(()) => self.file.sync_data().context("fill the volume")?,
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => size /= 2,
                Err(error) => return Err(error).context("fill the volume"),
            }
        }
        self.file.sync_all().context("fill the volume")
    }
}

impl Drop for Filler {
    fn drop(&mut self) {
        // Without it the next look at the volume fails, which says so.
        _ = std::fs::remove_file(&self.path);
    }
}

/// Most have 4 KiB, some 100 KiB.
fn body(number: u64) -> Bytes {
    sized(number, if number.is_multiple_of(10) { 100 << 10 } else { 4 << 10 })
}
