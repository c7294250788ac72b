//! What ends a life of a shard.

use ackwell_engine::{Engine, StoreError};

use crate::dice::Dice;
use crate::disk::{DeviceError, Faults, Lasts, Lie, Operation, SimDisk};

/// What happens to the process or to its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The power fails.
    PowerCut,
    /// The device fails, and then the process is started again; the machine goes on.
    DeviceError(Lasts),
    /// The volume is full, until the process is started again.
    Full,
    /// The process is killed, and the machine goes on.
    Kill,
    /// It is stopped.
    Stop,
}

/// Which troubles come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Troubles {
    /// All kinds, mostly power cuts.
    All,
    /// Power cuts, kills and stops: a disk that works.
    PowerCuts,
}

impl Troubles {
    pub(super) fn any(self, dice: &mut Dice) -> Trouble {
        let all = [
            Trouble::PowerCut,
            Trouble::Kill,
            Trouble::Stop,
            Trouble::DeviceError(Lasts::Once),
            Trouble::DeviceError(Lasts::Forever),
            Trouble::Full,
        ];
        let of_the_disk = u64::from(self == Self::All);
        all[dice.weighted(&[12, 4, 1, of_the_disk, of_the_disk, of_the_disk])]
    }

    /// Two of three times none.
    pub(super) fn in_recovery(self, dice: &mut Dice) -> Trouble {
        if dice.one_in(3) { self.any(dice) } else { Trouble::Stop }
    }
}

impl Trouble {
    /// Of a disk that meets it some time from now.
    pub(super) fn faults(self, dice: &mut Dice, disk: &SimDisk) -> Faults {
        let soon = dice.pick(&[5, 40, 150]);
        let soon = dice.below(soon);
        let asked = disk.asked();
        match self {
            Self::PowerCut | Self::Kill => {
                Faults { power_cut: Some(asked.changes + soon), ..Faults::default() }
            }
            Self::DeviceError(lasts) => {
                let at = asked.operations + 2 * soon;
                // What a failed sync leaves behind is the hardest to get right, and few operations are one.
                let only = dice.one_in(2).then_some(Operation::Sync);
                Faults { error: Some(DeviceError { at, only, lasts }), ..Faults::default() }
            }
            Self::Full => Faults { room_bytes: Some(disk.used_bytes() + soon * 4096), ..Faults::default() },
            Self::Stop => Faults::default(),
        }
    }

    /// The disk as the next process finds it. `engine` is `None` where the trouble came before there was one.
    pub(super) fn end(
        self,
        engine: Option<Engine>,
        disk: &SimDisk,
        seed: u64,
    ) -> Result<SimDisk, StoreError> {
        match (self, engine) {
            (Self::Stop, Some(engine)) => engine.close()?,
            (_, engine) => {
                // Who is dropped writes nothing more.
                disk.cut_power();
                drop(engine);
            }
        }
        Ok(if self == Self::PowerCut { disk.crash(seed) } else { disk.restarted() })
    }
}

/// A disk that lies does so whatever else is wrong with it.
pub(super) fn lying(faults: Faults, lie: Option<Lie>) -> Faults {
    Faults { lie, ..faults }
}
