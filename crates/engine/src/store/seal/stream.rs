//! Records one after the other in a file that is written once, such as a backup.

use super::envelope::Envelope;
use super::{DataKey, KEY_BYTES, KeyError, Keys, NONCE_LEN, OVERHEAD_BYTES, envelope, random};
use zeroize::Zeroizing;

/// Seals the records of one file, with a key that only this file has.
///
/// Whoever writes the file puts the [header](Self::begin) first, then the records as they are returned, each with its length
/// before it. Records cannot be left out, repeated, exchanged or cut off at the end without [`StreamOpener`] noticing.
#[derive(Debug)]
pub struct StreamSealer {
    key: DataKey,
    next: u64,
}

/// Opens what a [`StreamSealer`] sealed.
#[derive(Debug)]
pub struct StreamOpener {
    key: DataKey,
    next: u64,
}

/// Length of the header.
pub const HEADER_BYTES: usize = envelope::COPY_BYTES;

impl StreamSealer {
    /// With the newest of the keys. The header goes before everything else.
    pub fn begin(keys: &Keys) -> (Vec<u8>, Self) {
        let secret = Zeroizing::new(random::<KEY_BYTES>());
        let envelope = Envelope::seal(STREAM, &secret, keys);
        (envelope.encode(), Self { key: DataKey::new(&secret, &envelope.key_id), next: 0 })
    }

    /// The next record, sealed: 28 bytes longer. The last one must be told, and may be empty.
    pub fn seal(&mut self, record: &[u8], is_last: bool) -> Vec<u8> {
        let mut room = vec![0; record.len() + OVERHEAD_BYTES];
        room[NONCE_LEN..][..record.len()].copy_from_slice(record);
        self.key.seal(&about(self.next, is_last), &mut room);
        self.next += 1;
        room
    }
}

impl StreamOpener {
    /// `Ok(None)`: this is no header, or it is damaged.
    pub fn begin(header: &[u8], keys: &Keys) -> Result<Option<Self>, KeyError> {
        let envelope = header.get(..HEADER_BYTES).and_then(Envelope::decode);
        let Some(envelope) = envelope.filter(|envelope| envelope.number == STREAM) else { return Ok(None) };
        Ok(Some(Self { key: envelope.open(keys)?, next: 0 }))
    }

    /// The next record. `None`: it is damaged, or not the next one; or one is the last that should not be, or is not.
    pub fn open(&mut self, sealed: &[u8], is_last: bool) -> Option<Vec<u8>> {
        let record = self.key.open(&about(self.next, is_last), sealed)?;
        self.next += 1;
        Some(record)
    }
}

/// No segment has this number.
const STREAM: u64 = u64::MAX;

fn about(number: u64, is_last: bool) -> [u8; 9] {
    let mut about = [0; 9];
    about[..8].copy_from_slice(&number.to_le_bytes());
    about[8] = u8::from(is_last);
    about
}
