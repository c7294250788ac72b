mod crashes;
mod database;
mod faults;
mod plain;

use std::collections::BTreeSet;

use super::*;

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.map(|_| ()).unwrap_err().kind()
}

/// A file that is durable with its name.
fn synced(disk: &SimDisk, name: &str, content: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.create(name).unwrap();
    file.write_at(0, content).unwrap();
    file.sync().unwrap();
    disk.sync_folder().unwrap();
    file
}

/// Everything that is found of a file after a power cut, in any way; `None`: it is not there.
fn outcomes(disk: &SimDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    (0..300).map(|seed| disk.crash(seed).content(name).ok()).collect()
}

/// All names that are found after a power cut, in any way.
fn names(disk: &SimDisk) -> BTreeSet<String> {
    let sorted = |disk: SimDisk| {
        let mut names = disk.list().unwrap();
        names.sort();
        names.join(" ")
    };
    (0..300).map(|seed| sorted(disk.crash(seed))).collect()
}
