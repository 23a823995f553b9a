//! Systems without `flock` and directories as descriptors. There is no cache on them.
//!
//! The lock of Windows forbids others to write what its holder writes, so it can't stand for "in use". The share modes of open
//! files could: an entry that is opened without `FILE_SHARE_DELETE` can't be removed, and a lock file that is opened with no
//! share mode is locked exclusively. It has to be tried on Windows before it is relied on: a new entry gets its name by a
//! rename, which needs that very mode, and virus scanners open files with modes of their own.

use std::convert::Infallible;
use std::fs::{File, Metadata};
use std::io;
use std::path::Path;

/// None can be opened.
#[derive(Debug)]
pub(crate) struct Folder(Infallible);

/// Who else may have a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    Shared,
    Exclusive,
}

impl Folder {
    /// # Errors
    ///
    /// Always.
    pub(crate) fn open_own(_: &Path, _: &str) -> io::Result<(Self, Self)> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the cache needs a Unix system"))
    }

    pub(crate) fn subfolder(&self, _: &str) -> io::Result<Self> {
        match self.0 {}
    }

    pub(crate) fn existing(&self, _: &str) -> io::Result<Self> {
        match self.0 {}
    }

    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        match self.0 {}
    }

    pub(crate) fn stat(&self, _: &str) -> Option<(u64, u64)> {
        match self.0 {}
    }

    pub(crate) fn open_file(&self, _: &str) -> io::Result<File> {
        match self.0 {}
    }

    pub(crate) fn open_or_create(&self, _: &str) -> io::Result<File> {
        match self.0 {}
    }

    pub(crate) fn create_new(&self, _: &str) -> io::Result<File> {
        match self.0 {}
    }

    pub(crate) fn rename_new(&self, _: &str, _: &str) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn remove(&self, _: &str) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn remove_folder(&self, _: &str) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn free(&self) -> Option<u64> {
        match self.0 {}
    }

    pub(crate) fn sync(&self) -> io::Result<()> {
        match self.0 {}
    }
}

/// # Errors
///
/// Always.
pub(crate) fn open_plain(_: &Path, _: bool) -> io::Result<File> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "a download to a file needs a Unix system"))
}

/// # Errors
///
/// Always.
pub(crate) fn rename_new(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// # Errors
///
/// Always.
pub(crate) fn has_path(_: &File, _: &Path) -> io::Result<bool> {
    Err(io::ErrorKind::Unsupported.into())
}

/// # Errors
///
/// Always.
pub(crate) fn sync_folder(_: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// # Errors
///
/// Always.
pub(crate) fn try_lock(_: &File, _: Lock) -> io::Result<bool> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn is_removed(_: &Metadata) -> bool {
    false
}
