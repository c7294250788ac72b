//! What every layout on disk is made of: little-endian numbers, length-prefixed text and lists, options, enumerations.
//!
//! Reading never panics, and never allocates more than a small multiple of what is read: what makes no sense is `None`.

use crate::message::MessageId;
use crate::time::Timestamp;

/// Items of a list that room is made for at once: enough for any usual one. A longer one grows as its items are found, so that
/// a wrong length costs no memory.
const MAX_PREALLOCATED: usize = 1024;

#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    /// Starts over in a buffer that was used before.
    pub(super) fn reusing(mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self(buffer)
    }

    /// How much was written.
    pub(super) fn at(&self) -> usize {
        self.0.len()
    }

    /// What was written from there on.
    pub(super) fn since(&self, at: usize) -> &[u8] {
        &self.0[at..]
    }

    pub(super) fn since_mut(&mut self, at: usize) -> &mut [u8] {
        &mut self.0[at..]
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Room for what is known later.
    pub(super) fn zeros(&mut self, len: usize) -> &mut Self {
        self.0.resize(self.0.len() + len, 0);
        self
    }

    /// In the place of four bytes that were written before.
    pub(super) fn set_u32(&mut self, at: usize, value: u32) -> &mut Self {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
        self
    }

    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    pub(super) fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(super) fn u128(&mut self, value: u128) -> &mut Self {
        self.raw(&value.to_le_bytes())
    }

    pub(super) fn time(&mut self, value: Timestamp) -> &mut Self {
        self.u64(value.0)
    }

    pub(super) fn len(&mut self, len: usize) -> &mut Self {
        self.u32(u32::try_from(len).expect("everything stored was bounded far below 4 GiB at the edge"))
    }

    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.len(value.len()).raw(value)
    }

    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    pub(super) fn option<T>(&mut self, value: Option<&T>, some: impl FnOnce(&mut Self, &T)) {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            some(self, value);
        }
    }

    pub(super) fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.len(items.len());
        items.iter().for_each(|item| each(self, item));
        self
    }

    /// With a checksum of all of it at the end.
    pub(super) fn seal(mut self) -> Vec<u8> {
        let crc = crc32c::crc32c(&self.0);
        self.u32(crc);
        self.0
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Of what [`Writer::seal`] made.
    pub(super) fn open(bytes: &'a [u8]) -> Option<Self> {
        let (content, crc) = bytes.split_last_chunk::<4>()?;
        (crc32c::crc32c(content) == u32::from_le_bytes(*crc)).then_some(Self(content))
    }

    /// Of what was verified in another way.
    pub(super) fn over(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn raw(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.raw(N)?.try_into().ok()
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn bool(&mut self) -> Option<bool> {
        self.one_of([false, true])
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn time(&mut self) -> Option<Timestamp> {
        self.u64().map(Timestamp)
    }

    pub(super) fn message_id(&mut self) -> Option<MessageId> {
        self.array().map(|bytes| MessageId::from_u128(u128::from_le_bytes(bytes)))
    }

    pub(super) fn len(&mut self) -> Option<usize> {
        usize::try_from(self.u32()?).ok()
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.len()?;
        self.raw(len)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    pub(super) fn one_of<T: Copy, const N: usize>(&mut self, values: [T; N]) -> Option<T> {
        values.get(usize::from(self.u8()?)).copied()
    }

    #[expect(
        clippy::option_option,
        reason = "the outer one says whether it could be read, as everywhere here"
    )]
    pub(super) fn option<T>(&mut self, some: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.u8()? {
            0 => Some(None),
            1 => some(self).map(Some),
            _ => None,
        }
    }

    pub(super) fn list<T>(
        &mut self,
        max: usize,
        mut each: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let len = self.len().filter(|len| *len <= max)?;
        // Nothing takes less than a byte.
        let mut items = Vec::with_capacity(len.min(self.0.len()).min(MAX_PREALLOCATED));
        for _ in 0..len {
            items.push(each(self)?);
        }
        Some(items)
    }

    /// The value, if nothing is left behind it.
    pub(super) fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: a wrong length costs no memory. Room for so many of these would not fit into any address space.
    #[test]
    #[expect(clippy::large_stack_arrays, reason = "large items are the point")]
    fn list_longer_than_its_bytes_is_refused_without_room_for_it() {
        let read = |input: &mut Reader<'_>| input.u8().map(|byte| [byte; 1 << 16]);
        assert_eq!(Reader::over(&[0xff; 7]).list(usize::MAX, read), None);
        assert_eq!(
            Reader::over(&[3, 0, 0, 0, 7, 8, 9]).list(usize::MAX, read).map(|items| items.len()),
            Some(3)
        );
    }
}
