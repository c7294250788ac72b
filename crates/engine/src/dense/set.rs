//! A set of numbers: nothing beside itself for a run without gaps, a list for a few, otherwise a bit for each where they are
//! dense and two bytes where they are not.

use std::marker::PhantomData;

use super::Number;

/// Members up to which a set is a list: far apart, each would need a chunk of its own. More would be long to move up when
/// the first is taken.
const SHORT: usize = 32;
/// Numbers of a chunk, whose low 16 bits tell them apart.
const CHUNK_BITS: u32 = 16;
/// Members of a chunk from which on it has bits: a list of more would take long to insert into.
const MANY: usize = 1024;
/// Members of a chunk below which it has a list again. Far from [`MANY`], so that a chunk does not go back and forth.
const FEW: u32 = 256;
const WORDS: usize = (1 << CHUNK_BITS) / 64;

/// An ordered set.
#[derive(Debug)]
pub(crate) struct NumberSet<T> {
    content: Content,
    of: PhantomData<T>,
}

#[derive(Debug, Default)]
enum Content {
    #[default]
    Nothing,
    /// All from the first to the last: a backlog, a batch, the one message that most ordering keys have.
    Run(u64, u64),
    /// Sorted, not empty, and not longer than [`SHORT`].
    List(Vec<u64>),
    /// By their numbers; none is empty.
    Chunks(Vec<Chunk>),
}

#[derive(Debug)]
struct Chunk {
    no: u64,
    members: Members,
}

#[derive(Debug)]
enum Members {
    /// Sorted.
    List(Vec<u16>),
    Bits(Box<Bits>),
}

#[derive(Debug)]
struct Bits {
    len: u32,
    /// No bit is set in a word before it.
    first: usize,
    words: [u64; WORDS],
}

impl<T> Default for NumberSet<T> {
    fn default() -> Self {
        Self { content: Content::Nothing, of: PhantomData }
    }
}

impl<T: Number> NumberSet<T> {
    /// Whether it is new.
    pub(crate) fn insert(&mut self, member: T) -> bool {
        let number = member.number();
        match &mut self.content {
            Content::Nothing => self.content = Content::Run(number, number),
            Content::Run(first, last) if (*first..=*last).contains(&number) => return false,
            Content::Run(_, last) if number.checked_sub(1) == Some(*last) => *last = number,
            Content::Run(first, _) if number.checked_add(1) == Some(*first) => *first = number,
            Content::Run(first, last) => {
                self.content = Content::with_gaps(*first, *last);
                return self.insert(member);
            }
            Content::List(list) if list.len() == SHORT => {
                let mut chunks = Vec::new();
                list.iter().for_each(|number| _ = insert(&mut chunks, *number));
                self.content = Content::Chunks(chunks);
                return self.insert(member);
            }
            Content::List(list) => return insert_sorted(list, number),
            Content::Chunks(chunks) => return insert(chunks, number),
        }
        true
    }

    /// All from the first to the last, none of which is there.
    pub(crate) fn insert_run(&mut self, first: T, last: T) {
        let (first, last) = (first.number(), last.number());
        match &mut self.content {
            Content::Nothing => self.content = Content::Run(first, last),
            Content::Run(_, end) if end.checked_add(1) == Some(first) => *end = last,
            _ => (first..=last).for_each(|number| {
                let is_new = self.insert(T::of(number));
                debug_assert!(is_new, "a number is inserted once");
            }),
        }
    }

    /// Whether it was there.
    pub(crate) fn remove(&mut self, member: T) -> bool {
        let number = member.number();
        match &mut self.content {
            Content::Nothing => return false,
            Content::Run(first, last) if !(*first..=*last).contains(&number) => return false,
            Content::Run(first, last) if first == last => self.content = Content::Nothing,
            Content::Run(first, _) if *first == number => *first += 1,
            Content::Run(_, last) if *last == number => *last -= 1,
            Content::Run(first, last) => {
                self.content = Content::with_gaps(*first, *last);
                return self.remove(member);
            }
            Content::List(list) => {
                let was_there = remove_sorted(list, number);
                if list.is_empty() {
                    self.content = Content::Nothing;
                }
                return was_there;
            }
            Content::Chunks(chunks) => {
                let was_there = remove(chunks, number);
                if chunks.is_empty() {
                    self.content = Content::Nothing;
                }
                return was_there;
            }
        }
        true
    }

    pub(crate) fn contains(&self, member: T) -> bool {
        let number = member.number();
        match &self.content {
            Content::Nothing => false,
            Content::Run(first, last) => (*first..=*last).contains(&number),
            Content::List(list) => list.binary_search(&number).is_ok(),
            Content::Chunks(chunks) => {
                find(chunks, number).is_ok_and(|at| chunks[at].members.contains(low(number)))
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.content, Content::Nothing)
    }

    pub(crate) fn first(&self) -> Option<T> {
        match &self.content {
            Content::Nothing => None,
            Content::Run(first, _) => Some(T::of(*first)),
            Content::List(list) => list.first().copied().map(T::of),
            Content::Chunks(chunks) => chunks.first().map(|chunk| T::of(chunk.number(chunk.members.first()))),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = T> {
        self.iter_from(T::of(0))
    }

    /// Those from `start` on, in order.
    pub(crate) fn iter_from(&self, start: T) -> impl Iterator<Item = T> {
        let start = start.number();
        let (run, list, chunks): (_, &[u64], &[Chunk]) = match &self.content {
            Content::Nothing => (None, &[], &[]),
            Content::Run(first, last) => (Some((*first).max(start)..=*last), &[], &[]),
            Content::List(list) => (None, &list[list.partition_point(|number| *number < start)..], &[]),
            Content::Chunks(chunks) => {
                let at = chunks.partition_point(|chunk| chunk.no < start >> CHUNK_BITS);
                (None, &[], &chunks[at..])
            }
        };
        let members = chunks.iter().flat_map(move |chunk| {
            let start = if chunk.no == start >> CHUNK_BITS { low(start) } else { 0 };
            chunk.members.iter_from(start).map(|low| chunk.number(low))
        });
        run.into_iter().flatten().chain(list.iter().copied()).chain(members).map(T::of)
    }
}

impl Content {
    /// A run that is about to have gaps.
    fn with_gaps(first: u64, last: u64) -> Self {
        if last - first < SHORT as u64 / 2 {
            return Self::List((first..=last).collect());
        }
        let chunks = (first >> CHUNK_BITS)..=(last >> CHUNK_BITS);
        let chunk = |no: u64| {
            let from = if no == first >> CHUNK_BITS { low(first) } else { 0 };
            let to = if no == last >> CHUNK_BITS { low(last) } else { u16::MAX };
            Chunk { no, members: Members::of(from, to) }
        };
        Self::Chunks(chunks.map(chunk).collect())
    }
}

/// Whether it is new.
fn insert_sorted<N: Ord + Copy>(list: &mut Vec<N>, number: N) -> bool {
    // Most are added behind all others.
    let at = match list.last() {
        Some(greatest) if *greatest < number => list.len(),
        _ => match list.binary_search(&number) {
            Ok(_) => return false,
            Err(at) => at,
        },
    };
    list.insert(at, number);
    true
}

/// Whether it was there.
fn remove_sorted<N: Ord + Copy>(list: &mut Vec<N>, number: N) -> bool {
    let found = list.binary_search(&number);
    found.is_ok_and(|at| list.remove(at) == number)
}

fn find(chunks: &[Chunk], number: u64) -> Result<usize, usize> {
    let no = number >> CHUNK_BITS;
    // Most are added to the last and taken from the first.
    match chunks {
        [first, ..] if first.no == no => Ok(0),
        [.., last] if last.no == no => Ok(chunks.len() - 1),
        [.., last] if last.no < no => Err(chunks.len()),
        _ => chunks.binary_search_by_key(&no, |chunk| chunk.no),
    }
}

fn insert(chunks: &mut Vec<Chunk>, number: u64) -> bool {
    match find(chunks, number) {
        Ok(at) => chunks[at].members.insert(low(number)),
        Err(at) => {
            // Sets with one chunk are the most frequent by far.
            chunks.reserve_exact(if chunks.is_empty() { 1 } else { chunks.len() });
            chunks.insert(at, Chunk { no: number >> CHUNK_BITS, members: Members::List(vec![low(number)]) });
            true
        }
    }
}

fn remove(chunks: &mut Vec<Chunk>, number: u64) -> bool {
    let Ok(at) = find(chunks, number) else { return false };
    let was_there = chunks[at].members.remove(low(number));
    if chunks[at].members.is_empty() {
        chunks.remove(at);
    }
    was_there
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
fn low(number: u64) -> u16 {
    number as u16
}

impl Chunk {
    fn number(&self, low: u16) -> u64 {
        self.no << CHUNK_BITS | u64::from(low)
    }
}

impl Members {
    fn of(first: u16, last: u16) -> Self {
        if usize::from(last - first) < MANY {
            return Self::List((first..=last).collect());
        }
        let mut bits = Bits::empty();
        (first..=last).for_each(|low| _ = bits.insert(low));
        Self::Bits(Box::new(bits))
    }

    fn insert(&mut self, low: u16) -> bool {
        let list = match self {
            Self::Bits(bits) => return bits.insert(low),
            Self::List(list) => list,
        };
        if !insert_sorted(list, low) {
            return false;
        }
        if list.len() > MANY {
            *self = Self::Bits(Box::new(Bits::of(list)));
        }
        true
    }

    fn remove(&mut self, low: u16) -> bool {
        match self {
            Self::List(list) => remove_sorted(list, low),
            Self::Bits(bits) => {
                let was_there = bits.remove(low);
                if bits.len < FEW {
                    *self = Self::List(bits.iter_from(0).collect());
                }
                was_there
            }
        }
    }

    fn contains(&self, low: u16) -> bool {
        match self {
            Self::List(list) => list.binary_search(&low).is_ok(),
            Self::Bits(bits) => bits.words[word(low)] & bit(low) != 0,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::List(list) => list.is_empty(),
            Self::Bits(bits) => bits.len == 0,
        }
    }

    fn first(&self) -> u16 {
        match self {
            Self::List(list) => list[0],
            Self::Bits(bits) => lowest(bits.first, bits.words[bits.first]),
        }
    }

    fn iter_from(&self, start: u16) -> impl Iterator<Item = u16> {
        let (list, bits) = match self {
            Self::List(list) => (&list[list.partition_point(|low| *low < start)..], None),
            Self::Bits(bits) => (&[][..], Some(bits)),
        };
        list.iter().copied().chain(bits.into_iter().flat_map(move |bits| bits.iter_from(start)))
    }
}

impl Bits {
    fn empty() -> Self {
        Self { len: 0, first: WORDS, words: [0; WORDS] }
    }

    fn of(list: &[u16]) -> Self {
        let mut bits = Self::empty();
        list.iter().for_each(|low| _ = bits.insert(*low));
        bits
    }

    fn insert(&mut self, low: u16) -> bool {
        let is_new = self.words[word(low)] & bit(low) == 0;
        self.words[word(low)] |= bit(low);
        self.first = self.first.min(word(low));
        self.len += u32::from(is_new);
        is_new
    }

    fn remove(&mut self, low: u16) -> bool {
        let was_there = self.words[word(low)] & bit(low) != 0;
        self.words[word(low)] &= !bit(low);
        self.len -= u32::from(was_there);
        while self.len > 0 && self.words[self.first] == 0 {
            self.first += 1;
        }
        was_there
    }

    fn iter_from(&self, start: u16) -> impl Iterator<Item = u16> {
        let from = word(start).max(self.first);
        let words = self.words.iter().enumerate().skip(from);
        words.flat_map(move |(at, bits)| {
            let mut left = if at == word(start) { bits & (u64::MAX << (start % 64)) } else { *bits };
            std::iter::from_fn(move || {
                let low = (left != 0).then(|| lowest(at, left))?;
                left &= left - 1;
                Some(low)
            })
        })
    }
}

fn word(low: u16) -> usize {
    usize::from(low) / 64
}

fn bit(low: u16) -> u64 {
    1 << (low % 64)
}

/// The number of the lowest bit of a word that has one.
fn lowest(word: usize, bits: u64) -> u16 {
    u16::try_from(word * 64 + bits.trailing_zeros() as usize).expect("a chunk has so many bits")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::message::Seq;

    /// What is done to a set: numbers from `start` in steps are added or removed.
    #[derive(Clone, Debug)]
    struct Stretch {
        is_added: bool,
        start: u64,
        step: u64,
        count: u64,
    }

    fn stretch() -> impl Strategy<Value = Stretch> {
        let steps = prop_oneof![Just(1), 1u64..200, Just(40_000)];
        let counts = prop_oneof![Just(1u64), 1u64..3000];
        (any::<bool>(), 0u64..150_000, steps, counts).prop_map(|(is_added, start, step, count)| Stretch {
            is_added,
            start,
            step,
            count,
        })
    }

    fn assert_same(set: &NumberSet<Seq>, model: &BTreeSet<Seq>, start: u64) -> Result<(), TestCaseError> {
        prop_assert_eq!(set.first(), model.first().copied());
        prop_assert_eq!(set.is_empty(), model.is_empty());
        prop_assert!(set.iter().eq(model.iter().copied()));
        prop_assert!(set.iter_from(Seq(start)).eq(model.range(Seq(start)..).copied()));
        prop_assert_eq!(set.contains(Seq(start)), model.contains(&Seq(start)));
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Promise: it is the set that a B-tree would be, dense or sparse, growing or shrinking.
        #[test]
        fn set_is_what_a_btree_would_be(stretches in vec(stretch(), 1..12), start in 0u64..200_000) {
            let (mut set, mut model) = (NumberSet::default(), BTreeSet::new());
            for Stretch { is_added, start, step, count } in stretches {
                for seq in (0..count).map(|n| Seq(start + n * step)) {
                    if is_added {
                        prop_assert_eq!(set.insert(seq), model.insert(seq));
                    } else {
                        prop_assert_eq!(set.remove(seq), model.remove(&seq));
                    }
                }
                assert_same(&set, &model, start)?;
            }
            assert_same(&set, &model, start)?;
            for seq in std::mem::take(&mut model) {
                prop_assert_eq!(set.first(), Some(seq));
                prop_assert!(set.remove(seq));
            }
            assert_same(&set, &model, start)?;
        }
    }
}
