//! What of a backup is whole, and what is not.

use std::fs;
use std::io::ErrorKind::AlreadyExists;
use std::path::Path;

use ackwell_proto::v1;
use ackwell_proto::v1::{KeptMessage, KeptPage};
use tempfile::TempDir;

use super::file::{FORMAT, Writer};
use super::manifest::NAME;
use super::{Fault, Manifest, Reach, Shard, Take, verify};

fn message(place: u64) -> KeptMessage {
    let body = format!("body of {place}").into_bytes().into();
    KeptMessage { place, body, ordering_key: "k".to_owned(), ..KeptMessage::default() }
}

/// A backup of one shard: places 5 and 8 in a page each, and a dedup id.
fn backup() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let snapshot = v1::Snapshot { salt: 7, first: 5, end: 9, ..v1::Snapshot::default() };
    let mut shard = Shard::new(snapshot, "shard-0-a".to_owned());
    let mut writer = Writer::create(folder.path().join("partial")).unwrap();
    let dedup_ids = vec![v1::RememberedId { dedup_id: "d".to_owned(), ..v1::RememberedId::default() }];
    let page = |place| KeptPage { messages: vec![message(place)], dedup_ids: Vec::new() };
    for page in [KeptPage { messages: Vec::new(), dedup_ids }, page(5), page(8)] {
        writer.write(&page).unwrap();
    }
    let sum = writer.finish(&shard.path(folder.path())).unwrap();
    (shard.bytes, shard.crc32c, shard.messages, shard.dedup_ids) = (sum.bytes, sum.crc, 2, 1);
    manifest(vec![shard]).write(folder.path()).unwrap();
    folder
}

fn manifest(shards: Vec<Shard>) -> Manifest {
    let queue = "shop/orders".to_owned();
    let [task, began, ended] = ["t1", "then", "later"].map(str::to_owned);
    Manifest { format: FORMAT, queue, task, began, ended, messages: 2, shards }
}

fn reason(folder: &Path) -> &'static str {
    verify(folder).map_or_else(|fault| fault.reason(), |_| "")
}

#[test]
fn backup_that_ended_is_whole() {
    let folder = backup();
    let manifest = verify(folder.path()).unwrap();
    assert_eq!((manifest.messages, manifest.bytes()), (2, manifest.shards[0].bytes));
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.count(), 2, "nothing that is not named by the manifest");
}

/// Promise: no byte of a backup can change, be cut off or be added without its being said.
#[test]
fn every_changed_byte_and_every_cut_is_found() {
    let folder = backup();
    for name in ["shard-0-a", NAME] {
        let path = folder.path().join(name);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            fs::write(&path, &changed).unwrap();
            assert_ne!(reason(folder.path()), "", "{name}: byte {at} changed");
            fs::write(&path, &whole[..at]).unwrap();
            // The last byte of the manifest ends its line.
            let is_end = name == NAME && at + 1 == whole.len();
            assert_eq!(reason(folder.path()).is_empty(), is_end, "{name}: cut at {at}");
        }
        fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
        assert_eq!(reason(folder.path()), "BackupDamaged", "{name}: longer");
        fs::write(&path, &whole).unwrap();
    }
    assert_eq!(reason(folder.path()), "");
}

/// Promise: a backup that did not end is never taken for a whole one, and one that is not there not for an empty one.
#[test]
fn what_is_missing_is_named() {
    let folder = backup();
    let (file, manifest) = (folder.path().join("shard-0-a"), folder.path().join(NAME));
    let aside = folder.path().join("aside");
    fs::rename(&file, &aside).unwrap();
    assert_eq!(reason(folder.path()), "BackupDamaged");
    fs::rename(&aside, &file).unwrap();
    fs::rename(&manifest, &aside).unwrap();
    assert_eq!(reason(folder.path()), "BackupUnfinished");
    fs::remove_file(&file).unwrap();
    assert_eq!(reason(folder.path()), "BackupMissing");
    assert_eq!(reason(&folder.path().join("nowhere")), "BackupMissing");
}

/// Promise: what a newer version wrote is not guessed at.
#[test]
fn newer_format_is_refused_as_such() {
    let folder = backup();
    let path = folder.path().join(NAME);
    fs::write(&path, r#"{"format": 2, "all": "different"}"#).unwrap();
    assert_eq!(reason(folder.path()), "BackupTooNew");
    fs::write(&path, r#"{"all": "different"}"#).unwrap();
    assert_eq!(reason(folder.path()), "BackupDamaged");
}

/// Files that are sound, and do not belong together.
#[test]
fn files_and_manifest_have_to_agree() {
    for edit in [
        |shard: &mut Shard| shard.messages = 3,
        |shard: &mut Shard| shard.dedup_ids = 0,
        |shard: &mut Shard| shard.end = 8,
        |shard: &mut Shard| shard.first = 6,
        |shard: &mut Shard| shard.file = "shard-0/../../shard-0-a".to_owned(),
        |shard: &mut Shard| shard.crc32c ^= 1,
    ] {
        let folder = backup();
        let mut shard = verify(folder.path()).unwrap().shards.remove(0);
        edit(&mut shard);
        fs::remove_file(folder.path().join(NAME)).unwrap();
        manifest(vec![shard]).write(folder.path()).unwrap();
        assert_eq!(reason(folder.path()), "BackupDamaged");
    }
}

/// One that ends when it comes to the shards.
fn unreachable(task: &str, folder: &Path) -> Take {
    let reach = Reach { queue: "shop/orders".to_owned(), shards: vec!["no address".to_owned()], tls: None };
    Take { reach, task: task.to_owned(), folder: folder.to_owned() }
}

/// Promise: the same task makes its backup once, and another one does not touch it. Nobody is called for either.
#[tokio::test]
async fn folder_with_a_backup_is_left_as_it_is() {
    let folder = backup();
    let take = |task: &str| unreachable(task, folder.path());
    assert_eq!(take("t1").run().await.unwrap().messages, 2);
    let other = take("t2").run().await.unwrap_err();
    assert!(matches!(&other, Fault::Occupied { task, .. } if task == "t1") && other.is_final(), "{other}");
    assert_eq!(reason(folder.path()), "");
    let written = manifest(Vec::new()).write(folder.path()).unwrap_err();
    assert!(matches!(&written, Fault::Folder { source, .. } if source.kind() == AlreadyExists), "{written}");
    assert_eq!(reason(folder.path()), "", "what is whole is not written over");
}

/// Promise: two tasks that were given one folder do not meet in it: the second is told, and nothing of the first is touched. The same
/// task goes on, and takes away what it had begun and no other's files.
#[tokio::test]
async fn folder_belongs_to_the_task_that_came_first() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("nightly");
    let take = |task: &str| unreachable(task, &folder);
    take("t1").run().await.unwrap_err();
    let first = take("t1").mark();
    let begun = [format!("shard-0{first}aaaaaaaa"), format!("shard-1{first}aaaaaaaa.partial")];
    let foreign = ["shard-of-somebody".to_owned(), "shard-0-12345678-aaaaaaaa".to_owned()];
    begun.iter().chain(&foreign).for_each(|name| fs::write(folder.join(name), "x").unwrap());
    let is_there = |name: &String| folder.join(name).exists();
    let refused = take("t2").run().await;
    assert!(matches!(&refused, Err(Fault::Occupied { task, .. }) if task == "t1"), "{refused:?}");
    assert!(begun.iter().chain(&foreign).all(is_there));
    take("t1").run().await.unwrap_err();
    assert!(foreign.iter().all(is_there) && !begun.iter().any(is_there));
    assert_eq!(reason(&folder), "BackupUnfinished");
}

/// Promise: a manifest whose files are gone is no backup, and the task that made it makes it anew.
#[tokio::test]
async fn manifest_without_its_files_is_made_anew() {
    let folder = backup();
    fs::remove_file(folder.path().join("shard-0-a")).unwrap();
    let fault = unreachable("t1", folder.path()).run().await.unwrap_err();
    assert_eq!(fault.reason(), "ShardUnavailable", "it did not say that it is done");
    assert!(!folder.path().join(NAME).exists());
}
