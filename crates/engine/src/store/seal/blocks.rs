//! A file of which every block is sealed, for redb: it writes pages wherever it likes, and believes what it reads.
//!
//! redb's first page stays in clear: it has the places of trees and their checksums, which are in use by parts as small as a
//! byte, and no content. Every other page is written where nothing is that counts, and only then is it said to count; half
//! a page that a crash leaves is therefore never one that is needed. A block that does not open reads as zeros, which redb's checksums
//! find out as they do any damage.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::envelope::Enveloped;
use super::{DataKey, NONCE_LEN, OVERHEAD_BYTES};
use crate::store::disk::DiskFile;

/// A page of redb.
const BLOCK_BYTES: u64 = 4096;
const SEALED_BYTES: u64 = BLOCK_BYTES + OVERHEAD_BYTES as u64;

#[derive(Debug)]
pub(super) struct Blocks {
    pub(super) file: Enveloped,
    pub(super) key: Arc<DataKey>,
}

/// Where a block lies. The first one has nothing around it.
fn place(block: u64) -> u64 {
    if block == 0 { 0 } else { BLOCK_BYTES + (block - 1) * SEALED_BYTES }
}

/// What a part of the file is, from the front: some of the first block, which is in clear, and of the others.
fn split(range: Range<u64>) -> (Range<u64>, Range<u64>) {
    (
        range.start.min(BLOCK_BYTES)..range.end.min(BLOCK_BYTES),
        range.start.max(BLOCK_BYTES)..range.end.max(BLOCK_BYTES),
    )
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("what is read or written at once fits into memory")
}

impl Blocks {
    /// The content of blocks that are all there; zeros for one that does not open.
    fn open_blocks(&self, blocks: Range<u64>) -> io::Result<Vec<u8>> {
        let mut sealed = vec![0; size((blocks.end - blocks.start) * SEALED_BYTES)];
        self.file.read_at(place(blocks.start), &mut sealed)?;
        let mut content = Vec::with_capacity(size((blocks.end - blocks.start) * BLOCK_BYTES));
        for (block, sealed) in blocks.zip(sealed.chunks_exact(size(SEALED_BYTES))) {
            let opened = self.key.open(&block.to_le_bytes(), sealed);
            content.extend(opened.unwrap_or_else(|| vec![0; size(BLOCK_BYTES)]));
        }
        Ok(content)
    }

    fn read_sealed(&self, range: Range<u64>, buffer: &mut [u8]) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let first = range.start / BLOCK_BYTES;
        let content = self.open_blocks(first..range.end.div_ceil(BLOCK_BYTES))?;
        let from = size(range.start - first * BLOCK_BYTES);
        buffer.copy_from_slice(&content[from..from + buffer.len()]);
        Ok(())
    }

    fn write_sealed(&self, range: Range<u64>, bytes: &[u8]) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let blocks = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
        let mut content = vec![0; size((blocks.end - blocks.start) * BLOCK_BYTES)];
        // What is written of a block only in part.
        for edge in [range.start, range.end].into_iter().filter(|edge| edge % BLOCK_BYTES != 0) {
            let block = edge / BLOCK_BYTES;
            if place(block + 1) <= self.file.len()? {
                let at = size((block - blocks.start) * BLOCK_BYTES);
                content[at..at + size(BLOCK_BYTES)].copy_from_slice(&self.open_blocks(block..block + 1)?);
            }
        }
        let from = size(range.start - blocks.start * BLOCK_BYTES);
        content[from..from + bytes.len()].copy_from_slice(bytes);
        self.file.write_at(place(blocks.start), &self.seal_blocks(blocks, &content))
    }

    fn seal_blocks(&self, blocks: Range<u64>, content: &[u8]) -> Vec<u8> {
        let mut sealed = vec![0; size((blocks.end - blocks.start) * SEALED_BYTES)];
        let rooms = sealed.chunks_exact_mut(size(SEALED_BYTES)).zip(content.chunks_exact(size(BLOCK_BYTES)));
        for (block, (room, content)) in blocks.zip(rooms) {
            room[NONCE_LEN..][..content.len()].copy_from_slice(content);
            self.key.seal(&block.to_le_bytes(), room);
        }
        sealed
    }
}

impl DiskFile for Blocks {
    fn len(&self) -> io::Result<u64> {
        let len = self.file.len()?;
        let blocks = len.saturating_sub(BLOCK_BYTES) / SEALED_BYTES;
        Ok(len.min(BLOCK_BYTES) + blocks * BLOCK_BYTES)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        if end > self.len()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (clear, sealed) = split(offset..end);
        let (front, back) = buffer.split_at_mut(size(clear.end - clear.start));
        if !front.is_empty() {
            self.file.read_at(clear.start, front)?;
        }
        self.read_sealed(sealed, back)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (clear, sealed) = split(offset..offset + bytes.len() as u64);
        let (front, back) = bytes.split_at(size(clear.end - clear.start));
        if !front.is_empty() {
            self.file.write_at(clear.start, front)?;
        }
        self.write_sealed(sealed, back)
    }

    /// Up to the next block.
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(if len <= BLOCK_BYTES { len } else { place(len.div_ceil(BLOCK_BYTES)) })
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}
