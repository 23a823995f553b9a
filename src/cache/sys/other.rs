//! Systems that are neither Unix nor Windows. There is no cache on them.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::path::Path;

use super::lock::Lock;

pub(crate) const HAS_HOLES: bool = false;

/// None can be opened.
#[derive(Debug)]
pub(crate) struct Folder(Infallible);

impl Folder {
    /// # Errors
    ///
    /// Always.
    pub(crate) fn open_own(_: &Path, _: &str) -> io::Result<(Self, Self)> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the cache needs Unix or Windows"))
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

    pub(crate) fn open_locked(&self, _: &str, _: Lock) -> io::Result<Option<File>> {
        match self.0 {}
    }

    pub(crate) fn lock_file(&self, _: &str, _: Lock) -> io::Result<Option<File>> {
        match self.0 {}
    }

    pub(crate) fn create_locked(&self, _: &str) -> io::Result<File> {
        match self.0 {}
    }

    pub(crate) fn make_empty(&self, _: &str) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn rename_new(&self, _: File, _: &str, _: &str) -> io::Result<Option<File>> {
        match self.0 {}
    }

    pub(crate) fn remove(&self, _: &str) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn remove_used(&self, _: &str) -> io::Result<()> {
        match self.0 {}
    }

    pub(crate) fn remove_locked(&self, _: &str, _: Self, _: (&str, File)) -> io::Result<()> {
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
pub(crate) fn lock_plain(_: &Path) -> io::Result<Option<File>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "a download to a file needs Unix or Windows"))
}

/// # Errors
///
/// Always.
pub(crate) fn open_plain(_: &Path, _: bool) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Nothing is locked.
pub(crate) fn unlock_plain(_: &File) {}

/// # Errors
///
/// Always.
pub(crate) fn rename_new(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// # Errors
///
/// Always.
pub(crate) fn remove_file(_: &Path) -> io::Result<()> {
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
pub(crate) fn is_removed(_: &File) -> io::Result<bool> {
    Err(io::ErrorKind::Unsupported.into())
}

/// # Errors
///
/// Always.
pub(crate) fn sync_name(_: &File, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
