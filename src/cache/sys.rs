//! Directories and locks of the system, as far as the cache needs them.

#[cfg(not(unix))]
mod other;
#[cfg(unix)]
mod unix;

#[cfg(not(unix))]
pub(crate) use other::{Folder, Lock, has_path, is_removed, open_plain, rename_new, sync_folder, try_lock};
#[cfg(unix)]
pub(crate) use unix::{Folder, Lock, has_path, is_removed, open_plain, rename_new, sync_folder, try_lock};
