//! A file of a backup: pages, each with its checksum. Here, and nowhere else, its bytes are written and read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use ackwell_proto::v1::KeptPage;
use prost::Message;

use super::Fault;

/// What this version writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;
/// So begins each file; the format follows, in 4 bytes.
const MAGIC: [u8; 8] = *b"ackwbkup";
/// Length and checksum before each page, 4 bytes each.
const HEAD_BYTES: usize = 8;
/// The longest page: what a shard answers, which is 1 MiB of bodies, or one body, with headers and histories.
const MAX_PAGE_BYTES: u32 = 64 << 20;

/// Of all bytes of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) bytes: u64,
    pub(super) crc: u32,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
    }
}

/// A file that has its name only when all of it is on disk.
pub(super) struct Writer {
    out: BufWriter<File>,
    partial: PathBuf,
    sum: Sum,
}

impl Writer {
    pub(super) fn create(partial: PathBuf) -> Result<Self, Fault> {
        let file = File::create_new(&partial).map_err(Fault::folder("make", &partial))?;
        let mut writer = Self { out: BufWriter::with_capacity(1 << 20, file), partial, sum: Sum::default() };
        writer.put(&MAGIC)?;
        writer.put(&FORMAT.to_le_bytes())?;
        Ok(writer)
    }

    pub(super) fn write(&mut self, page: &KeptPage) -> Result<(), Fault> {
        let page = page.encode_to_vec();
        let len = u32::try_from(page.len()).ok().filter(|len| *len <= MAX_PAGE_BYTES);
        let len = len.ok_or_else(|| Fault::Refused(format!("a page of {} bytes is too long", page.len())))?;
        self.put(&len.to_le_bytes())?;
        self.put(&crc32c::crc32c(&page).to_le_bytes())?;
        self.put(&page)
    }

    /// Gives it its name.
    pub(super) fn finish(self, path: &Path) -> Result<Sum, Fault> {
        let Self { out, partial, sum } = self;
        let file = out.into_inner().map_err(io::IntoInnerError::into_error);
        file.and_then(|file| file.sync_all()).map_err(Fault::folder("write", &partial))?;
        std::fs::rename(&partial, path).map_err(Fault::folder("name", path))?;
        Ok(sum)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.sum.add(bytes);
        self.out.write_all(bytes).map_err(Fault::folder("write", &self.partial))
    }
}

/// A file as the manifest has it.
pub(super) struct Reader {
    input: BufReader<File>,
    path: PathBuf,
    sum: Sum,
    /// What all of it must be.
    whole: Sum,
}

impl Reader {
    pub(super) fn open(path: PathBuf, whole: Sum) -> Result<Self, Fault> {
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Fault::damaged(&path, "it is missing"),
            _ => Fault::folder("open", &path)(error),
        })?;
        let input = BufReader::with_capacity(1 << 20, file);
        let mut reader = Self { input, path, sum: Sum::default(), whole };
        let [mut magic, mut format] = [[0; 8], [0; 8]];
        reader.fill(&mut magic)?;
        reader.fill(&mut format[..4])?;
        let format = u64::from_le_bytes(format);
        match (magic == MAGIC, format <= FORMAT.into()) {
            (true, true) => Ok(reader),
            (true, false) => Err(Fault::TooNew { found: format }),
            (false, _) => Err(reader.damaged("it is no file of a backup")),
        }
    }

    /// `None` at the end, when all of the file is what the manifest says.
    pub(super) fn next(&mut self) -> Result<Option<KeptPage>, Fault> {
        if self.sum.bytes == self.whole.bytes {
            return self.end().map(|()| None);
        }
        let mut head = [0; HEAD_BYTES];
        self.fill(&mut head)?;
        let [len, crc] = [&head[..4], &head[4..]]
            .map(|part| part.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
        if len > MAX_PAGE_BYTES {
            return Err(self.damaged("a page is too long"));
        }
        let mut page = vec![0; len as usize];
        self.fill(&mut page)?;
        if crc32c::crc32c(&page) != crc {
            return Err(self.damaged("a checksum is wrong"));
        }
        KeptPage::decode(page.as_slice()).map(Some).map_err(|error| self.damaged(&error.to_string()))
    }

    /// There is nothing more, and all of it was what the manifest says.
    fn end(&mut self) -> Result<(), Fault> {
        let rest = self.input.fill_buf().map_err(Fault::folder("read", &self.path))?;
        match (rest.is_empty(), self.sum == self.whole) {
            (true, true) => Ok(()),
            (true, false) => Err(self.damaged("it is another file")),
            (false, _) => Err(self.damaged("it is longer than the manifest says")),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Fault> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.damaged("it is cut off"),
            _ => Fault::folder("read", &self.path)(error),
        })?;
        self.sum.add(bytes);
        if self.sum.bytes > self.whole.bytes {
            return Err(self.damaged("it is longer than the manifest says"));
        }
        Ok(())
    }

    fn damaged(&self, why: &str) -> Fault {
        Fault::damaged(&self.path, format!("{why}, at byte {}", self.sum.bytes))
    }
}
