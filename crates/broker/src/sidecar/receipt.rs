//! Receipts as the application sees them: the broker's receipt behind the ordinal of the shard that made it.
//!
//! Layout: one byte [`TAG`], two bytes ordinal (big endian), then the broker's receipt. Nothing is remembered, so
//! receipts outlive a restart of the sidecar.

use ackwell_proto::{Failure, Reason};
use bytes::{BufMut, Bytes, BytesMut};

/// First byte of the first layout; another layout gets another one.
const TAG: u8 = 1;
const PREFIX_BYTES: usize = 3;
/// The API promises applications at most 64 bytes.
const MAX_BYTES: usize = 64;

/// A receipt, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Receipt {
    pub(crate) shard: u16,
    pub(crate) inner: Bytes,
}

impl Receipt {
    /// What the application gets to see.
    pub(crate) fn seal(shard: u16, inner: &[u8]) -> Bytes {
        let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + inner.len());
        bytes.put_u8(TAG);
        bytes.put_u16(shard);
        bytes.put_slice(inner);
        bytes.freeze()
    }

    /// Takes apart what the application gave, for a queue of `shards` shards.
    pub(crate) fn open(sealed: &Bytes, shards: usize) -> Result<Self, Failure> {
        match sealed.as_ref() {
            [TAG, high, low, inner @ ..] if !inner.is_empty() && sealed.len() <= MAX_BYTES => {
                let shard = u16::from_be_bytes([*high, *low]);
                if usize::from(shard) >= shards {
                    return Err(gone(shard, shards));
                }
                Ok(Self { shard, inner: sealed.slice(PREFIX_BYTES..) })
            }
            _ => Err(invalid("it does not look like one")),
        }
    }
}

/// A shard goes when nothing of it can be settled any more.
fn gone(shard: u16, shards: usize) -> Failure {
    let message = format!(
        "the receipt is no longer valid: the queue has {shards} shards, and its shard {shard} is gone"
    );
    Failure::new(Reason::ReceiptExpired, message)
}

fn invalid(why: &str) -> Failure {
    let help = "give the bytes of Delivery.receipt unchanged, to the queue that the message came from";
    Failure::new(Reason::InvalidReceipt, format!("receipt was not made by this queue: {why}; {help}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A receipt finds the shard that made it, whatever bytes the broker chose.
    #[test]
    fn sealed_receipt_opened_is_unchanged() {
        for (shard, length) in [(0, 1), (7, 48), (u16::MAX, 61)] {
            let inner = Bytes::from(vec![0xA5; length]);
            let sealed = Receipt::seal(shard, &inner);
            assert!(sealed.len() <= MAX_BYTES);
            assert_eq!(Receipt::open(&sealed, 1 << 16), Ok(Receipt { shard, inner }));
        }
    }

    /// Garbled receipts are refused by item; they never reach a shard.
    #[test]
    fn garbled_receipt_is_refused() {
        let too_long = Receipt::seal(0, &[0; 62]);
        for bad in [Bytes::new(), Bytes::from_static(&[1, 0, 0]), Bytes::from_static(b"\x02\0\0x"), too_long]
        {
            assert_eq!(Receipt::open(&bad, 2).unwrap_err().reason, Reason::InvalidReceipt, "{bad:?}");
        }
    }

    /// What a shard delivered is over before the shard goes.
    #[test]
    fn receipt_of_a_shard_that_is_gone_has_expired() {
        let sealed = Receipt::seal(2, b"inner");
        assert_eq!(Receipt::open(&sealed, 2).unwrap_err().reason, Reason::ReceiptExpired);
    }
}
