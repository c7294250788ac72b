//! The beginning of a sealed file: its data key, sealed.
//!
//! It is there twice, in two sectors, so that one that cannot be read does not cost all that the file has.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::keys::MAX_ID_BYTES;
use super::{DataKey, KEY_BYTES, KeyError, Keys, OVERHEAD_BYTES, Secret, aes, open_with, random, seal_with};
use crate::store::disk::DiskFile;
use crate::store::encoding::{Reader, Writer};
use crate::store::tables;
use zeroize::Zeroizing;

/// Begins a sealed file.
const MAGIC: [u8; 4] = *b"AWK1";
pub(super) const COPY_BYTES: usize = 512;
/// Before the content of a sealed file.
pub(super) const ENVELOPE_BYTES: u64 = 2 * COPY_BYTES as u64;

/// A data key as it is stored.
pub(super) struct Envelope {
    /// Number of the segment. A file that is used again has the envelope of before until it has another.
    pub(super) number: u64,
    /// Of the key that it is sealed with.
    pub(super) key_id: String,
    sealed: Vec<u8>,
}

impl Envelope {
    /// Of the file with this number; `None`: it has none.
    pub(super) fn find(file: &dyn DiskFile, number: u64) -> io::Result<Option<Self>> {
        if file.len()? < ENVELOPE_BYTES {
            return Ok(None);
        }
        let mut bytes = vec![0; 2 * COPY_BYTES];
        file.read_at(0, &mut bytes)?;
        // The first one is written first.
        Ok(bytes.chunks(COPY_BYTES).filter_map(Self::decode).find(|envelope| envelope.number == number))
    }

    pub(super) fn open(&self, keys: &Keys) -> Result<DataKey, KeyError> {
        self.secret(keys).map(|secret| DataKey::new(&secret, &self.key_id))
    }

    pub(super) fn secret(&self, keys: &Keys) -> Result<Secret, KeyError> {
        let key = aes(&keys.get(&self.key_id)?);
        let opened = open_with(&key, &about(self.number, &self.key_id), &self.sealed).map(Zeroizing::new);
        let secret = opened.and_then(|opened| opened.as_slice().try_into().ok()).map(Zeroizing::new);
        secret.ok_or_else(|| KeyError::Wrong { id: self.key_id.clone() })
    }

    pub(super) fn seal(number: u64, secret: &Secret, keys: &Keys) -> Self {
        let (key_id, key) = keys.newest();
        let mut sealed = vec![0; KEY_BYTES + OVERHEAD_BYTES];
        sealed[super::NONCE_LEN..][..KEY_BYTES].copy_from_slice(&**secret);
        seal_with(&aes(&key), random(), &about(number, &key_id), &mut sealed);
        Self { number, key_id, sealed }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.raw(&MAGIC).u64(self.number).text(&self.key_id).raw(&self.sealed);
        let mut copy = out.seal();
        copy.resize(COPY_BYTES, 0);
        copy
    }

    pub(super) fn decode(copy: &[u8]) -> Option<Self> {
        let mut input = Reader::over(copy);
        input.raw(MAGIC.len()).filter(|magic| *magic == MAGIC)?;
        let (number, key_id) = (input.u64()?, input.text()?);
        let sealed = input.raw(KEY_BYTES + OVERHEAD_BYTES)?.to_vec();
        let used = MAGIC.len() + 8 + 4 + key_id.len() + sealed.len();
        let is_whole = key_id.len() <= MAX_ID_BYTES && input.u32()? == crc32c::crc32c(&copy[..used]);
        is_whole.then_some(Self { number, key_id, sealed })
    }
}

fn about(number: u64, key_id: &str) -> Vec<u8> {
    let mut out = Writer::default();
    out.raw(&MAGIC).u64(number).text(key_id);
    out.finish()
}

/// Gives the file another data key; it is durable with the next sync.
pub(super) fn renew(file: &dyn DiskFile, number: u64, keys: &Keys) -> io::Result<DataKey> {
    let secret = Zeroizing::new(random());
    let envelope = Envelope::seal(number, &secret, keys);
    file.write_at(0, &envelope.encode().repeat(2))?;
    Ok(DataKey::new(&secret, &envelope.key_id))
}

/// The key that the store in this folder needs, whoever has it open; `None`: it needs none, is not there, or cannot be read.
pub fn key_of_store(folder: &Path) -> Option<String> {
    let mut bytes = [0; 2 * COPY_BYTES];
    File::open(folder.join(tables::FILE)).ok()?.read_exact(&mut bytes).ok()?;
    bytes.chunks(COPY_BYTES).find_map(Envelope::decode).map(|envelope| envelope.key_id)
}

/// The same bytes once more.
pub(in crate::store) fn write_anew(file: &dyn DiskFile) -> io::Result<()> {
    let mut bytes = [0; 2 * COPY_BYTES];
    file.read_at(0, &mut bytes)?;
    file.write_at(0, &bytes)
}

/// Seals the data key with the newest key, if it is sealed with another; one copy after the other, so that one is always whole.
/// Answers with which it is sealed.
pub(super) fn rewrap(file: &dyn DiskFile, envelope: &Envelope, keys: &Keys) -> io::Result<String> {
    if keys.newest().0 == envelope.key_id {
        return Ok(envelope.key_id.clone());
    }
    let secret = envelope.secret(keys).map_err(io::Error::other)?;
    let renewed = Envelope::seal(envelope.number, &secret, keys);
    let copy = renewed.encode();
    for n in 0..2 {
        file.write_at(n * COPY_BYTES as u64, &copy)?;
        file.sync()?;
    }
    Ok(renewed.key_id)
}

/// A file behind its envelope.
#[derive(Debug)]
pub(in crate::store) struct Enveloped(pub(in crate::store) Arc<dyn DiskFile>);

impl DiskFile for Enveloped {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len()?.saturating_sub(ENVELOPE_BYTES))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        // Of a file without a whole envelope nothing can be read, but nothing it is.
        if buffer.is_empty() { Ok(()) } else { self.0.read_at(offset + ENVELOPE_BYTES, buffer) }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset + ENVELOPE_BYTES, bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len + ENVELOPE_BYTES)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len + ENVELOPE_BYTES)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}
