//! Restores a backup, and says whether one is whole.

use std::path::{Path, PathBuf};

use ackwell_engine::slots::{Slot, jump};
use ackwell_proto::v1::{BeginRestoreRequest, KeptMessage, KeptPage, RestorePageRequest};
use futures::future::try_join_all;

use super::calls::{Client, Link};
use super::file::Reader;
use super::manifest::{Manifest, Shard};
use super::{Fault, Reach, Report};

/// Neighbours without an ordering key that stay together. Like all that decides where a message goes it never changes: another
/// version may have restored the half of a page.
const NEIGHBOURS: u64 = 64;
/// More stretches of neighbours than a shard has.
const MAX_STRETCHES: u64 = 1 << 48;

/// A backup to be restored.
pub struct Restore {
    /// Into which queue: of any number of shards, and of any name.
    pub reach: Reach,
    /// Where the backup is.
    pub folder: PathBuf,
}

/// Reads all of a backup; the error says what is wrong with it.
pub fn verify(folder: &Path) -> Result<Manifest, Fault> {
    let manifest = Manifest::read(folder)?;
    let mut messages = 0;
    for shard in &manifest.shards {
        messages += verify_shard(shard, folder)?;
    }
    if messages == manifest.messages {
        Ok(manifest)
    } else {
        Err(Fault::damaged(
            folder,
            format!("it has {messages} messages, and its manifest says {}", manifest.messages),
        ))
    }
}

fn verify_shard(shard: &Shard, folder: &Path) -> Result<u64, Fault> {
    let path = shard.path(folder);
    let mut reader = Reader::open(path.clone(), shard.sum())?;
    // No store has a place 0, which would be no number of a page.
    let (mut messages, mut dedup_ids, mut from) = (0, 0, shard.first.max(1));
    while let Some(page) = reader.next()? {
        for message in &page.messages {
            if !(from..shard.end).contains(&message.place) {
                return Err(Fault::damaged(&path, format!("place {} is out of line", message.place)));
            }
            from = message.place + 1;
        }
        messages += page.messages.len() as u64;
        dedup_ids += page.dedup_ids.len() as u64;
    }
    if (messages, dedup_ids) == (shard.messages, shard.dedup_ids) {
        Ok(messages)
    } else {
        Err(Fault::damaged(&path, format!("it has {messages} messages and {dedup_ids} dedup ids")))
    }
}

impl Restore {
    /// Restores it; what is there already is left as it is.
    pub async fn run(&self) -> Result<Report, Fault> {
        // Before any shard hears of it: half a queue is worse than none.
        let manifest = verify(&self.folder)?;
        let targets = self.begin(&manifest).await?;
        for (shard, source) in manifest.shards.iter().zip(0..) {
            self.import(shard, source, &targets).await?;
            tracing::info!(shard = shard.ordinal, messages = shard.messages, "stored");
        }
        Ok(Report::done(&manifest))
    }

    async fn begin(&self, manifest: &Manifest) -> Result<Vec<Target>, Fault> {
        let links = self.reach.links()?;
        let shards = u32::try_from(links.len()).unwrap_or(u32::MAX);
        let sources = manifest.shards.iter().map(Shard::snapshot).collect();
        let request = BeginRestoreRequest { queue: self.reach.queue.clone(), shards, sources };
        let mut targets = Vec::new();
        for link in links {
            let ask = async |mut client: Client| client.begin_restore(request.clone()).await;
            let transfers = link.ask(ask).await?.transfers;
            targets.push(Target { link, transfers });
        }
        Ok(targets)
    }

    /// Of each page a shard gets what is its own; the number of that is the place of its last message, so that a shard that has a
    /// number has all messages up to that place, however they were divided into pages.
    async fn import(&self, shard: &Shard, source: u32, targets: &[Target]) -> Result<(), Fault> {
        let mut reader = Reader::open(shard.path(&self.folder), shard.sum())?;
        while let Some(page) = reader.next()? {
            let parts = targets.iter().zip(split(page, source, targets.len()));
            let sent = parts.map(|(target, page)| async move {
                let page = target.lacks(source, page);
                if page == KeptPage::default() {
                    return Ok(());
                }
                let transfer = page.messages.last().map_or(0, |last| last.place);
                let queue = self.reach.queue.clone();
                let request = RestorePageRequest { queue, source, transfer, page: Some(page) };
                let ask = async |mut client: Client| client.restore_page(request.clone()).await;
                target.link.ask(ask).await.map(drop)
            });
            try_join_all(sent).await?;
        }
        Ok(())
    }
}

/// A shard, and up to which places it had each source.
struct Target {
    link: Link,
    transfers: Vec<u64>,
}

impl Target {
    /// Dedup ids are not numbered: to know one again changes nothing.
    fn lacks(&self, source: u32, mut page: KeptPage) -> KeptPage {
        let had = self.transfers.get(source as usize).copied().unwrap_or(0);
        page.messages.retain(|message| message.place > had);
        page
    }
}

/// What each shard gets of a page. Dedup ids all of them, since it is not known of which message they are.
fn split(page: KeptPage, source: u32, shards: usize) -> Vec<KeptPage> {
    let KeptPage { messages, dedup_ids } = page;
    let mut parts = vec![KeptPage { messages: Vec::new(), dedup_ids }; shards];
    for message in messages {
        parts[home(&message, source, shards)].messages.push(message);
    }
    parts
}

/// Where senders send what has such a key.
fn home(message: &KeptMessage, source: u32, shards: usize) -> usize {
    let shards = u32::try_from(shards).unwrap_or(u32::MAX);
    let home = match message.ordering_key.as_str() {
        "" => jump(u64::from(source) * MAX_STRETCHES + message.place / NEIGHBOURS, shards),
        key => Slot::of(key).shard(shards),
    };
    home as usize
}
