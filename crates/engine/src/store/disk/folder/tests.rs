use super::*;

fn folder() -> (tempfile::TempDir, Folder) {
    let above = tempfile::tempdir().unwrap();
    let folder = Folder::open(&above.path().join("new/data")).unwrap();
    (above, folder)
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.map(|_| ()).unwrap_err().kind()
}

fn content(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Promise: two stores never write one folder, not even when one of them is being torn down.
#[test]
fn folder_in_use_is_refused_until_the_last_file_is_closed() {
    let (_above, folder) = folder();
    let path = folder.path.clone();
    assert_eq!(kind(Folder::open(&path)), io::ErrorKind::ResourceBusy);
    let file = folder.create("a").unwrap();
    drop(folder);
    assert_eq!(kind(Folder::open(&path)), io::ErrorKind::ResourceBusy);
    drop(file);
    Folder::open(&path).unwrap();
}

/// Promise: files are read, written, cut and lengthened as `Disk` says.
#[test]
fn file_keeps_what_is_written() {
    let (_above, folder) = folder();
    let file = folder.create("a").unwrap();
    file.write_at(2, b"cd").unwrap();
    file.sync().unwrap();
    assert_eq!(content(&*folder.open("a").unwrap()), b"\0\0cd");
    file.set_len(3).unwrap();
    file.set_len(5).unwrap();
    assert_eq!(content(&*file), b"\0\0c\0\0");
    assert_eq!(kind(file.read_at(3, &mut [0; 3])), io::ErrorKind::UnexpectedEof);
}

/// Promise: names are created once, renamed over others and removed; handles keep their file.
#[test]
fn folder_keeps_its_names() {
    let (_above, folder) = folder();
    let first = folder.create("a").unwrap();
    first.write_at(0, b"first").unwrap();
    let second = folder.create("b").unwrap();
    assert_eq!(kind(folder.create("a")), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(folder.open("c")), io::ErrorKind::NotFound);
    folder.rename("a", "b").unwrap();
    folder.sync_folder().unwrap();
    assert_eq!(folder.list().unwrap(), ["b"]);
    assert_eq!(content(&*folder.open("b").unwrap()), b"first");
    assert_eq!(second.len().unwrap(), 0);
    folder.remove("b").unwrap();
    assert_eq!(content(&*first), b"first");
    assert_eq!(kind(folder.remove("b")), io::ErrorKind::NotFound);
    assert_eq!(kind(folder.rename("b", "a")), io::ErrorKind::NotFound);
}

/// Promise: the lock, and what a volume has beside the store, are none of its files.
#[test]
fn names_of_others_are_out_of_reach() {
    let (above, folder) = folder();
    fs::create_dir(folder.path.join("lost+found")).unwrap();
    fs::write(above.path().join("outside"), "").unwrap();
    assert_eq!(folder.list().unwrap(), [""; 0]);
    for name in ["lock", "../outside", "", ".", "a/b"] {
        assert_eq!(kind(folder.open(name)), io::ErrorKind::InvalidFilename, "{name}");
    }
}

/// Promise: the room of the volume is told in bytes.
#[test]
fn space_is_that_of_the_volume() {
    let (_above, folder) = folder();
    let Space { total_bytes, free_bytes } = folder.space().unwrap();
    assert!(free_bytes > 0 && free_bytes <= total_bytes, "{free_bytes} of {total_bytes}");
}
