//! The keys that data keys are sealed with: who has them can read the store.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{KEY_BYTES, Secret};

/// A key has 44 characters; there may be a line end.
const MAX_FILE_BYTES: u64 = 256;
const MAX_KEYS: usize = 64;
/// It must fit an envelope.
pub(super) const MAX_ID_BYTES: usize = 128;

/// Keys by their ids. The one whose id comes last, byte by byte, seals what is new; all of them open. Clones are the same keys.
#[derive(Clone)]
pub struct Keys(Arc<RwLock<Known>>);

struct Known {
    keys: BTreeMap<String, Secret>,
    /// The one that seals.
    newest: String,
}

impl Known {
    fn new(keys: BTreeMap<String, Secret>) -> Option<Self> {
        let newest = keys.last_key_value()?.0.clone();
        Some(Self { keys, newest })
    }
}

/// Why something cannot be opened, although nothing is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It was given others.
    #[error(
        "the store is sealed with the key {id:?}, which is not among those given ({given}): bring it back"
    )]
    Missing {
        /// The key that is needed.
        id: String,
        /// Those that are there.
        given: String,
    },
    /// It has this name, and is another.
    #[error(
        "the key {id:?} is not the one that the store was sealed with: bring that one back under this name"
    )]
    Wrong {
        /// The key that is needed.
        id: String,
    },
    /// It was given none.
    #[error("the store is sealed with the key {id:?}, and no keys are given")]
    NoneGiven {
        /// The key that is needed.
        id: String,
    },
    /// It was made without.
    #[error(
        "the store was made without encryption and cannot be sealed afterwards: what was written in clear would stay on the volume"
    )]
    NotSealed,
}

/// What has come of following the keys that are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// There is a key that there was not, or another one seals.
    pub has_changed: bool,
    /// Those that are used and are not given any more, or were given otherwise: a restart could not open what they sealed.
    pub lost: Vec<String>,
}

/// Why keys could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The folder or a file in it.
    #[error("read the keys in {0}")]
    Read(PathBuf, #[source] io::Error),
    /// There is none.
    #[error("{0} has no keys in it: one file each, named by the key's id")]
    None(PathBuf),
    /// More than anybody needs.
    #[error("{0} has more than {MAX_KEYS} keys in it")]
    TooMany(PathBuf),
    /// Other than 32 bytes in base64, or with a name that is too long.
    #[error(
        "{0} is not a key: expected 32 bytes in base64, as `openssl rand -base64 32` makes them, and a name of {MAX_ID_BYTES} bytes at most"
    )]
    Invalid(PathBuf),
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.ids()).finish()
    }
}

impl Keys {
    /// One at least.
    pub fn new(keys: impl IntoIterator<Item = (String, [u8; KEY_BYTES])>) -> Option<Self> {
        let keys = keys.into_iter().map(|(id, key)| (id, Zeroizing::new(key))).collect();
        Self::of(keys)
    }

    /// Those of a folder, a file each, as a mounted Secret has them: the name is the id. Names that begin with a dot are passed over.
    pub fn read(folder: &Path) -> Result<Self, KeysError> {
        let unreadable = |source| KeysError::Read(folder.into(), source);
        let mut keys = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with('.') || path.is_dir() {
                continue;
            }
            if keys.len() == MAX_KEYS {
                return Err(KeysError::TooMany(folder.into()));
            }
            let key = read_key(&path)?.filter(|_| name.len() <= MAX_ID_BYTES);
            keys.insert(name, key.ok_or_else(|| KeysError::Invalid(path.clone()))?);
        }
        Self::of(keys).ok_or_else(|| KeysError::None(folder.into()))
    }

    /// One key of a file, named as the file is.
    pub fn read_file(path: &Path) -> Result<Self, KeysError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let key = read_key(path)?.filter(|_| name.len() <= MAX_ID_BYTES);
        let key = key.ok_or_else(|| KeysError::Invalid(path.into()))?;
        Ok(Self::of(BTreeMap::from([(name, key)])).expect("there is one"))
    }

    fn of(keys: BTreeMap<String, Secret>) -> Option<Self> {
        Some(Self(Arc::new(RwLock::new(Known::new(keys)?))))
    }

    /// Follows those that are given now, in all clones: what is new is sealed with the newest of these. One that was given before
    /// opens as before, and one that is another under its name is not taken: what is sealed with it could not be opened.
    pub fn follow(&self, given: &Self) -> Followed {
        let given = given.read_all();
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = (known.keys.len(), known.newest.clone());
        for (id, key) in &given.keys {
            known.keys.entry(id.clone()).or_insert_with(|| key.clone());
        }
        let is_given =
            |(id, key): &(&String, &Secret)| given.keys.get(*id).is_some_and(|other| other == *key);
        let (held, lost): (Vec<_>, Vec<_>) = known.keys.iter().partition(is_given);
        let newest = held.last().map(|(id, _)| (*id).clone());
        let lost = lost.into_iter().map(|(id, _)| id.clone()).collect();
        known.newest = newest.unwrap_or_else(|| known.newest.clone());
        Followed { has_changed: before != (known.keys.len(), known.newest.clone()), lost }
    }

    /// Their names, in order.
    pub fn ids(&self) -> Vec<String> {
        self.read_all().keys.keys().cloned().collect()
    }

    /// The name of the one that seals.
    pub fn newest_id(&self) -> String {
        self.read_all().newest.clone()
    }

    /// The one that seals.
    pub(super) fn newest(&self) -> (String, Secret) {
        let known = self.read_all();
        (known.newest.clone(), known.keys[&known.newest].clone())
    }

    pub(super) fn get(&self, id: &str) -> Result<Secret, KeyError> {
        let found = self.read_all().keys.get(id).cloned();
        found.ok_or_else(|| KeyError::Missing { id: id.to_owned(), given: self.ids().join(", ") })
    }

    fn read_all(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None`: it is none.
fn read_key(path: &Path) -> Result<Option<Secret>, KeysError> {
    let unreadable = |source| KeysError::Read(path.into(), source);
    if fs::metadata(path).map_err(unreadable)?.len() > MAX_FILE_BYTES {
        return Ok(None);
    }
    let text = Zeroizing::new(fs::read(path).map_err(unreadable)?);
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let decoded = STANDARD.decode(text.trim_ascii()).map(Zeroizing::new);
    Ok(decoded.ok().filter(|decoded| decoded.len() == KEY_BYTES).map(|decoded| {
        key.copy_from_slice(&decoded);
        key
    }))
}
