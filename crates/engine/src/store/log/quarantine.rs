//! Copies of segments in which something was damaged: for whoever wants to see what is left of what was lost, after their
//! files were used again.

use std::io;

use super::segments::{Segments, name_of};
use crate::store::disk::Disk;
use crate::store::suspect;

/// Copies that are kept. More may be of use and would fill the volume; with the largest segments these are 256 MiB.
const MAX_KEPT: usize = 4;
const SUFFIX: &str = ".damaged";
/// A copy that is not whole yet.
const UNFINISHED: &str = "damaged.new";

/// Keeps copies of these, and of all copies the newest ones.
pub(super) fn keep(segments: &Segments, numbers: impl DoubleEndedIterator<Item = u64>) -> io::Result<()> {
    let disk = segments.disk();
    for number in numbers.rev().take(MAX_KEPT) {
        keep_one(segments, number)?;
    }
    for surplus in kept(disk)?.into_iter().rev().skip(MAX_KEPT) {
        disk.remove(&surplus)?;
    }
    disk.sync_folder()
}

/// An empty copy stands for a segment that is not there.
fn keep_one(segments: &Segments, number: u64) -> io::Result<()> {
    let disk = segments.disk();
    if disk.list()?.iter().any(|name| name == UNFINISHED) {
        disk.remove(UNFINISHED)?;
    }
    let copy = disk.create(UNFINISHED)?;
    // As it is, with what it is sealed with.
    let copied = disk.open(&name_of(number)).map_or(Ok(()), |segment| suspect::copy(&*segment, &*copy));
    copied.inspect_err(|_| _ = disk.remove(UNFINISHED))?;
    disk.rename(UNFINISHED, &format!("{}{SUFFIX}", name_of(number).trim_end_matches(".log")))
}

/// The oldest first: their numbers have one length.
fn kept(disk: &dyn Disk) -> io::Result<Vec<String>> {
    let mut names = disk.list()?;
    names.retain(|name| name.ends_with(SUFFIX));
    names.sort_unstable();
    Ok(names)
}
