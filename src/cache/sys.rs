//! Directories and locks of the system, as far as the cache needs them.
//!
//! A file is opened and locked in one call: Windows has no lock that can be taken later and still lets others write.

mod lock;
#[cfg(not(any(unix, windows)))]
mod other;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(not(any(unix, windows)))]
use other as system;
#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

pub(crate) use lock::Lock;
pub(crate) use system::{
    Folder, HAS_HOLES, has_path, is_removed, lock_plain, open_plain, remove_file, rename_new, sync_name,
    unlock_plain,
};
