//! The directory of a cache: how entries' files are found, made and removed while other processes do the same.
//!
//! ```text
//!   DIR/windway-cache-1/                mode 0700; the number is the version of the format
//!     lock                              held by all processes that use this version
//!     ab/abcdef…(32)-(16)               an entry: digest of its key, and identity of the representation
//!     ab/.new-…                         an entry before its header is written
//!     pins/abcdef…(32)                  a pinned key
//!     evict.lock                        held while entries are evicted
//! ```
//!
//! A process that has an entry open holds a shared lock on its file, and only a file that can be locked exclusively is evicted.
//! A new entry gets its name when its header is written, so no other process sees one without. Other versions' directories
//! count for the limit, too. A newer version removes those of older ones that no process uses.

use std::fs::File;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::format::{KeyDigest, VERSION, key_name};
use super::freshness::seconds;
use super::sys::{Folder, Lock};

/// A file that has had no final name for this many seconds belongs to a process that has ended. So does one whose time is as far
/// in the future: the clock was set back since.
const ABANDONED: u64 = 3600;

/// Maximum number of attempts to open an entry: each may meet an eviction, or an entry that was made again since.
const ATTEMPTS: usize = 5;

/// What the name of each version's directory begins with.
const PREFIX: &str = "windway-cache-";

/// The file of a version's directory that its processes hold a lock of.
const LOCK: &str = "lock";

/// The directory of one version of the format.
#[derive(Debug)]
pub(crate) struct Directory {
    version: u32,
    /// What the application has named.
    parent: Folder,
    root: Folder,
    pins: Folder,
    /// Keeps newer versions from removing the directory.
    _in_use: File,
}

/// A file that a scan has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    /// Bytes on disk.
    pub(crate) bytes: u64,
    /// When it was last used, in seconds since 1970.
    pub(crate) used_at: u64,
}

impl Directory {
    /// Opens the directory in `parent`, and makes it if it does not exist.
    pub(crate) fn open(parent: &Path) -> io::Result<Self> {
        Self::open_version(parent, VERSION)
    }

    fn open_version(parent: &Path, version: u32) -> io::Result<Self> {
        let (parent, root) = Folder::open_own(parent, &format!("{PREFIX}{version}"))?;
        let pins = root.subfolder("pins")?;
        let in_use = root.lock_file(LOCK, Lock::Shared)?.ok_or_else(|| {
            let why = "a newer version removes the directory of this one";
            io::Error::new(io::ErrorKind::WouldBlock, why)
        })?;
        Ok(Self { version, parent, root, pins, _in_use: in_use })
    }

    /// Bytes on disk of the directories of other versions. Removes those of older ones that no process uses.
    pub(crate) fn scan_others(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for name in self.parent.names()? {
            let version = name.strip_prefix(PREFIX).and_then(|version| version.parse::<u32>().ok());
            let Some(version) = version.filter(|version| *version != self.version) else { continue };
            if version < self.version {
                match self.remove_unused(&name) {
                    Ok(true) => continue,
                    Ok(false) => {}
                    // Something in it is not windway's. It must not keep this version from storing anything.
                    Err(error) => log::debug!("{name} can't be removed: {error}"),
                }
            }
            let Ok(other) = self.parent.existing(&name) else { continue };
            for (folder, file) in files_in(&other) {
                bytes += folder.stat(&file).map_or(0, |(bytes, _)| bytes);
            }
        }
        Ok(bytes)
    }

    /// Removes the directory of another version. False if a process uses it.
    fn remove_unused(&self, name: &str) -> io::Result<bool> {
        let other = self.parent.existing(name)?;
        let Some(lock) = lock_unused(&other) else { return Ok(false) };
        clear(&other)?;
        self.parent.remove_locked(name, other, (LOCK, lock))?;
        Ok(true)
    }

    /// Names of the entries of a key: one for each version of the file.
    pub(crate) fn find(&self, key: &KeyDigest) -> Vec<String> {
        // No entry was made yet whose digest begins like this.
        let name = key_name(key);
        let Ok(folder) = self.root.existing(&name[..2]) else { return Vec::new() };
        let mut names = folder.names().unwrap_or_default();
        names.retain(|found| is_entry(found) && found.starts_with(&name));
        names
    }

    /// Opens an entry's file, and locks it against eviction. `None` if there is none.
    pub(crate) fn open_entry(&self, name: &str) -> io::Result<Option<File>> {
        for _ in 0..ATTEMPTS {
            match self.folder_of(name).and_then(|folder| folder.open_locked(name, Lock::Shared)) {
                // If another process removes it just now there will be none.
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                opened => return opened,
            }
        }
        Ok(None)
    }

    /// Makes an entry's file, which `write` fills first. `None` if another process was faster, or has removed it already.
    pub(crate) fn create_entry(
        &self,
        name: &str,
        write: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<Option<File>> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let folder = self.root.subfolder(&name[..2])?;
        // Relaxed: it only has to be unique.
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        // With the time as well: containers that share the directory have processes of the same number.
        let new = format!(".new-{}-{number}-{}", std::process::id(), nanos());
        // Locked before it gets its name: an eviction in between would take it for unused.
        let file = folder.create_locked(&new)?;
        let named = write(&file).and_then(|()| folder.rename_new(file, &new, name));
        match named {
            Ok(file) => Ok(file),
            Err(error) => {
                // `error` is the one to report. A file that stays is removed by a later scan.
                let _ = folder.remove(&new);
                if error.kind() == io::ErrorKind::AlreadyExists { Ok(None) } else { Err(error) }
            }
        }
    }

    /// All entries. Removes what crashed processes have left behind.
    pub(crate) fn scan(&self, now: SystemTime) -> io::Result<Vec<Found>> {
        let mut all = Vec::new();
        for folder_name in self.root.names()?.iter().filter(|name| name.len() == 2) {
            let Ok(folder) = self.root.existing(folder_name) else { continue };
            for name in folder.names()? {
                // Removed since the names were listed, or no regular file.
                let Some((bytes, used_at)) = folder.stat(&name) else { continue };
                if is_entry(&name) {
                    all.push(Found { name, bytes, used_at });
                } else if name.starts_with(".new-") && used_at.abs_diff(seconds(now)) > ABANDONED {
                    // Another process may have removed it already; else the next scan tries again.
                    let _ = folder.remove(&name);
                }
            }
        }
        Ok(all)
    }

    /// Removes an entry that is not open anywhere. False if it is open, or gone already.
    pub(crate) fn evict(&self, name: &str) -> io::Result<bool> {
        self.evict_if(name, || true)
    }

    /// As [`evict`](Self::evict), but leaves entries of pinned keys.
    pub(crate) fn evict_unpinned(&self, name: &str) -> io::Result<bool> {
        // Under the lock of the entry: a process that pins a key makes the pin first, and opens the entries then. So either
        // the pin is seen here, or the entry was gone when its key was pinned.
        self.evict_if(name, || !self.is_pinned(name))
    }

    fn evict_if(&self, name: &str, is_wanted: impl FnOnce() -> bool) -> io::Result<bool> {
        match self.try_evict(name, is_wanted) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            evicted => evicted,
        }
    }

    /// Removes an entry that is not open anywhere, if `is_wanted` says so while it is locked.
    fn try_evict(&self, name: &str, is_wanted: impl FnOnce() -> bool) -> io::Result<bool> {
        let folder = self.folder_of(name)?;
        let Some(_locked) = folder.open_locked(name, Lock::Exclusive)? else { return Ok(false) };
        if !is_wanted() {
            return Ok(false);
        }
        // Before the lock ends with the file: an opener that comes later finds that the file was removed.
        folder.remove(name)?;
        Ok(true)
    }

    /// Removes an entry's name, also if it is open. The file stays until it is closed.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match self.folder_of(name).and_then(|folder| folder.remove_used(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The lock that is held while entries are evicted. `None` if another process holds it.
    pub(crate) fn lock_eviction(&self) -> io::Result<Option<File>> {
        self.root.lock_file("evict.lock", Lock::Exclusive)
    }

    /// The pinned keys, by the names of their entries' files up to the hyphen.
    pub(crate) fn pins(&self) -> io::Result<Vec<String>> {
        self.pins.names()
    }

    fn is_pinned(&self, name: &str) -> bool {
        name.split_once('-').is_some_and(|(key, _)| self.pins.stat(key).is_some())
    }

    pub(crate) fn pin(&self, key: &KeyDigest) -> io::Result<()> {
        // An empty file: its name says everything, and making it is atomic.
        self.pins.make_empty(&key_name(key))
    }

    pub(crate) fn unpin(&self, key: &KeyDigest) -> io::Result<()> {
        match self.pins.remove(&key_name(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Bytes that may still be written to the file system.
    pub(crate) fn free(&self) -> Option<u64> {
        self.root.free()
    }

    /// Waits until the name of an entry is on the disk.
    pub(crate) fn sync(&self, name: &str) -> io::Result<()> {
        self.folder_of(name)?.sync()?;
        self.root.sync()
    }

    fn folder_of(&self, name: &str) -> io::Result<Folder> {
        self.root.existing(&name[..2])
    }
}

/// The lock of a version's directory that no process uses.
fn lock_unused(root: &Folder) -> Option<File> {
    root.lock_file(LOCK, Lock::Exclusive).ok().flatten()
}

/// The files in the folders of a version's directory.
fn files_in(root: &Folder) -> impl Iterator<Item = (Rc<Folder>, String)> + '_ {
    let folders = root.names().unwrap_or_default().into_iter().filter_map(|name| root.existing(&name).ok());
    folders.map(Rc::new).flat_map(|folder| {
        let names = folder.names().unwrap_or_default().into_iter();
        names.map(move |name| (Rc::clone(&folder), name))
    })
}

/// Removes all files and folders in a version's directory, but for the file of its lock.
fn clear(root: &Folder) -> io::Result<()> {
    for (folder, file) in files_in(root) {
        folder.remove(&file)?;
    }
    for name in root.names()?.into_iter().filter(|name| name != LOCK) {
        // The names do not show which of them are folders.
        root.remove(&name).or_else(|_| root.remove_folder(&name))?;
    }
    Ok(())
}

/// True if this is the name of an entry's file.
fn is_entry(name: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    name.split_once('-').is_some_and(|(key, identity)| {
        key.len() == 32 && identity.len() == 16 && is_hex(key) && is_hex(identity)
    })
}

fn nanos() -> u32 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).subsec_nanos()
}

#[cfg(test)]
mod tests {
    #[cfg(unix)]
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::cache::format::tests::header;

    fn with_entry() -> (tempfile::TempDir, Directory, String) {
        let temporary = tempfile::tempdir().unwrap();
        let directory = Directory::open(&temporary.path().join("made/for it")).unwrap();
        let name = header(1000).file_name();
        assert!(directory.open_entry(&name).unwrap().is_none());
        let made = directory.create_entry(&name, |file| std::io::Write::write_all(&mut &*file, b"entry"));
        drop(made.unwrap().unwrap());
        (temporary, directory, name)
    }

    #[test]
    fn an_entry_is_found_by_its_key_and_gone_once_evicted() {
        let (_temporary, directory, name) = with_entry();
        assert!(directory.find(&header(1000).key) == std::slice::from_ref(&name));
        assert!(directory.find(&[7; 32]).is_empty());
        let found = directory.scan(SystemTime::now()).unwrap();
        assert_eq!((found.len(), &found[0].name), (1, &name));
        assert!(found[0].bytes > 0);
        // Another one of the same name is not made.
        assert!(directory.create_entry(&name, |_| Ok(())).unwrap().is_none());
        let file = directory.open_entry(&name).unwrap().unwrap();
        assert!(!directory.evict(&name).unwrap());
        drop(file);
        assert!(directory.evict(&name).unwrap());
        // As when another process is faster.
        assert!(!directory.evict(&name).unwrap());
        assert!(directory.open_entry(&name).unwrap().is_none() && directory.find(&[0; 32]).is_empty());
        assert!(directory.scan(SystemTime::now()).unwrap().is_empty());
    }

    #[test]
    fn what_a_failed_or_crashed_creation_leaves_is_removed() {
        let (_temporary, directory, name) = with_entry();
        directory.remove(&name).unwrap();
        directory.create_entry(&name, |_| Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        let folder = directory.folder_of(&name).unwrap();
        assert!(folder.names().unwrap().is_empty());
        let (now, long) = (SystemTime::now(), Duration::from_secs(ABANDONED + 60));
        for later in [now + long, now - long] {
            drop(folder.create_locked(".new-1-1-1").unwrap());
            directory.scan(SystemTime::now()).unwrap();
            assert_eq!(folder.names().unwrap().len(), 1);
            directory.scan(later).unwrap();
            assert!(folder.names().unwrap().is_empty());
        }
    }

    #[test]
    fn a_newer_version_counts_older_ones_and_removes_those_that_nobody_uses() {
        let (temporary, directory, name) = with_entry();
        let parent = temporary.path().join("made/for it");
        let newer = Directory::open_version(&parent, VERSION + 1).unwrap();
        assert!(newer.scan_others().unwrap() > 0 && directory.open_entry(&name).unwrap().is_some());
        // Files of other programs do not belong to the cache.
        std::fs::write(parent.join("windway-cache-mine"), "precious").unwrap();
        assert_eq!(directory.scan_others().unwrap(), 0);
        drop(directory);
        assert_eq!(newer.scan_others().unwrap(), 0);
        assert!(!parent.join("windway-cache-1").exists() && parent.join("windway-cache-mine").exists());
        // An older one removes nothing.
        drop(newer);
        Directory::open(&parent).unwrap().scan_others().unwrap();
        assert!(parent.join(format!("{PREFIX}{}", VERSION + 1)).exists());
    }

    #[test]
    fn an_older_version_that_can_not_be_removed_is_counted_and_no_error() {
        let (temporary, directory, _) = with_entry();
        let parent = temporary.path().join("made/for it");
        // Not windway's: it makes no folders there.
        std::fs::create_dir_all(parent.join("windway-cache-0/ab/nested")).unwrap();
        std::fs::write(parent.join("windway-cache-0/ab/nested/precious"), "precious").unwrap();
        std::fs::write(parent.join("windway-cache-0/ab/old"), [7; 5000]).unwrap();
        directory.scan_others().unwrap();
        assert!(parent.join("windway-cache-0/ab/nested/precious").exists());
        std::fs::write(parent.join("windway-cache-0/ab/old"), [7; 5000]).unwrap();
        assert!(directory.scan_others().unwrap() >= 5000 || !parent.join("windway-cache-0/ab/old").exists());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_user_may_look_inside() {
        let (temporary, directory, name) = with_entry();
        let root = temporary.path().join("made/for it/windway-cache-1");
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let entry = root.join(&name[..2]).join(&name);
        assert_eq!((mode(&root), mode(&root.join(&name[..2])), mode(&entry)), (0o700, 0o700, 0o600));
        drop(directory);
        std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
        Directory::open(&temporary.path().join("made/for it")).unwrap();
        assert_eq!(mode(&root), 0o700);
    }

    #[cfg(unix)]
    #[test]
    fn the_directory_of_another_user_is_refused() {
        let (temporary, directory, _) = with_entry();
        drop(directory);
        let root = temporary.path().join("made/for it/windway-cache-1");
        // Only root may give a file away; another user can't make this situation.
        if std::os::unix::fs::chown(&root, Some(12_345), None).is_ok() {
            let opened = Directory::open(&temporary.path().join("made/for it"));
            assert_eq!(opened.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_not_followed() {
        let (temporary, directory, name) = with_entry();
        let root = temporary.path().join("made/for it/windway-cache-1");
        let target = temporary.path().join("target");
        std::fs::write(&target, b"precious").unwrap();
        let entry = root.join(&name[..2]).join(&name);
        std::fs::remove_file(&entry).unwrap();
        symlink(&target, &entry).unwrap();
        assert!(directory.open_entry(&name).is_err() && directory.evict(&name).is_err());
        assert!(directory.create_entry(&name, |_| Ok(())).unwrap().is_none());
        assert!(directory.scan(SystemTime::now()).unwrap().is_empty());
        // The link of a directory is not followed either.
        let elsewhere = tempfile::tempdir().unwrap();
        symlink(elsewhere.path(), temporary.path().join("windway-cache-1")).unwrap();
        assert!(Directory::open(temporary.path()).is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    }
}
