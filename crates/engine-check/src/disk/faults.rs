//! What goes wrong with a disk, and when.

use std::io;

/// What a disk does wrong. Nothing, unless it is told to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The power fails in this change of the disk, counted from 0: that one and all that follow fail.
    pub power_cut: Option<u64>,
    /// An error of the device.
    pub error: Option<DeviceError>,
    /// Writes that need more than so many bytes in all find the volume full.
    pub room_bytes: Option<u64>,
    /// What answers that it is done, and is not: a test that passes on such a disk tests nothing.
    pub lie: Option<Lie>,
}

/// When the device fails.
#[derive(Clone, Copy, Debug)]
pub struct DeviceError {
    /// In this operation, counted from 0, or the first after it that is meant; reads count too.
    pub at: u64,
    /// The only kind of operation that is meant.
    pub only: Option<Operation>,
    /// For how long.
    pub lasts: Lasts,
}

/// How long the device fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// One operation.
    Once,
    /// From then on.
    Forever,
}

/// Which sync lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// That of files.
    FileSync,
    /// That of the folder.
    FolderSync,
}

/// Why an operation of a disk failed that was told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Struck {
    /// The power is off.
    PowerCut,
    /// The device failed.
    DeviceError,
}

impl Struck {
    /// If the error is one of these.
    pub fn of(error: &io::Error) -> Option<Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()).copied()
    }
}

impl std::fmt::Display for Struck {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::PowerCut => "the simulated power is off",
            Self::DeviceError => "the simulated device failed",
        })
    }
}

impl std::error::Error for Struck {}

impl From<Struck> for io::Error {
    fn from(struck: Struck) -> Self {
        Self::other(struck)
    }
}

/// What is asked of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Of a file.
    Open,
    /// Of a file.
    Create,
    /// Of the names.
    List,
    /// Of a file.
    Rename,
    /// Of a file.
    Remove,
    /// Of the names.
    SyncFolder,
    /// Of the volume.
    Space,
    /// Of a file.
    Len,
    /// Of a file.
    Read,
    /// Of a file.
    Write,
    /// Of a file.
    SetLen,
    /// Of a file.
    Sync,
}

impl Operation {
    /// Whether it makes a difference where among the others a power cut comes.
    pub(super) fn is_change(self) -> bool {
        !matches!(self, Self::Open | Self::List | Self::Space | Self::Len | Self::Read)
    }
}

/// The faults of a disk and how far it is.
#[derive(Debug, Default)]
pub(super) struct Fate {
    pub(super) faults: Faults,
    pub(super) operations: u64,
    pub(super) changes: u64,
    pub(super) errors: u64,
    pub(super) last_error: Option<u64>,
    pub(super) is_off: bool,
}

impl Fate {
    /// Counts the operation and says what strikes it.
    pub(super) fn strike(&mut self, operation: Operation) -> Result<(), Struck> {
        let (at, change) = (self.operations, self.changes);
        if self.is_off {
            return Err(Struck::PowerCut);
        }
        self.operations += 1;
        self.changes += u64::from(operation.is_change());
        self.is_off = operation.is_change() && self.faults.power_cut.is_some_and(|cut| change >= cut);
        if self.is_off {
            return Err(Struck::PowerCut);
        }
        let fails = self.faults.error.is_some_and(|error| error.strikes(at, operation, self.errors));
        self.errors += u64::from(fails);
        self.last_error = if fails { Some(at) } else { self.last_error };
        if fails { Err(Struck::DeviceError) } else { Ok(()) }
    }
}

impl DeviceError {
    fn strikes(self, at: u64, operation: Operation, struck: u64) -> bool {
        let is_meant = at >= self.at && self.only.is_none_or(|only| only == operation);
        is_meant && (self.lasts == Lasts::Forever || struck == 0)
    }
}
