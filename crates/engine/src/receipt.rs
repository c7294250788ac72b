//! Receipts: proof of holding a message, authenticated so that they cannot be made up.

use bytes::{BufMut, Bytes, BytesMut};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

use crate::message::{Epoch, KeyId, QueueId, Seq};

/// Length on the wire: version, queue, seq, epoch, 128-bit MAC.
pub const RECEIPT_BYTES: usize = 1 + 4 + 8 + 8 + 16;
const VERSION: u8 = 1;
const MAC_AT: usize = RECEIPT_BYTES - 16;

/// One delivery of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) queue: QueueId,
    pub(crate) seq: Seq,
    pub(crate) epoch: Epoch,
}

/// Makes and checks receipts, and hashes keys. The key is made with the store and never leaves it, so that a receipt of another shard, or
/// one that was made up, is told apart from one that merely expired.
#[derive(Clone)]
pub(crate) struct Sealer {
    key: [u8; 16],
}

impl Sealer {
    pub(crate) fn new(key: [u8; 16]) -> Self {
        Self { key }
    }

    pub(crate) fn seal(&self, receipt: Receipt) -> Bytes {
        let mut out = BytesMut::with_capacity(RECEIPT_BYTES);
        out.put_u8(VERSION);
        out.put_u32(receipt.queue.0);
        out.put_u64(receipt.seq.0);
        out.put_u64(receipt.epoch.0);
        let mac = self.mac(&out);
        out.put_u128(mac);
        out.freeze()
    }

    pub(crate) fn open(&self, bytes: &[u8]) -> Option<Receipt> {
        let bytes: &[u8; RECEIPT_BYTES] = bytes.try_into().ok()?;
        let (content, mac) = bytes.split_at(MAC_AT);
        // A 128-bit MAC that is compared once per call over a network leaks nothing worth timing.
        if content[0] != VERSION || self.mac(content).to_be_bytes() != *mac {
            return None;
        }
        Some(Receipt {
            queue: QueueId(u32::from_be_bytes(content[1..5].try_into().ok()?)),
            seq: Seq(u64::from_be_bytes(content[5..13].try_into().ok()?)),
            epoch: Epoch(u64::from_be_bytes(content[13..21].try_into().ok()?)),
        })
    }

    pub(crate) fn ordering_key(&self, text: &str) -> Option<KeyId> {
        KeyId::in_slot(text, &self.key)
    }

    pub(crate) fn fairness_key(&self, text: &str) -> Option<KeyId> {
        KeyId::of(text, &self.key)
    }

    fn mac(&self, content: &[u8]) -> u128 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(content);
        hasher.finish128().as_u128()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIPT: Receipt = Receipt { queue: QueueId(3), seq: Seq(77), epoch: Epoch(9) };

    #[test]
    fn sealed_receipt_opens() {
        let sealer = Sealer::new([7; 16]);
        assert_eq!(sealer.open(&sealer.seal(RECEIPT)), Some(RECEIPT));
    }

    /// Promise: a forged receipt changes nothing. Any flipped bit, any other length, any other key is refused.
    #[test]
    fn changed_receipt_does_not_open() {
        let sealer = Sealer::new([7; 16]);
        let receipt = sealer.seal(RECEIPT);
        for bit in 0..RECEIPT_BYTES * 8 {
            let mut forged = receipt.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(sealer.open(&forged), None, "bit {bit}");
        }
        assert_eq!(sealer.open(&receipt[1..]), None);
        assert_eq!(sealer.open(&[]), None);
        assert_eq!(Sealer::new([8; 16]).open(&receipt), None);
    }
}
