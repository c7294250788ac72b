//! The one place where bytes are sealed and opened: AES-256-GCM, with a key of its own for each file.
//!
//! A file has a **data key**, drawn when the file is made or used again. It lies in the file's [`envelope`], itself sealed with a
//! key that somebody keeps elsewhere ([`Keys`]). What is sealed is three pieces in a row: a nonce, the bytes, and a tag that only
//! the key can make for these bytes, this nonce, and what is said **about** them: where they belong. Moved elsewhere they do not
//! open.
//!
//! A nonce is eight random bytes and a count. The random ones are drawn anew each time a key is taken up, so that a process which
//! overwrites what its predecessor left half done does not use a nonce of before.
//!
//! The log seals records and payloads one by one ([`Cover`]), since a record is written once and payloads are read alone;
//! beneath redb are sealed [`blocks`](Blocks). Nothing here says what a key is, not even in `Debug`.

mod blocks;
mod disk;
mod envelope;
mod keys;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use blocks::Blocks;
pub(in crate::store) use disk::{cover, rewrap};
use envelope::Envelope;
pub use envelope::key_of_store;
pub(in crate::store) use envelope::{Enveloped, write_anew as envelope_anew};
pub use keys::{Followed, KeyError, Keys, KeysError};

/// Behind what is sealed.
const TAG_BYTES: usize = 16;
/// So much longer is what is sealed.
const OVERHEAD_BYTES: usize = NONCE_LEN + TAG_BYTES;
const KEY_BYTES: usize = 32;
/// Of a nonce, what is random.
const LIFE_BYTES: usize = 8;

type Secret = Zeroizing<[u8; KEY_BYTES]>;

/// Seals and opens what is in one file.
pub(crate) struct DataKey {
    key: LessSafeKey,
    /// Of the key that it is sealed with itself.
    sealed_with: String,
    nonces: Mutex<Nonces>,
}

/// The next nonce.
struct Nonces {
    life: [u8; LIFE_BYTES],
    /// In this life; `None`: all were given out.
    next: Option<u32>,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey").field("sealed_with", &self.sealed_with).finish_non_exhaustive()
    }
}

impl Nonces {
    fn next(&mut self) -> [u8; NONCE_LEN] {
        let count = self.next.unwrap_or_else(|| {
            self.life = random();
            0
        });
        self.next = count.checked_add(1);
        let mut nonce = [0; NONCE_LEN];
        nonce[..LIFE_BYTES].copy_from_slice(&self.life);
        nonce[LIFE_BYTES..].copy_from_slice(&count.to_le_bytes());
        nonce
    }
}

impl DataKey {
    fn new(secret: &Secret, sealed_with: &str) -> Self {
        let nonces = Mutex::new(Nonces { life: random(), next: Some(0) });
        Self { key: aes(secret), sealed_with: sealed_with.to_owned(), nonces }
    }

    /// Seals what lies between room for a nonce and room for a tag, and fills these.
    fn seal(&self, about: &[u8], room: &mut [u8]) {
        let nonce = self.nonces.lock().unwrap_or_else(PoisonError::into_inner).next();
        seal_with(&self.key, nonce, about, room);
    }

    /// `None`: it was not sealed with this key, is about something else, or is damaged.
    fn open(&self, about: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        open_with(&self.key, about, sealed)
    }
}

fn aes(secret: &Secret) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &**secret).expect("it has the length of a key"))
}

fn seal_with(key: &LessSafeKey, nonce: [u8; NONCE_LEN], about: &[u8], room: &mut [u8]) {
    let (nonce_room, rest) = room.split_at_mut(NONCE_LEN);
    let (bytes, tag_room) = rest.split_at_mut(rest.len() - TAG_BYTES);
    nonce_room.copy_from_slice(&nonce);
    let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(about), bytes);
    tag_room.copy_from_slice(tag.expect("it is far shorter than 64 GiB").as_ref());
}

fn open_with(key: &LessSafeKey, about: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, rest) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut bytes = rest.to_vec();
    let nonce = Nonce::assume_unique_for_key(*nonce);
    let len = key.open_in_place(nonce, Aad::from(about), &mut bytes).ok()?.len();
    bytes.truncate(len);
    Some(bytes)
}

/// Nothing is decided by it: it only keeps keys and nonces apart.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system has randomness once it is up");
    bytes
}

/// What lies over the content of a segment.
#[derive(Clone, Debug)]
pub(crate) enum Cover {
    /// Nothing: it can be read as it is.
    None,
    /// It is sealed.
    Sealed(Arc<DataKey>),
    /// It is sealed with a key that is not there.
    Locked(KeyError),
    /// What it was sealed with cannot be read any more, or nothing was written yet.
    Lost,
}

impl Cover {
    /// Bytes to leave before and behind what is to be sealed.
    pub(crate) fn room(&self) -> (usize, usize) {
        if matches!(self, Self::None) { (0, 0) } else { (NONCE_LEN, TAG_BYTES) }
    }

    /// Seals what lies between these.
    pub(crate) fn seal(&self, about: &[u8], room: &mut [u8]) {
        match self {
            Self::None => {}
            Self::Sealed(key) => key.seal(about, room),
            // Whoever writes looks whether he may; nothing in clear is left to be written.
            Self::Locked(_) | Self::Lost => room.fill(0),
        }
    }

    /// `None`: it is not what was sealed, or cannot be opened.
    pub(crate) fn open(&self, about: &[u8], sealed: Bytes) -> Option<Bytes> {
        match self {
            Self::None => Some(sealed),
            Self::Sealed(key) => key.open(about, &sealed).map(Bytes::from),
            Self::Locked(_) | Self::Lost => None,
        }
    }

    /// Whether there is anything to read, and something may be written.
    pub(crate) fn can_be_lifted(&self) -> bool {
        matches!(self, Self::None | Self::Sealed(_))
    }

    /// The key that the content can be opened with.
    pub(crate) fn key_id(&self) -> Option<&str> {
        match self {
            Self::Sealed(key) => Some(&key.sealed_with),
            _ => None,
        }
    }

    /// Of the file of a segment.
    pub(in crate::store) fn find(
        file: &dyn crate::store::disk::DiskFile,
        number: u64,
        keys: &Keys,
    ) -> io::Result<Self> {
        Ok(match Envelope::find(file, number)?.map(|envelope| envelope.open(keys)) {
            Some(Ok(key)) => Self::Sealed(Arc::new(key)),
            Some(Err(error)) => Self::Locked(error),
            None => Self::Lost,
        })
    }

    /// Gives the file of a segment another key. Nothing that was in it can be read any more.
    pub(in crate::store) fn renew(
        file: &dyn crate::store::disk::DiskFile,
        number: u64,
        keys: &Keys,
    ) -> io::Result<Self> {
        envelope::renew(file, number, keys).map(|key| Self::Sealed(Arc::new(key)))
    }
}
