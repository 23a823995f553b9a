//! By share modes and paths.
//!
//! A lock of Windows (`LockFileEx`) keeps even its holder from writing, so it can't stand for "in use". Share modes can, because
//! opening a file checks them against each handle that is open:
//!
//! | how a file is opened | access | shared with others | so it fails while there is |
//! |---|---|---|---|
//! | an entry, shared | read, write | read, write, delete | an exclusive handle |
//! | an entry, exclusive | read, write | delete | any handle that reads or writes |
//! | the file of a lock, shared | read, write | read, write | an exclusive handle |
//! | the file of a lock, exclusive | read, write | nothing | any handle |
//!
//! - A process that has an entry open keeps it from being evicted. Others may still rename and remove it, as
//!   [`Cache::remove`] does, and the bytes stay until the last handle is closed. A program that opens an entry without sharing
//!   it, such as a virus scanner, makes it a miss, and is no error.
//! - A directory is held open without `FILE_SHARE_DELETE`, and Windows renames no directory in which a file is open. So a path
//!   below an open directory leads to the same place until it is closed.
//! - A link (symbolic link or junction) is opened itself, by `FILE_FLAG_OPEN_REPARSE_POINT`, and then refused. Other reparse
//!   points, such as those of OneDrive, are files whose bytes the file system keeps elsewhere.
//! - std reads neither owners nor access lists. So the directory has to lie in the profile of the user, which other users can't
//!   open by default.
//!
//! [`Cache::remove`]: crate::cache::Cache::remove

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::lock::Lock;
use crate::cache::freshness::seconds;

// `dwShareMode` of CreateFileW.
const SHARE_READ: u32 = 1;
const SHARE_WRITE: u32 = 2;
const SHARE_DELETE: u32 = 4;

// `dwFlagsAndAttributes` of CreateFileW.
/// Opens a link itself.
const OPEN_REPARSE_POINT: u32 = 0x0020_0000;
/// Without it no directory is opened.
const BACKUP_SEMANTICS: u32 = 0x0200_0000;

/// A handle that is open excludes this one.
const ERROR_SHARING_VIOLATION: i32 = 32;

/// A file takes room up to its end. For holes a program has to ask by a call that std does not have.
pub(crate) const HAS_HOLES: bool = false;

/// The first byte of a removed entry, which std can't tell from another one on Windows. Not the first one of any header, so if
/// a crash leaves it at an entry that has a name still, that is damaged and removed.
const REMOVED: u8 = 0;

/// Variables of the environment that name directories of the user alone. The last two may be moved out of the first one.
const PROFILE: [&str; 3] = ["USERPROFILE", "LOCALAPPDATA", "APPDATA"];

/// An open directory.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Keeps others from renaming and removing it.
    _held: File,
}

impl Folder {
    /// Opens `parent`, and the directory `name` in it. Makes both if they do not exist.
    ///
    /// # Errors
    ///
    /// Those of the file system. [`io::ErrorKind::PermissionDenied`] if `parent` is not in the profile of the user;
    /// [`io::ErrorKind::NotADirectory`] if the directory is a link.
    pub(crate) fn open_own(parent: &Path, name: &str) -> io::Result<(Self, Self)> {
        let parent = std::path::absolute(parent)?;
        let profile: Vec<_> = PROFILE.iter().filter_map(std::env::var_os).collect();
        // Before it makes anything elsewhere.
        check_profile(&parent, &profile)?;
        std::fs::create_dir_all(&parent)?;
        // The path up to here is the application's, links and all. From here on none is followed.
        let parent = Self::open(parent.canonicalize()?)?;
        let folder = parent.subfolder(name)?;
        Ok((parent, folder))
    }

    fn open(path: PathBuf) -> io::Result<Self> {
        // To rename a file in it, Windows opens it for writing. So that has to be shared.
        let held = OpenOptions::new()
            .read(true)
            .share_mode(SHARE_READ | SHARE_WRITE)
            .custom_flags(BACKUP_SEMANTICS | OPEN_REPARSE_POINT)
            .open(&path)?;
        // False for a link.
        if held.metadata()?.is_dir() {
            Ok(Self { path, _held: held })
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    /// The directory `name` in this one. Makes it if it does not exist.
    pub(crate) fn subfolder(&self, name: &str) -> io::Result<Self> {
        match std::fs::create_dir(self.path.join(name)) {
            // Another process may have made it meanwhile.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.existing(name),
        }
    }

    /// The directory `name` in this one.
    pub(crate) fn existing(&self, name: &str) -> io::Result<Self> {
        Self::open(self.path.join(name))
    }

    /// The names in this directory, in no particular order. Names that are no UTF-8 are none of windway's.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let names = self.path.read_dir()?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        names.filter_map(io::Result::transpose).collect()
    }

    /// Size on disk and time of the last use of a regular file, in seconds since 1970. `None` of anything else.
    pub(crate) fn stat(&self, name: &str) -> Option<(u64, u64)> {
        let metadata = self.path.join(name).symlink_metadata().ok().filter(|metadata| metadata.is_file())?;
        // The length: see `HAS_HOLES`.
        Some((metadata.file_size(), metadata.modified().map_or(0, seconds)))
    }

    /// Opens a regular file for reading and writing, and locks it. `None` if another lock excludes this one.
    pub(crate) fn open_locked(&self, name: &str, lock: Lock) -> io::Result<Option<File>> {
        unless_shared(open_regular(&self.path.join(name), &mut options(entry_mode(lock))))
    }

    /// Opens a file that exists for its lock, and makes it if it does not exist. `None` if another lock excludes this one.
    pub(crate) fn lock_file(&self, name: &str, lock: Lock) -> io::Result<Option<File>> {
        let mode = match lock {
            // Not `SHARE_DELETE`: without its name the lock would keep no process away.
            Lock::Shared => SHARE_READ | SHARE_WRITE,
            Lock::Exclusive => 0,
        };
        unless_shared(open_regular(&self.path.join(name), options(mode).create(true)))
    }

    /// Makes a new file, and locks it.
    pub(crate) fn create_locked(&self, name: &str) -> io::Result<File> {
        open_regular(&self.path.join(name), options(entry_mode(Lock::Shared)).create_new(true))
    }

    /// Makes an empty file if there is none, and waits until its name is on the disk.
    pub(crate) fn make_empty(&self, name: &str) -> io::Result<()> {
        let mode = SHARE_READ | SHARE_WRITE | SHARE_DELETE;
        open_regular(&self.path.join(name), options(mode).create(true))?.sync_all()
    }

    /// Gives the locked file `from` the name `to`, which must not exist, and returns it, locked again. `None` if it was removed
    /// in between.
    pub(crate) fn rename_new(&self, file: File, from: &str, to: &str) -> io::Result<Option<File>> {
        // A file that is open keeps its first name until it is closed, where the file system lacks the removal that POSIX has.
        drop(file);
        rename_new(&self.path.join(from), &self.path.join(to))?;
        match self.open_locked(to, Lock::Shared) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => opened,
        }
    }

    /// Removes a file, also if it is open.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        // A scan removes files whose names begin like this.
        remove_by_way_of(&self.path.join(name), &self.path.join(format!(".new-removed-{}", unique())))
    }

    /// As [`remove`](Self::remove), of an entry. Processes that have it open notice by [`is_removed`].
    pub(crate) fn remove_used(&self, name: &str) -> io::Result<()> {
        let mode = SHARE_READ | SHARE_WRITE | SHARE_DELETE;
        // It is not used while another process has it exclusively, to remove it.
        if let Some(file) = unless_shared(open_regular(&self.path.join(name), &mut options(mode)))? {
            file.seek_write(&[REMOVED], 0)?;
        }
        self.remove(name)
    }

    /// Removes `folder`, the directory `name` in this one, in which only `lock` is left: the file of this name, locked.
    pub(crate) fn remove_locked(&self, name: &str, folder: Self, lock: (&str, File)) -> io::Result<()> {
        let (lock, held) = lock;
        // No directory is removed in which a file is open, or that is open itself. A process that opens the directory in between
        // holds its lock, or its folder, and what follows fails.
        drop(held);
        std::fs::remove_file(folder.path.join(lock))?;
        drop(folder);
        self.remove_folder(name)
    }

    /// Removes an empty directory.
    pub(crate) fn remove_folder(&self, name: &str) -> io::Result<()> {
        std::fs::remove_dir(self.path.join(name))
    }

    /// Bytes that this user may still write to the file system. `None` if it is unknown.
    pub(crate) fn free(&self) -> Option<u64> {
        fs4::available_space(&self.path).ok()
    }

    /// Waits until the names in this directory are on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        // Windows has no call for it. NTFS writes names to its journal first, and a sync of a file also writes the journal.
        Ok(())
    }
}

/// Opens a file at a path of the application's for reading and writing, and makes it if it does not exist. `is_new` if it must
/// not exist. A link in the place of the file is not followed.
pub(crate) fn open_plain(path: &Path, is_new: bool) -> io::Result<File> {
    let mode = SHARE_READ | SHARE_WRITE | SHARE_DELETE;
    open_regular(path, options(mode).create(!is_new).create_new(is_new))
}

/// Opens a file at a path of the application's as [`open_plain`] does, and locks it against others. `None` if it is locked.
pub(crate) fn lock_plain(path: &Path) -> io::Result<Option<File>> {
    unless_shared(open_regular(path, options(entry_mode(Lock::Exclusive)).create(true)))
}

/// The lock of [`lock_plain`] ends with the handle, which no child inherits.
pub(crate) fn unlock_plain(_: &File) {}

/// Gives a file another name, which must not exist.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::hard_link(from, to) {
        // A link fails if the name exists. `std::fs::rename` replaces the file.
        Ok(()) => remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // File systems without hard links, such as FAT and exFAT.
        // Not atomic: a file that appears between the two calls is replaced.
        Err(_) if !exists(to)? => std::fs::rename(from, to),
        Err(_) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

/// Removes a file, also if it is open.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    let mut aside = OsString::from(path);
    aside.push(format!(".removed-{}", unique()));
    remove_by_way_of(path, Path::new(&aside))
}

/// True if `path` names this open file, and no link. The file counts as modified now.
pub(crate) fn has_path(file: &File, path: &Path) -> io::Result<bool> {
    // std has no identity of files on Windows. But a time that is set through a handle shows at the path of its file. Two times,
    // since another file could have one of them; far apart, since FAT keeps even seconds only.
    let shown = [1_000_000_000, 1_000_000_004].map(|seconds| {
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))?;
        let (named, open) = (path.symlink_metadata()?, file.metadata()?);
        Ok(named.is_file() && named.modified()? == open.modified()?)
    });
    file.set_modified(SystemTime::now())?;
    match shown.into_iter().collect::<io::Result<Vec<bool>>>() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        shown => Ok(!shown?.contains(&false)),
    }
}

/// True if [`Folder::remove_used`] has removed the file, and it is only there for processes that have it open.
pub(crate) fn is_removed(file: &File) -> io::Result<bool> {
    let mut first = [0];
    Ok(file.seek_read(&mut first, 0)? == 1 && first[0] == REMOVED)
}

/// Waits until the name of a file, whose path this is, is on the disk.
pub(crate) fn sync_name(file: &File, _: &Path) -> io::Result<()> {
    // See `Folder::sync`.
    file.sync_all()
}

/// How a file is opened for reading and writing, shared with handles of this mode.
fn options(share_mode: u32) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).share_mode(share_mode).custom_flags(OPEN_REPARSE_POINT);
    options
}

/// With which handles an entry is shared.
fn entry_mode(lock: Lock) -> u32 {
    match lock {
        Lock::Shared => SHARE_READ | SHARE_WRITE | SHARE_DELETE,
        // The holder removes the file by its path, which opens it for that.
        Lock::Exclusive => SHARE_DELETE,
    }
}

fn open_regular(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.open(path)?;
    // A link was opened itself. A device can't be written at offsets.
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// `None` if another handle excludes this one.
fn unless_shared(opened: io::Result<File>) -> io::Result<Option<File>> {
    match opened {
        Err(error) if error.raw_os_error() == Some(ERROR_SHARING_VIOLATION) => Ok(None),
        opened => opened.map(Some),
    }
}

/// Renames a file to `aside`, and removes it there.
fn remove_by_way_of(path: &Path, aside: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    // Windows 10 and 11 remove the name of an open file at once on NTFS. Older ones, network drives and Wine do so when the last
    // handle is closed, and until then no file can be made or opened under the name. So the file leaves it first.
    std::fs::rename(path, aside)?;
    std::fs::remove_file(aside)
}

fn exists(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        found => found.map(|_| true),
    }
}

/// A part of a name that no other file has.
fn unique() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // Relaxed: it only has to be unique.
    format!("{}-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed), now.as_nanos())
}

/// Fails unless `path`, or the directory in which it is to be made, lies in one of the directories `profile`.
fn check_profile(path: &Path, profile: &[OsString]) -> io::Result<()> {
    // By what exists: links and short names (`RUNNER~1`) are resolved in both.
    let existing = path.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
    let is_inside = |root: PathBuf| existing.as_ref().is_some_and(|existing| existing.starts_with(root));
    if profile.iter().filter_map(|root| Path::new(root).canonicalize().ok()).any(is_inside) {
        return Ok(());
    }
    let why =
        "the directory of the cache is not in the profile of the user (USERPROFILE, LOCALAPPDATA, APPDATA)";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let temporary = tempfile::tempdir().unwrap();
        let (_, folder) = Folder::open_own(temporary.path(), "own").unwrap();
        (temporary, folder)
    }

    #[test]
    fn a_handle_that_uses_an_entry_excludes_an_exclusive_one_and_the_other_way_round() {
        let (_temporary, folder) = folder();
        let user = folder.create_locked("entry").unwrap();
        let other = folder.open_locked("entry", Lock::Shared).unwrap().unwrap();
        assert!(folder.open_locked("entry", Lock::Exclusive).unwrap().is_none());
        drop((user, other));
        let exclusive = folder.open_locked("entry", Lock::Exclusive).unwrap().unwrap();
        for lock in [Lock::Shared, Lock::Exclusive] {
            assert!(folder.open_locked("entry", lock).unwrap().is_none());
        }
        folder.remove("entry").unwrap();
        drop(exclusive);
        assert!(folder.names().unwrap().is_empty());
    }

    #[test]
    fn an_open_file_is_removed_at_once_and_its_bytes_stay() {
        let (_temporary, folder) = folder();
        let user = folder.create_locked("entry").unwrap();
        user.seek_write(b"old", 0).unwrap();
        assert!(!is_removed(&user).unwrap());
        folder.remove_used("entry").unwrap();
        assert!(is_removed(&user).unwrap());
        let new = folder.create_locked("entry").unwrap();
        assert!(new.metadata().unwrap().len() == 0 && !is_removed(&new).unwrap());
        let mut bytes = [0; 2];
        assert_eq!((user.seek_read(&mut bytes, 1).unwrap(), &bytes), (2, b"ld"));
    }

    #[test]
    fn the_file_of_a_lock_can_not_be_removed_while_it_is_held() {
        let (_temporary, folder) = folder();
        let shared = folder.lock_file("lock", Lock::Shared).unwrap().unwrap();
        assert!(folder.lock_file("lock", Lock::Shared).unwrap().is_some());
        assert!(folder.lock_file("lock", Lock::Exclusive).unwrap().is_none());
        folder.remove("lock").unwrap_err();
        drop(shared);
        let _exclusive = folder.lock_file("lock", Lock::Exclusive).unwrap().unwrap();
        assert!(folder.lock_file("lock", Lock::Shared).unwrap().is_none());
        folder.remove("lock").unwrap_err();
    }

    #[test]
    fn an_open_directory_keeps_its_name() {
        let (temporary, folder) = folder();
        let path = temporary.path().join("own");
        std::fs::rename(&path, temporary.path().join("other")).unwrap_err();
        std::fs::remove_dir(&path).unwrap_err();
        drop(folder);
        std::fs::remove_dir(&path).unwrap();
    }

    #[test]
    fn a_path_names_a_file_until_another_one_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("a"), directory.path().join("b"));
        let file = open_plain(&path, true).unwrap();
        std::fs::copy(&path, &other).unwrap();
        assert!(has_path(&file, &path).unwrap() && !has_path(&file, &other).unwrap());
        assert!(!has_path(&file, &directory.path().join("c")).unwrap());
        rename_new(&path, &other).unwrap_err();
        remove_file(&other).unwrap();
        rename_new(&path, &other).unwrap();
        assert!(has_path(&file, &other).unwrap() && !exists(&path).unwrap());
        std::fs::write(&path, b"").unwrap();
        assert!(!has_path(&file, &path).unwrap());
    }

    #[test]
    fn a_link_is_opened_itself_and_refused() {
        let (temporary, folder) = folder();
        let (target, link) = (temporary.path().join("target"), temporary.path().join("own/link"));
        std::fs::write(&target, b"precious").unwrap();
        // Windows lets users make links in its developer mode only, and Wine does nothing.
        let made = std::os::windows::fs::symlink_file(&target, &link);
        if made.is_err() || !link.is_symlink() {
            return eprintln!("not tested, since there is no link: {made:?}");
        }
        assert!(folder.open_locked("link", Lock::Shared).is_err() && folder.stat("link").is_none());
        assert!(open_plain(&link, false).is_err() && open_plain(&link, true).is_err());
        folder.remove("link").unwrap();
        std::os::windows::fs::symlink_dir(temporary.path(), &link).unwrap();
        assert!(folder.existing("link").is_err() && folder.subfolder("link").is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    }

    #[test]
    fn a_directory_outside_of_the_profile_is_refused_and_not_made() {
        let temporary = tempfile::tempdir().unwrap();
        let profile = [temporary.path().join("me").into_os_string(), temporary.path().join("none").into()];
        std::fs::create_dir(temporary.path().join("me")).unwrap();
        std::fs::create_dir(temporary.path().join("me too")).unwrap();
        for (path, is_inside) in
            [("me", true), ("me/a/b", true), ("ME/a", true), ("me too/a", false), ("none/a", false)]
        {
            let checked = check_profile(&temporary.path().join(path), &profile);
            assert_eq!(checked.is_ok(), is_inside, "{path}");
        }
        let outside = Path::new("C:\\windway outside of the profile");
        let error = Folder::open_own(outside, "own").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(!exists(outside).unwrap());
    }
}
