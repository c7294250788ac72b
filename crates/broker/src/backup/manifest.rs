//! What says that a backup is whole: it is written last, and names every file with its checksum.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ackwell_proto::v1;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Fault;
use super::file::{FORMAT, Sum};

/// Its file.
pub(super) const NAME: &str = "manifest.json";
/// Has the uid of the task that may write into the folder.
pub(super) const OWNER: &str = "owner";
/// Before the checksum, in the last line.
const CHECKSUM: &str = "crc32c ";
/// So begin the names of files of shards.
pub(super) const SHARD_PREFIX: &str = "shard-";
/// Of 64 shards with hundreds of stretches each.
const MAX_BYTES: u64 = 16 << 20;

/// A backup, as its manifest has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Of manifest and files.
    pub format: u32,
    /// `namespace/name`.
    pub queue: String,
    /// Uid of the task that made it.
    pub task: String,
    /// When every shard had been asked what it has.
    pub began: String,
    /// When everything was read.
    pub ended: String,
    /// In all shards.
    pub messages: u64,
    /// By ordinal.
    pub shards: Vec<Shard>,
}

/// One shard, and its file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shard {
    /// Which.
    pub ordinal: u32,
    /// Of its store.
    pub salt: u32,
    /// Places of its messages: from this one,
    pub first: u64,
    /// to before this one.
    pub end: u64,
    /// What of these came from other stores.
    pub origins: Vec<Origin>,
    /// Its file.
    pub file: String,
    /// Size of that.
    pub bytes: u64,
    /// And checksum.
    pub crc32c: u32,
    /// Messages in it.
    pub messages: u64,
    /// Dedup ids in it.
    pub dedup_ids: u64,
}

/// A stretch of places whose messages were stored elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    at: u64,
    places: u64,
    salt: u32,
    first: u64,
}

impl Manifest {
    /// Size of all files of shards.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// Refuses a backup whose files are not there, or not as long as they were. What is in them is not looked at.
    pub(super) fn assert_files(&self, folder: &Path) -> Result<(), Fault> {
        for shard in &self.shards {
            let path = shard.path(folder);
            let bytes = std::fs::metadata(&path).map_err(Fault::folder("find", &path))?.len();
            if bytes != shard.bytes {
                return Err(Fault::damaged(&path, format!("it has {bytes} bytes, and had {}", shard.bytes)));
            }
        }
        Ok(())
    }

    /// Makes the backup one that is whole. What is whole is never written over.
    pub(super) fn write(&self, folder: &Path) -> Result<(), Fault> {
        let path = folder.join(NAME);
        let mut text = serde_json::to_string_pretty(self)
            .map_err(io::Error::other)
            .map_err(Fault::folder("write", &path))?;
        text.push('\n');
        let sum = crc32c::crc32c(text.as_bytes());
        text.extend([CHECKSUM, &format!("{sum:08x}"), "\n"]);
        sync(folder).and_then(|()| publish(&path, text.as_bytes())).map_err(Fault::folder("write", &path))
    }

    /// What says that there is a whole backup in the folder; its files are not looked at.
    pub(super) fn read(folder: &Path) -> Result<Self, Fault> {
        let path = folder.join(NAME);
        let len = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(absent(folder)?),
            Err(error) => return Err(Fault::folder("read", &path)(error)),
        };
        if len > MAX_BYTES {
            return Err(Fault::damaged(&path, format!("it has over {MAX_BYTES} bytes")));
        }
        let text = std::fs::read(&path).map_err(Fault::folder("read", &path))?;
        Self::parse(&text, &path)
    }

    fn parse(text: &[u8], path: &Path) -> Result<Self, Fault> {
        let damaged = |why: &str| Fault::damaged(path, why);
        let text = str::from_utf8(text).map_err(|_| damaged("it is no text"))?;
        let mut values = serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>();
        let value = values.next().and_then(Result::ok).ok_or_else(|| damaged("it is no JSON"))?;
        let body = text.get(..=values.byte_offset()).unwrap_or_default();
        let sum = text.get(body.len()..).and_then(|end| end.strip_prefix(CHECKSUM)).map(str::trim_end);
        match value["format"].as_u64() {
            Some(found) if found > FORMAT.into() => return Err(Fault::TooNew { found }),
            Some(_) => {}
            None => return Err(damaged("it says no format")),
        }
        if sum.and_then(|sum| u32::from_str_radix(sum, 16).ok()) != Some(crc32c::crc32c(body.as_bytes())) {
            return Err(damaged("its checksum is wrong"));
        }
        let manifest: Self = serde_json::from_value(value).map_err(|error| damaged(&error.to_string()))?;
        let is_named = |shard: &Shard| shard.file.starts_with(SHARD_PREFIX) && !shard.file.contains('/');
        if manifest.shards.iter().all(is_named) { Ok(manifest) } else { Err(damaged("it names odd files")) }
    }
}

/// Whether there is a backup in the folder, whole or not.
pub fn is_in(folder: &Path) -> bool {
    folder.join(NAME).exists() || matches!(absent(folder), Ok(Fault::Unfinished(_)))
}

/// Why there is no manifest.
fn absent(folder: &Path) -> Result<Fault, Fault> {
    let files = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Fault::Missing(folder.to_owned()));
        }
        files => files.map_err(Fault::folder("read", folder))?,
    };
    let is_of_backup = |name: &str| name.starts_with(SHARD_PREFIX) || name == OWNER;
    let begun =
        files.filter_map(Result::ok).any(|entry| entry.file_name().to_str().is_some_and(is_of_backup));
    Ok(if begun { Fault::Unfinished(folder.to_owned()) } else { Fault::Missing(folder.to_owned()) })
}

/// Writes a file whole, or not at all where there is one of this name.
pub(super) fn publish(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension(format!("{:08x}.partial", Uuid::new_v4().as_fields().0));
    let mut file = File::create_new(&partial)?;
    file.write_all(content).and_then(|()| file.sync_all())?;
    let linked = match std::fs::hard_link(&partial, path) {
        // Some file systems have no links.
        Err(error) if NO_LINKS.contains(&error.kind()) && !path.exists() => std::fs::rename(&partial, path),
        linked => std::fs::remove_file(&partial).and(linked),
    };
    linked?;
    sync(path.parent().unwrap_or(path))
}

const NO_LINKS: [io::ErrorKind; 2] = [io::ErrorKind::Unsupported, io::ErrorKind::PermissionDenied];

/// Makes the names in a folder last.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all())
}

impl Shard {
    pub(super) fn new(snapshot: v1::Snapshot, file: String) -> Self {
        let v1::Snapshot { ordinal, salt, first, end, origins, .. } = snapshot;
        let origin = |v1::Origin { at, places, salt, first }: v1::Origin| Origin { at, places, salt, first };
        let origins = origins.into_iter().map(origin).collect();
        Self { ordinal, salt, first, end, origins, file, bytes: 0, crc32c: 0, messages: 0, dedup_ids: 0 }
    }

    pub(super) fn snapshot(&self) -> v1::Snapshot {
        let origin = |&Origin { at, places, salt, first }: &Origin| v1::Origin { at, places, salt, first };
        v1::Snapshot {
            ordinal: self.ordinal,
            salt: self.salt,
            first: self.first,
            end: self.end,
            origins: self.origins.iter().map(origin).collect(),
            placement: 0,
            messages: self.messages,
        }
    }

    pub(super) fn path(&self, folder: &Path) -> PathBuf {
        folder.join(&self.file)
    }

    pub(super) fn sum(&self) -> Sum {
        Sum { bytes: self.bytes, crc: self.crc32c }
    }
}
