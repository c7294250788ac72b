//! Bodies that say which message they belong to, and that can be checked to the last byte.

use bytes::{Bytes, BytesMut};

/// The number of its message.
const NUMBER_BYTES: usize = 8;
/// Bodies begin at different places of the filler, so that one is not another with a new number. A prime: what comes in
/// round figures does not repeat.
const SHIFTS: u64 = 251;

/// Makes and checks bodies of one length.
#[derive(Clone, Debug)]
pub struct Bodies {
    len: usize,
    filler: Vec<u8>,
}

impl Bodies {
    /// Of that length, which has room for a number at least.
    pub fn new(len: usize) -> Self {
        let len = len.max(NUMBER_BYTES);
        let shifts = usize::try_from(SHIFTS).expect("small");
        Self { len, filler: noise(len + shifts) }
    }

    /// In bytes, of each.
    pub fn len_bytes(&self) -> usize {
        self.len
    }

    /// Of the messages with these numbers, in one piece of memory.
    pub fn of(&self, numbers: std::ops::Range<u64>) -> Vec<Bytes> {
        let count = usize::try_from(numbers.end - numbers.start).expect("a batch is small");
        let mut all = BytesMut::with_capacity(count * self.len);
        for number in numbers {
            all.extend_from_slice(&number.to_le_bytes());
            all.extend_from_slice(self.rest(number));
        }
        let mut all = all.freeze();
        (0..count).map(|_| all.split_to(self.len)).collect()
    }

    /// The number of its message; `None` when it is not, byte for byte, the body that this one was sent with.
    pub fn number(&self, body: &[u8]) -> Option<u64> {
        let (number, rest) = body.split_first_chunk()?;
        let number = u64::from_le_bytes(*number);
        (rest == self.rest(number)).then_some(number)
    }

    fn rest(&self, number: u64) -> &[u8] {
        let start = usize::try_from(number % SHIFTS).expect("small");
        &self.filler[start..start + self.len - NUMBER_BYTES]
    }
}

/// Bytes that no disk or file system can make shorter (xorshift).
pub fn noise(len: usize) -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: a body with any byte changed is noticed.
    #[test]
    fn number_changed_byte_is_none() {
        let bodies = Bodies::new(100);
        let body = bodies.of(7..9).remove(1);
        assert_eq!(bodies.number(&body), Some(8));
        for index in 0..body.len() {
            let mut changed = body.to_vec();
            changed[index] ^= 1;
            assert_eq!(bodies.number(&changed), None, "byte {index}");
        }
        assert_eq!(bodies.number(&body[1..]), None);
        assert_eq!(bodies.number(&[]), None);
    }
}
