//! A disk on top of another one that is only read: what is written stays in memory and is forgotten.
//!
//! On it the engine opens a store as a broker would, with all that recovery writes, and the folder stays as it is.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::disk::{Disk, DiskFile, Space};

/// What is kept of a file at once: a page of redb, and of most file systems.
const PAGE: usize = 4096;

#[derive(Debug)]
pub(super) struct Overlay {
    base: Arc<dyn Disk>,
    hidden: &'static [&'static str],
    files: Mutex<BTreeMap<String, Arc<Layered>>>,
}

impl Overlay {
    /// Without files of the `hidden` names, which cannot be made either.
    pub(super) fn over(base: Arc<dyn Disk>, hidden: &'static [&'static str]) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for name in base.list()?.into_iter().filter(|name| !hidden.contains(&name.as_str())) {
            let file = base.open(&name)?;
            let len = file.len()?;
            files.insert(name, Arc::new(Layered { base: Some(file), layer: Mutex::new(Layer::under(len)) }));
        }
        Ok(Self { base, hidden, files: Mutex::new(files) })
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Layered>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for Overlay {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.files().get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(file)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        if self.hidden.contains(&name) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut files = self.files();
        if files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = Arc::new(Layered { base: None, layer: Mutex::new(Layer::under(0)) });
        files.insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        self.base.space()
    }
}

#[derive(Debug)]
struct Layered {
    base: Option<Arc<dyn DiskFile>>,
    layer: Mutex<Layer>,
}

#[derive(Debug)]
struct Layer {
    len: u64,
    /// What lies behind it in the base counts as cut off.
    base_end: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl Layer {
    fn under(len: u64) -> Self {
        Self { len, base_end: len, pages: BTreeMap::new() }
    }
}

impl Layered {
    fn layer(&self) -> MutexGuard<'_, Layer> {
        self.layer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the base, and zeros behind it.
    fn read_base(&self, end: u64, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let there = end.saturating_sub(offset).min(buffer.len() as u64);
        let (below, beyond) = buffer.split_at_mut(usize::try_from(there).map_err(io::Error::other)?);
        beyond.fill(0);
        match &self.base {
            Some(base) if !below.is_empty() => base.read_at(offset, below),
            _ => Ok(()),
        }
    }
}

/// Parts of a range of bytes, each within one page: its number, where in it the part starts, and its length.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let (mut at, end) = (offset, offset + len as u64);
    std::iter::from_fn(move || {
        let start = usize::try_from(at % PAGE as u64).expect("less than a page");
        let len = usize::try_from((end - at).min((PAGE - start) as u64)).expect("at most a page");
        let part = (at / PAGE as u64, start, len);
        at += len as u64;
        (len > 0).then_some(part)
    })
}

impl DiskFile for Layered {
    fn len(&self) -> io::Result<u64> {
        Ok(self.layer().len)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let layer = self.layer();
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| end > layer.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if layer.pages.is_empty() {
            return self.read_base(layer.base_end, offset, buffer);
        }
        let mut rest = buffer;
        for (no, start, len) in parts(offset, rest.len()) {
            let (part, behind) = rest.split_at_mut(len);
            match layer.pages.get(&no) {
                Some(page) => part.copy_from_slice(&page[start..start + len]),
                None => self.read_base(layer.base_end, no * PAGE as u64 + start as u64, part)?,
            }
            rest = behind;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut layer = self.layer();
        let mut rest = bytes;
        for (no, start, len) in parts(offset, bytes.len()) {
            let (part, behind) = rest.split_at(len);
            if !layer.pages.contains_key(&no) {
                let mut page = Box::new([0; PAGE]);
                self.read_base(layer.base_end, no * PAGE as u64, &mut page[..])?;
                layer.pages.insert(no, page);
            }
            if let Some(page) = layer.pages.get_mut(&no) {
                page[start..start + len].copy_from_slice(part);
            }
            rest = behind;
        }
        layer.len = layer.len.max(offset + bytes.len() as u64);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut layer = self.layer();
        if len < layer.len {
            layer.base_end = layer.base_end.min(len);
            layer.pages.split_off(&len.div_ceil(PAGE as u64));
            if let Some(last) = layer.pages.get_mut(&(len / PAGE as u64)) {
                last[usize::try_from(len % PAGE as u64).expect("less than a page")..].fill(0);
            }
        }
        layer.len = len;
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::store::tests::MemoryDisk;

    #[derive(Clone, Debug)]
    enum Change {
        Write(u64, Vec<u8>),
        Cut(u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            (0u64..20_000, vec(any::<u8>(), 0..9000)).prop_map(|(at, bytes)| Change::Write(at, bytes)),
            (0u64..30_000).prop_map(Change::Cut),
        ]
    }

    fn content(file: &dyn DiskFile) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    }

    proptest! {
        /// Promise: it reads as a file that was changed would, and the file below stays as it was.
        #[test]
        fn changes_are_seen_above_and_not_below(before in vec(any::<u8>(), 0..10_000), changes in vec(change(), 0..20)) {
            let (base, model) = (Arc::<MemoryDisk>::default(), MemoryDisk::default());
            for disk in [&*base, &model] {
                disk.create("file").unwrap().write_at(0, &before).unwrap();
            }
            let above = Overlay::over(Arc::<MemoryDisk>::clone(&base), &[]).unwrap();
            let (above, model) = (above.open("file").unwrap(), model.open("file").unwrap());
            for change in changes {
                for file in [&above, &model] {
                    match &change {
                        // A write behind the end of the model's file fills the gap with zeros, as files do.
                        Change::Write(at, bytes) => file.write_at(*at, bytes).unwrap(),
                        Change::Cut(len) => file.set_len(*len).unwrap(),
                    }
                }
                prop_assert_eq!(content(&*above), content(&*model));
            }
            prop_assert_eq!(content(&*base.open("file").unwrap()), before);
        }
    }

    /// Promise: what is made, renamed and removed above is not below.
    #[test]
    fn names_change_above_only() {
        let base = Arc::<MemoryDisk>::default();
        for name in ["a", "b", "hidden"] {
            base.create(name).unwrap();
        }
        let above = Overlay::over(Arc::<MemoryDisk>::clone(&base), &["hidden"]).unwrap();
        above.create("c").unwrap();
        assert_eq!(above.create("hidden").unwrap_err().kind(), io::ErrorKind::StorageFull);
        above.rename("a", "d").unwrap();
        above.remove("b").unwrap();
        assert_eq!(above.list().unwrap(), ["c", "d"]);
        assert_eq!(base.list().unwrap(), ["a", "b", "hidden"]);
    }
}
