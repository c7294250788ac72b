//! What a power cut leaves of the changes that were not synced.

use crate::dice::Dice;

/// Counts all changes of a disk: the order in which they were made.
pub(super) type Tick = u64;

/// Which changes that were not synced are found after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// Of each sector, length and name any version since the last sync, whatever became of the others.
    Coin,
    /// All but a few, which may be the oldest.
    Holes,
    /// All up to some moment and none after it; what was being written is torn.
    Prefix,
}

/// What the device writes as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sector {
    /// 512 bytes.
    Small,
    /// 4096 bytes.
    Large,
}

const SMALL: usize = 512;
const LARGE: usize = 4096;
/// In worlds of large sectors, one page in so many is torn in a power cut that tears any.
const TORN_ONCE_IN: u64 = 4;

/// Decides over each change of a disk when its power is cut.
#[derive(Debug)]
pub(super) struct Judge {
    dice: Dice,
    survival: Survival,
    sector: Sector,
    /// Whether this cut tears large sectors too: some devices that call them whole do.
    tears: bool,
    /// In [`Survival::Holes`], one in so many.
    hole_once_in: u64,
    /// In [`Survival::Prefix`], the first change that is not whole.
    until: Tick,
}

impl Survival {
    /// One of them.
    pub(super) fn any(dice: &mut Dice) -> Self {
        let choices = [Self::Nothing, Self::Everything, Self::Coin, Self::Holes, Self::Prefix];
        choices[dice.weighted(&[1, 1, 3, 2, 3])]
    }
}

impl Judge {
    /// Over changes from `oldest` to the one before `next`.
    pub(super) fn new(
        seed: u64,
        survival: Option<Survival>,
        sector: Sector,
        oldest: Tick,
        next: Tick,
    ) -> Self {
        let mut dice = Dice::new(seed);
        let any = Survival::any(&mut dice);
        let tears = dice.one_in(4);
        let hole_once_in = dice.pick(&[3, 10, 30]);
        let until = oldest + dice.below(next - oldest + 1);
        Self { dice, survival: survival.unwrap_or(any), sector, tears, hole_once_in, until }
    }

    /// What is decided over as a whole in the next page.
    pub(super) fn sector_bytes(&mut self) -> usize {
        match self.sector {
            Sector::Large if !(self.tears && self.dice.one_in(TORN_ONCE_IN)) => LARGE,
            _ => SMALL,
        }
    }

    /// How many changes of one thing survive, the oldest first.
    pub(super) fn kept(&mut self, changes: &[Tick]) -> usize {
        let all = changes.len() as u64;
        let kept = match self.survival {
            Survival::Nothing => 0,
            Survival::Everything => all,
            Survival::Holes if !self.dice.one_in(self.hole_once_in) => all,
            Survival::Holes => self.dice.below(all),
            Survival::Coin => self.dice.below(all + 1),
            Survival::Prefix => self.kept_of_prefix(changes),
        };
        usize::try_from(kept).expect("it is at most a length")
    }

    fn kept_of_prefix(&mut self, changes: &[Tick]) -> u64 {
        let before = changes.partition_point(|at| *at < self.until);
        let is_torn = changes.get(before) == Some(&self.until) && self.dice.one_in(2);
        before as u64 + u64::from(is_torn)
    }
}
