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
pub struct Keys(Arc<RwLock<BTreeMap<String, Secret>>>);

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
        let keys: BTreeMap<_, _> = keys.into_iter().map(|(id, key)| (id, Zeroizing::new(key))).collect();
        (!keys.is_empty()).then(|| Self(Arc::new(RwLock::new(keys))))
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
        if keys.is_empty() {
            return Err(KeysError::None(folder.into()));
        }
        Ok(Self(Arc::new(RwLock::new(keys))))
    }

    /// One key of a file, named as the file is.
    pub fn read_file(path: &Path) -> Result<Self, KeysError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let key = read_key(path)?.filter(|_| name.len() <= MAX_ID_BYTES);
        let key = key.ok_or_else(|| KeysError::Invalid(path.into()))?;
        Ok(Self(Arc::new(RwLock::new(BTreeMap::from([(name, key)])))))
    }

    /// These, too, from now on, in all clones: what is new is sealed with the newest. A key that is there stays what it is. Says
    /// whether there is a new one.
    pub fn add(&self, more: &Self) -> bool {
        let more = more.read_all().clone();
        let mut keys = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let before = keys.len();
        for (id, key) in more {
            keys.entry(id).or_insert(key);
        }
        keys.len() > before
    }

    /// Their names, the newest last.
    pub fn ids(&self) -> Vec<String> {
        self.read_all().keys().cloned().collect()
    }

    /// The name of the one that seals.
    pub(in crate::store) fn newest_id(&self) -> String {
        self.newest().0
    }

    /// The one that seals.
    pub(super) fn newest(&self) -> (String, Secret) {
        let keys = self.read_all();
        let (id, key) = keys.last_key_value().expect("there is one at least");
        (id.clone(), key.clone())
    }

    pub(super) fn get(&self, id: &str) -> Result<Secret, KeyError> {
        let found = self.read_all().get(id).cloned();
        found.ok_or_else(|| KeyError::Missing { id: id.to_owned(), given: self.ids().join(", ") })
    }

    fn read_all(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Secret>> {
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
