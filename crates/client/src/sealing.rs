//! Bodies sealed end to end: brokers, sidecars and volumes only ever have AES-256-GCM ciphertext.
//!
//! ```
//! use ackwell_client::Message;
//! use ackwell_client::sealing::Keyring;
//!
//! # let key_of_q3 = [3; 32];
//! # let key_of_q4 = Keyring::parse_key("/V1uHvgkZnpO4fnYaqAJ6bTJj7a2GXQ181MHwlGEOns=")?;
//! let keyring = Keyring::new("2026-q4", [("2026-q4", key_of_q4), ("2026-q3", key_of_q3)])?;
//! let sealed = keyring.seal("orders", Message { body: "two discs".into(), ..Message::default() })?;
//! assert_eq!(keyring.open("orders", &sealed)?.body, "two discs");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The format, the same in every language, is in `docs/reference/sealing.md`.

use std::collections::HashMap;
use std::fmt;

use ackwell_proto::v1::Message;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

/// The header that says that a body is sealed, and with the key of which id.
pub const KEY_HEADER: &str = "sealed-key";
/// The header that says for which queue it was sealed: for those to which messages of other queues are moved.
pub const QUEUE_HEADER: &str = "sealed-queue";

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const MAX_KEY_ID_CHARS: usize = 64;

/// Seals with its current key, and opens with every key that it has.
pub struct Keyring {
    current: String,
    keys: HashMap<String, LessSafeKey>,
    allows_unsealed: bool,
}

impl Keyring {
    /// A keyring of keys of 32 bytes, by their ids: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    pub fn new<Id, Key>(
        current: impl Into<String>,
        keys: impl IntoIterator<Item = (Id, Key)>,
    ) -> Result<Self, InvalidKey>
    where
        Id: Into<String>,
        Key: AsRef<[u8]>,
    {
        let checked = keys.into_iter().map(|(id, key)| {
            let id = id.into();
            let key = checked(&id, key.as_ref())?;
            Ok((id, key))
        });
        let (current, keys) = (current.into(), checked.collect::<Result<HashMap<_, _>, InvalidKey>>()?);
        if !keys.contains_key(&current) {
            return Err(InvalidKey::NoCurrent { id: current });
        }
        Ok(Self { current, keys, allows_unsealed: false })
    }

    /// Reads a key of 32 bytes that is written as base64.
    pub fn parse_key(text: &str) -> Result<[u8; KEY_BYTES], InvalidKey> {
        let key = STANDARD.decode(text.trim()).map_err(|_malformed| InvalidKey::NoBase64)?;
        key.try_into().map_err(|key: Vec<u8>| InvalidKey::Length { got: key.len() })
    }

    /// Opens messages that are not sealed as they are: only while senders change over to sealing.
    #[must_use]
    pub fn allow_unsealed(self) -> Self {
        Self { allows_unsealed: true, ..self }
    }

    /// The message with its body sealed, to be sent to this queue.
    pub fn seal(&self, queue: &str, message: Message) -> Result<Message, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_unspecified| SealError::NoRandomness)?;
        self.seal_with(queue, message, nonce)
    }

    /// No nonce may come twice with a key.
    fn seal_with(
        &self,
        queue: &str,
        mut message: Message,
        nonce: [u8; NONCE_LEN],
    ) -> Result<Message, SealError> {
        if message.headers.contains_key(KEY_HEADER) {
            return Err(SealError::AlreadySealed);
        }
        let bound = Aad::from(bound(&self.current, queue, &message.content_type));
        let mut text = message.body.to_vec();
        self.keys[&self.current]
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut text)
            .expect("a body of less than 64 GiB");
        message.body = [&[VERSION], nonce.as_slice(), &text].concat().into();
        message.headers.insert(KEY_HEADER.to_owned(), self.current.clone());
        message.headers.insert(QUEUE_HEADER.to_owned(), name(queue).to_owned());
        Ok(message)
    }

    /// The message that was sealed for this queue.
    pub fn open(&self, queue: &str, message: &Message) -> Result<Message, OpenError> {
        let id = match message.headers.get(KEY_HEADER) {
            None if self.allows_unsealed => return Ok(message.clone()),
            None => return Err(OpenError { failure: OpenFailure::NotSealed, key_id: String::new() }),
            Some(id) if is_key_id(id) => id,
            Some(_) => return Err(OpenError { failure: OpenFailure::UnknownKey, key_id: String::new() }),
        };
        let bound = bound(id, queue, &message.content_type);
        let body = self
            .opened(id, &message.body, bound)
            .map_err(|failure| OpenError { failure, key_id: id.clone() })?;
        let mut opened = Message { body: body.into(), ..message.clone() };
        opened.headers.retain(|name, _| ![KEY_HEADER, QUEUE_HEADER].contains(&name.as_str()));
        Ok(opened)
    }

    fn opened(&self, id: &str, sealed: &[u8], bound: Vec<u8>) -> Result<Vec<u8>, OpenFailure> {
        let key = self.keys.get(id).ok_or(OpenFailure::UnknownKey)?;
        let (version, rest) = sealed.split_first().ok_or(OpenFailure::Changed)?;
        if *version != VERSION {
            return Err(OpenFailure::UnknownFormat);
        }
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or(OpenFailure::Changed)?;
        let mut text = text.to_vec();
        key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(bound), &mut text)
            .map_err(|_unspecified| OpenFailure::Changed)?;
        text.truncate(text.len() - TAG_BYTES);
        Ok(text)
    }
}

impl fmt::Debug for Keyring {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.keys.keys();
        f.debug_struct("Keyring").field("current", &self.current).field("ids", &ids).finish_non_exhaustive()
    }
}

fn checked(id: &str, key: &[u8]) -> Result<LessSafeKey, InvalidKey> {
    if !is_key_id(id) {
        return Err(InvalidKey::Id { id: id.to_owned() });
    }
    let unbound = UnboundKey::new(&AES_256_GCM, key);
    unbound.map(LessSafeKey::new).map_err(|_unspecified| InvalidKey::Length { got: key.len() })
}

fn is_key_id(id: &str) -> bool {
    (1..=MAX_KEY_ID_CHARS).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Who sends from another namespace writes it before the queue's name.
fn name(queue: &str) -> &str {
    queue.rsplit_once('/').map_or(queue, |(_, name)| name)
}

/// What is authenticated besides the body.
fn bound(id: &str, queue: &str, content_type: &str) -> Vec<u8> {
    let mut bound = vec![VERSION];
    for text in [id, name(queue), content_type] {
        let length = u32::try_from(text.len()).expect("a text of less than 4 GiB");
        bound.extend(length.to_be_bytes());
        bound.extend(text.as_bytes());
    }
    bound
}

/// A keyring cannot be made of this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// The id is none.
    #[error("{id:?} is no id of a key: 1 to 64 letters, digits, '.', '_' and '-'")]
    Id {
        /// As it was given.
        id: String,
    },
    /// The key has another length.
    #[error("the key has {got} bytes: it needs {KEY_BYTES}, as `openssl rand -base64 32` makes them")]
    Length {
        /// Bytes.
        got: usize,
    },
    /// The text is no base64.
    #[error("the key is no base64")]
    NoBase64,
    /// The current key is not among the keys.
    #[error("the keyring does not have its current key {id:?}")]
    NoCurrent {
        /// Of the current key.
        id: String,
    },
}

/// A message could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealError {
    /// It has the header already.
    #[error("the message has a header {KEY_HEADER}: it is sealed already")]
    AlreadySealed,
    /// The system gave no random numbers.
    #[error("the system gave no random numbers")]
    NoRandomness,
}

/// Why a message was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenFailure {
    /// It has no header [`KEY_HEADER`].
    #[error("the message is not sealed: it has no header {KEY_HEADER} [NOT_SEALED]")]
    NotSealed,
    /// The keyring does not have its key.
    #[error("the keyring does not have the key that the message was sealed with [UNKNOWN_KEY]")]
    UnknownKey,
    /// A later version sealed it.
    #[error("the message was sealed in a format that this version does not know [UNKNOWN_FORMAT]")]
    UnknownFormat,
    /// It is not what was sealed for this queue: changed, cut off, of another queue, or by another key of the same id.
    #[error("the message is not what was sealed for this queue with this key [CHANGED]")]
    Changed,
}

/// A message could not be opened. Says which key it names, and nothing of what it contains.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{failure}, key {key_id:?}")]
pub struct OpenError {
    /// Why.
    pub failure: OpenFailure,
    /// Empty where the message names none that could be one.
    pub key_id: String,
}

#[cfg(test)]
mod tests;
