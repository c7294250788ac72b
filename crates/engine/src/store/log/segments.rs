//! The files of the log.

use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::message::{Location, Seq};
use crate::messages::Stored;
use crate::store::StoreError;
use crate::store::disk::{Disk, DiskFile};
use crate::store::record;
use crate::store::seal::{Cover, Enveloped, Keys, envelope_anew};

/// Segments kept to become later ones. More than the log uses up between two checkpoints would only take room.
const MAX_FREE: usize = 4;

/// A segment is sparse when so many percent of its bytes are in use, or fewer.
const SPARSE_PERCENT: u64 = 50;
/// And so many when all segments together are larger than what is in use by more than this leaves: then what is left of
/// each is moved at last, and files are at most 1.3 times as large as what is in them.
const WASTEFUL_PERCENT: u64 = 77;
/// It is being emptied when one in so many of these was freed from one checkpoint to the next.
const FALLING: u64 = 16;
/// Moved by one checkpoint, which takes longer and needs more room by so much; a larger segment is moved alone. On a small
/// volume it is as much as a segment has: there room counts.
const MAX_MOVED_BYTES: u64 = 16 << 20;

pub(in crate::store) struct Segments {
    disk: Arc<dyn Disk>,
    /// What is new is sealed with these.
    keys: Option<Keys>,
    /// Of a new segment.
    length: u64,
    files: BTreeMap<u64, Segment>,
    /// Numbers of those that nothing needs.
    free: Vec<u64>,
    /// Those that are not there, with how many messages should have their payload in them.
    absent: BTreeMap<u64, u64>,
}

struct Segment {
    /// From its first record on.
    file: Arc<dyn DiskFile>,
    len: u64,
    cover: Cover,
    /// What of it is in use.
    live: Live,
}

/// Messages whose payload lies in a segment.
#[derive(Clone, Debug, Default)]
struct Live {
    messages: u64,
    bytes: u64,
    /// Between the first and the last of them that were ever there, in stored order.
    seqs: Option<(Seq, Seq)>,
    /// `bytes` when the segment was found to be sparse.
    sparse_at: Option<u64>,
}

/// A segment that payloads are read from elsewhere.
pub(in crate::store) struct Source {
    file: Arc<dyn DiskFile>,
    cover: Cover,
}

impl Source {
    /// The bytes of the payload there; `None`: they cannot be opened.
    pub(in crate::store) fn read(&self, location: Location) -> io::Result<Option<Bytes>> {
        let mut bytes = BytesMut::zeroed(location.len as usize);
        self.file.read_at(location.offset.into(), &mut bytes)?;
        Ok(record::lift(&self.cover, location.segment, location.offset, bytes.freeze()))
    }
}

impl Segments {
    pub(super) fn open(disk: Arc<dyn Disk>, length: u64, keys: Option<Keys>) -> io::Result<Self> {
        let mut files = BTreeMap::new();
        for (number, name) in disk.list()?.into_iter().filter_map(|name| Some((number_of(&name)?, name))) {
            let (file, cover) = lift(disk.open(&name)?, number, keys.as_ref())?;
            let len = file.len()?;
            files.insert(number, Segment { file, len, cover, live: Live::default() });
        }
        Ok(Self { disk, keys, length, files, free: Vec::new(), absent: BTreeMap::new() })
    }

    /// Whether that many bytes fit behind the offset.
    pub(super) fn has_room(&self, number: u64, offset: u32, len: usize) -> bool {
        let end = u64::from(offset) + len as u64;
        self.files.get(&number).is_some_and(|segment| end <= segment.len)
    }

    /// Goes on in a segment, which is made if it is not there.
    pub(super) fn take_up(&mut self, number: u64, min_len: u64) -> io::Result<()> {
        if self.files.contains_key(&number) {
            self.make(number, min_len)
        } else {
            self.begin(number, min_len)
        }
    }

    /// Makes the segment, of a free one if there is one of the size. Its name is durable, and its room taken, before anything
    /// is in it. When there is no room it is as if nothing had been asked.
    pub(super) fn begin(&mut self, number: u64, min_len: u64) -> io::Result<()> {
        self.make(number, min_len)?;
        if let (Some(keys), Some(segment)) = (&self.keys, self.files.get_mut(&number)) {
            // Also where there is one: its last sync may have failed.
            segment.cover = Cover::renew(&*self.disk.open(&name_of(number))?, number, keys)?;
        }
        Ok(())
    }

    fn make(&mut self, number: u64, min_len: u64) -> io::Result<()> {
        if self.files.get(&number).is_some_and(|segment| segment.len >= min_len) {
            return Ok(());
        }
        if self.files.contains_key(&number) {
            return self.lengthen(number, min_len);
        }
        let segment = match self.free.pop().and_then(|free| Some((free, self.files.remove(&free)?))) {
            Some((free, segment)) if segment.len >= min_len => self.reuse(free, number, segment)?,
            Some((free, _)) => {
                self.disk.remove(&name_of(free))?;
                self.create(number, min_len)?
            }
            None => self.create(number, min_len)?,
        };
        self.disk.sync_folder()?;
        self.files.insert(number, segment);
        Ok(())
    }

    /// One that an earlier process began, for a record that nobody heard of. Without room it stays as it is, and so does what is
    /// known of it: a shorter record still fits.
    fn lengthen(&mut self, number: u64, min_len: u64) -> io::Result<()> {
        let len = self.length.max(min_len);
        let file = self.file(number)?;
        file.allocate(len)?;
        file.sync()?;
        if let Some(segment) = self.files.get_mut(&number) {
            segment.len = len;
        }
        Ok(())
    }

    fn reuse(&mut self, free: u64, number: u64, segment: Segment) -> io::Result<Segment> {
        // Not all of it has room if an earlier version of the program made it.
        let renamed = segment.file.allocate(segment.len);
        match renamed.and_then(|()| self.disk.rename(&name_of(free), &name_of(number))) {
            Ok(()) => Ok(Segment { cover: self.uncovered(), ..segment }),
            Err(error) => {
                self.files.insert(free, segment);
                self.free.push(free);
                Err(error)
            }
        }
    }

    fn create(&self, number: u64, min_len: u64) -> io::Result<Segment> {
        let len = self.length.max(min_len);
        let file = self.disk.create(&name_of(number))?;
        let file = if self.keys.is_some() { Arc::new(Enveloped(file)) } else { file };
        if let Err(error) = file.allocate(len).and_then(|()| file.sync()) {
            // What it has of its room would be missed elsewhere.
            self.disk.remove(&name_of(number))?;
            return Err(error);
        }
        Ok(Segment { file, len, cover: self.uncovered(), live: Live::default() })
    }

    /// Of a segment that is empty: a key is used for one only, and for one of its lives.
    fn uncovered(&self) -> Cover {
        if self.keys.is_some() { Cover::Lost } else { Cover::None }
    }

    /// Writes anew what the segment is sealed with: it may be readable and not durable. It is with the next sync.
    pub(super) fn write_envelope_anew(&self, number: u64) -> io::Result<()> {
        if self.cover(number).key_id().is_none() {
            return Ok(());
        }
        envelope_anew(&*self.disk.open(&name_of(number))?)
    }

    /// What lies over the content of the segment.
    pub(super) fn cover(&self, number: u64) -> &Cover {
        self.files.get(&number).map_or(&Cover::Lost, |segment| &segment.cover)
    }

    /// Refuses if a key is missing: of a segment from that one on, or of one with payloads.
    pub(in crate::store) fn can_be_read_from(&self, first: u64) -> Result<(), StoreError> {
        for (number, segment) in &self.files {
            if let Cover::Locked(error) = &segment.cover
                && (*number >= first || segment.live.messages > 0)
            {
                return Err(StoreError::Key(error.clone()));
            }
        }
        Ok(())
    }

    /// How many segments are sealed with each key.
    pub(super) fn keys_in_use(&self) -> BTreeMap<String, u64> {
        let mut used = BTreeMap::new();
        let in_use = self.files.iter().filter(|(number, _)| !self.free.contains(number));
        for id in in_use.filter_map(|(_, segment)| segment.cover.key_id()) {
            *used.entry(id.to_owned()).or_default() += 1;
        }
        used
    }

    pub(in crate::store) fn source(&self, number: u64) -> io::Result<Source> {
        self.segment(number)
            .map(|segment| Source { file: Arc::clone(&segment.file), cover: segment.cover.clone() })
    }

    pub(in crate::store) fn file(&self, number: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.segment(number).map(|segment| Arc::clone(&segment.file))
    }

    /// The bytes there.
    pub(super) fn read(&self, number: u64, offset: u32, len: u32) -> io::Result<Bytes> {
        let mut bytes = BytesMut::zeroed(len as usize);
        self.segment(number)?.file.read_at(offset.into(), &mut bytes)?;
        Ok(bytes.freeze())
    }

    /// So many bytes, or those to the end of the segment if these are fewer.
    pub(super) fn read_up_to(&self, number: u64, offset: u32, most: u32) -> io::Result<Bytes> {
        let rest = self.segment(number)?.len.saturating_sub(offset.into());
        self.read(number, offset, u32::try_from(rest).map_or(most, |rest| rest.min(most)))
    }

    /// The bytes from there to the end of the segment.
    pub(super) fn read_rest(&self, number: u64, offset: u32) -> io::Result<Bytes> {
        self.read_up_to(number, offset, u32::MAX)
    }

    /// What is stored where is told anew.
    pub(super) fn forget_stored(&mut self) {
        self.files.values_mut().for_each(|segment| segment.live = Live::default());
        self.absent.clear();
    }

    /// Messages of the range were stored there.
    pub(in crate::store) fn stored(&mut self, seqs: RangeInclusive<Seq>, stored: Stored) {
        let Some(Segment { live, .. }) = self.files.get_mut(&stored.segment) else {
            *self.absent.entry(stored.segment).or_default() += stored.messages;
            return;
        };
        live.messages += stored.messages;
        live.bytes += stored.bytes;
        let (seqs_first, seqs_last) = seqs.into_inner();
        let (first, last) = live.seqs.unwrap_or((seqs_first, seqs_last));
        live.seqs = Some((first.min(seqs_first), last.max(seqs_last)));
    }

    /// A message that was stored there is gone.
    pub(in crate::store) fn freed(&mut self, location: Location) {
        if let Some(Segment { live, .. }) = self.files.get_mut(&location.segment) {
            live.messages -= 1;
            live.bytes -= u64::from(location.len);
        } else if let Some(messages) = self.absent.get_mut(&location.segment) {
            *messages -= 1;
        }
    }

    /// Segments before this one that have been sparse for a while, and between which messages what is left was stored.
    pub(in crate::store) fn sparse_before(&mut self, number: u64) -> Vec<(u64, RangeInclusive<Seq>)> {
        let (mut bytes, most) = (0, MAX_MOVED_BYTES.min(self.length));
        let percent = self.sparse_percent(number);
        let mut sparse = Vec::new();
        for (number, segment) in self.files.range_mut(..number) {
            let Some((first, last)) = segment.stays_sparse(percent).then_some(segment.live.seqs).flatten()
            else {
                continue;
            };
            bytes += segment.live.bytes;
            if bytes > most && !sparse.is_empty() {
                break;
            }
            sparse.push((*number, first..=last));
        }
        sparse
    }

    /// From how many percent on the segments before this one are not sparse.
    fn sparse_percent(&self, number: u64) -> u64 {
        let used = self
            .files
            .range(..number)
            .map(|(_, segment)| segment)
            .filter(|segment| segment.live.messages > 0);
        let (len, live) =
            used.fold((0, 0), |(len, live), segment| (len + segment.len, live + segment.live.bytes));
        if live * 100 < len * WASTEFUL_PERCENT { WASTEFUL_PERCENT } else { SPARSE_PERCENT }
    }

    /// Forgets a segment; says how many messages had their payload there.
    pub(in crate::store) fn moved(&mut self, number: u64) -> u64 {
        self.files.get_mut(&number).map_or(0, |segment| std::mem::take(&mut segment.live).messages)
    }

    /// Segments before this one in which no payload lies, for good: messages are stored at the end only.
    pub(in crate::store) fn unused_before(&self, number: u64) -> Vec<u64> {
        let earlier = self.files.range(..number).filter(|(_, segment)| segment.live.messages == 0);
        earlier.map(|(number, _)| *number).filter(|number| !self.free.contains(number)).collect()
    }

    /// A checkpoint has made sure that nothing needs these any more.
    pub(in crate::store) fn free(&mut self, unused: Vec<u64>) -> io::Result<()> {
        for number in unused {
            if self.free.len() < MAX_FREE {
                self.free.push(number);
            } else {
                self.files.remove(&number);
                self.disk.remove(&name_of(number))?;
            }
        }
        Ok(())
    }

    /// Of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().map(|segment| segment.len).sum()
    }

    /// The segments with higher numbers.
    pub(super) fn behind(&self, number: u64) -> impl Iterator<Item = u64> {
        self.files.range(number + 1..).map(|(number, _)| *number)
    }

    /// Numbers of segments that are not there, or cannot be opened for ever, and how many messages should have their payload in each.
    pub(super) fn absent(&self) -> impl Iterator<Item = (u64, u64)> {
        let lost = |segment: &Segment| matches!(segment.cover, Cover::Lost) && segment.live.messages > 0;
        let lost = self.files.iter().filter(move |(_, segment)| lost(segment));
        let lost = lost.map(|(number, segment)| (*number, segment.live.messages));
        self.absent.iter().map(|(segment, messages)| (*segment, *messages)).chain(lost)
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.disk
    }

    fn segment(&self, number: u64) -> io::Result<&Segment> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, format!("no segment {}", name_of(number)));
        self.files.get(&number).ok_or_else(missing)
    }
}

impl Segment {
    /// Whether most of it is not in use, and that is not about to change: a queue that is being drained frees its segments
    /// soon, and moving what is left would be in vain.
    fn stays_sparse(&mut self, percent: u64) -> bool {
        let Live { messages, bytes, sparse_at, .. } = &mut self.live;
        if *messages == 0 || *bytes * 100 > self.len * percent {
            *sparse_at = None;
            return false;
        }
        let before = sparse_at.replace(*bytes);
        before.is_some_and(|before| *bytes * FALLING >= before * (FALLING - 1))
    }
}

/// A file of the log from its first record on, and what lies over it.
pub(in crate::store) fn lift(
    file: Arc<dyn DiskFile>,
    number: u64,
    keys: Option<&Keys>,
) -> io::Result<(Arc<dyn DiskFile>, Cover)> {
    let Some(keys) = keys else { return Ok((file, Cover::None)) };
    let cover = Cover::find(&*file, number, keys)?;
    Ok((Arc::new(Enveloped(file)), cover))
}

pub(in crate::store) fn name_of(number: u64) -> String {
    format!("{number:016x}.log")
}

pub(in crate::store) fn number_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}
