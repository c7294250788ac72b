//! Bodies that their number determines, so that a wrong byte anywhere shows.

use bytes::Bytes;

use crate::dice::Dice;

/// The number is its first bytes.
const NUMBER_BYTES: usize = 8;
/// One body in so many is large.
const LARGE_ONCE_IN: u64 = 200;
const LARGE_BYTES: u64 = 64 << 10;
const USUAL_BYTES: u64 = 4 << 10;

/// 8 bytes to 4 KiB, now and then up to 64 KiB.
pub(crate) fn body(number: u64) -> Bytes {
    let mut dice = Dice::new(number);
    let most = if dice.one_in(LARGE_ONCE_IN) { LARGE_BYTES } else { USUAL_BYTES };
    let len = usize::try_from(dice.below(most)).expect("bodies fit into memory");
    sized(number, NUMBER_BYTES.max(len))
}

/// The same of such a length, which is at least that of the number.
pub(crate) fn sized(number: u64, len: usize) -> Bytes {
    let mut dice = Dice::new(!number);
    let mut bytes = number.to_be_bytes().to_vec();
    while bytes.len() < len {
        bytes.extend(dice.roll().to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

/// Whose body it is, if it is one.
pub(crate) fn number_of(body: &[u8]) -> Option<u64> {
    body.first_chunk().copied().map(u64::from_be_bytes)
}
