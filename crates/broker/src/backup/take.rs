//! Makes a backup.

use std::io;
use std::path::PathBuf;

use ackwell_proto::timestamp;
use ackwell_proto::v1::read_snapshot_request::From;
use ackwell_proto::v1::read_snapshot_response::Next;
use ackwell_proto::v1::{BeginSnapshotRequest, KeptPage, ReadSnapshotRequest, Snapshot};
use uuid::Uuid;

use super::calls::{Client, Link};
use super::file::{FORMAT, Writer};
use super::manifest::{Manifest, NAME, OWNER, SHARD_PREFIX, Shard, publish};
use super::{Fault, Reach, Report};
use crate::clock;

/// A backup to be made.
pub struct Take {
    /// Of which queue.
    pub reach: Reach,
    /// Uid of who ordered it: for the same it is made once.
    pub task: String,
    /// Where to. Made when missing.
    pub folder: PathBuf,
}

impl Take {
    /// Makes it; at once done when it is there.
    pub async fn run(&self) -> Result<Report, Fault> {
        if let Some(report) = self.report_of_before()? {
            return Ok(report);
        }
        std::fs::create_dir_all(&self.folder).map_err(Fault::folder("make", &self.folder))?;
        self.claim()?;
        self.remove_leftovers()?;
        let manifest = self.read_all().await?;
        // Another pod of this task may have been faster, and has taken files away that it did not know.
        if let Some(report) = self.report_of_before()? {
            return Ok(report);
        }
        manifest.assert_files(&self.folder)?;
        manifest.write(&self.folder)?;
        Ok(Report::done(&manifest))
    }

    /// What is there, if it is whole and of this task.
    fn report_of_before(&self) -> Result<Option<Report>, Fault> {
        match Manifest::read(&self.folder) {
            Ok(manifest) if manifest.task == self.task && manifest.assert_files(&self.folder).is_ok() => {
                Ok(Some(Report::done(&manifest)))
            }
            // Two pods of this task were in each other's way.
            Ok(manifest) if manifest.task == self.task => {
                let path = self.folder.join(NAME);
                std::fs::remove_file(&path).map_err(Fault::folder("remove", &path))?;
                Ok(None)
            }
            Ok(Manifest { task, .. }) => Err(Fault::Occupied { folder: self.folder.clone(), task }),
            Err(Fault::Missing(_) | Fault::Unfinished(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Makes the folder this task's. Tasks of other Queues may have been given the same.
    fn claim(&self) -> Result<(), Fault> {
        let path = self.folder.join(OWNER);
        match publish(&path, self.task.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let task = std::fs::read_to_string(&path).map_err(Fault::folder("read", &path))?;
                let is_ours = task == self.task;
                if is_ours { Ok(()) } else { Err(Fault::Occupied { folder: self.folder.clone(), task }) }
            }
            written => written.map_err(Fault::folder("write", &path)),
        }
    }

    /// Of a program of this task that was killed. What others have there is left alone.
    fn remove_leftovers(&self) -> Result<(), Fault> {
        let files = std::fs::read_dir(&self.folder).map_err(Fault::folder("read", &self.folder))?;
        for entry in files.filter_map(Result::ok) {
            let is_ours = |name: &str| name.starts_with(SHARD_PREFIX) && name.contains(&self.mark());
            if entry.file_name().to_str().is_some_and(is_ours) {
                std::fs::remove_file(entry.path()).map_err(Fault::folder("remove", &entry.path()))?;
            }
        }
        Ok(())
    }

    /// In the names of files of this task.
    pub(super) fn mark(&self) -> String {
        format!("-{:08x}-", crc32c::crc32c(self.task.as_bytes()))
    }

    async fn read_all(&self) -> Result<Manifest, Fault> {
        let links = self.reach.links()?;
        let mut snapshots = Vec::new();
        for link in &links {
            let request = BeginSnapshotRequest { queue: self.reach.queue.clone() };
            let ask = async |mut client: Client| client.begin_snapshot(request.clone()).await;
            snapshots.push(link.ask(ask).await?);
        }
        let began = now();
        let mut shards = Vec::new();
        for (link, snapshot) in links.iter().zip(snapshots) {
            shards.push(self.read_shard(link, snapshot).await?);
        }
        Ok(Manifest {
            format: FORMAT,
            queue: self.reach.queue.clone(),
            task: self.task.clone(),
            began,
            ended: now(),
            messages: shards.iter().map(|shard| shard.messages).sum(),
            shards,
        })
    }

    async fn read_shard(&self, link: &Link, snapshot: Snapshot) -> Result<Shard, Fault> {
        // Who was cut off from the cluster may still be writing, under other names.
        let name =
            format!("{SHARD_PREFIX}{}{}{:08x}", link.ordinal, self.mark(), Uuid::new_v4().as_fields().0);
        let mut writer = Writer::create(self.folder.join(format!("{name}.partial")))?;
        let mut shard = Shard { ordinal: link.ordinal, ..Shard::new(snapshot.clone(), name) };
        for first in [From::DedupId(String::new()), From::Place(snapshot.first)] {
            let mut from = Some(first);
            while let Some(at) = from {
                let (page, next) = self.read_page(link, &snapshot, (at, shard.messages)).await?;
                shard.messages += page.messages.len() as u64;
                shard.dedup_ids += page.dedup_ids.len() as u64;
                if !page.messages.is_empty() || !page.dedup_ids.is_empty() {
                    writer.write(&page)?;
                }
                from = next;
            }
        }
        let sum = writer.finish(&shard.path(&self.folder))?;
        tracing::info!(shard = shard.ordinal, messages = shard.messages, bytes = sum.bytes, "read");
        Ok(Shard { bytes: sum.bytes, crc32c: sum.crc, ..shard })
    }

    /// After a page the shard serves others for as long as that took.
    async fn read_page(
        &self,
        link: &Link,
        snapshot: &Snapshot,
        (from, processed): (From, u64),
    ) -> Result<(KeptPage, Option<From>), Fault> {
        let request = ReadSnapshotRequest {
            queue: self.reach.queue.clone(),
            salt: snapshot.salt,
            placement: snapshot.placement,
            end: snapshot.end,
            task: self.task.clone(),
            processed,
            total: snapshot.messages,
            from: Some(from),
        };
        let started = clock::stopwatch();
        let ask = async |mut client: Client| client.read_snapshot(request.clone()).await;
        let answer = link.ask(ask).await?;
        tokio::time::sleep(started.elapsed()).await;
        let next = answer.next.map(|next| match next {
            Next::Place(place) => From::Place(place),
            Next::DedupId(id) => From::DedupId(id),
        });
        Ok((answer.page.unwrap_or_default(), next))
    }
}

fn now() -> String {
    timestamp(clock::now().0).to_string()
}
