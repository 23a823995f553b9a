//! By file descriptors: what lies below an open directory is found whatever happens to the path above it, and no symbolic
//! link in it is followed.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::lock::Lock;

/// An open directory.
#[derive(Debug)]
pub(crate) struct Folder(OwnedFd);

/// A file takes room for the bytes that were written, wherever they lie. Not on FAT and HFS+: there the next scan finds out.
pub(crate) const HAS_HOLES: bool = true;

/// How folders of the cache are opened: not through a link, and not in programs that the application starts.
const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Folder {
    /// Opens `parent`, and the directory `name` in it, which is for this user alone. Makes both if they do not exist.
    ///
    /// # Errors
    ///
    /// Those of the file system. It also fails if the directory is a link, or belongs to another user.
    pub(crate) fn open_own(parent: &Path, name: &str) -> io::Result<(Self, Self)> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        // The path up to here is the application's, links and all.
        let parent = Self(rustix::fs::open(parent, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
        let folder = parent.subfolder(name)?;
        let file = File::from(folder.0.try_clone()?);
        let metadata = file.metadata()?;
        // Where all users may write, such as in /tmp, another user could have made it, and could read and replace what is stored.
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            let why = "the directory of the cache belongs to another user";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            // The names and sizes of entries show what the user has listened to.
            file.set_permissions(std::fs::Permissions::from_mode(0o700))?;
        }
        Ok((parent, folder))
    }

    /// The directory `name` in this one. Makes it if it does not exist.
    pub(crate) fn subfolder(&self, name: &str) -> io::Result<Self> {
        match self.existing(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            opened => return opened,
        }
        match rustix::fs::mkdirat(&self.0, name, Mode::RWXU) {
            // Another process may have made it meanwhile.
            Ok(()) | Err(Errno::EXIST) => self.existing(name),
            Err(error) => Err(error.into()),
        }
    }

    /// The directory `name` in this one.
    pub(crate) fn existing(&self, name: &str) -> io::Result<Self> {
        Ok(Self(rustix::fs::openat(&self.0, name, FOLDER, Mode::empty())?))
    }

    /// The names in this directory, in no particular order. Names that are not UTF-8 are left out.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.0)? {
            // The cache gives no names that are not UTF-8, so one of those is not its own.
            if let Ok(name) = entry?.file_name().to_str() {
                if name != "." && name != ".." {
                    names.push(name.to_owned());
                }
            }
        }
        Ok(names)
    }

    /// Size on disk and time of the last use of a regular file, in seconds since 1970. `None` of anything else.
    pub(crate) fn stat(&self, name: &str) -> Option<(u64, u64)> {
        let stat = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
        // The types of these fields differ from system to system.
        #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
        let (blocks, modified) = (stat.st_blocks as u64, u64::try_from(stat.st_mtime).unwrap_or(0));
        // Blocks of 512 bytes, whatever the block size of the file system. Not the length: entries have holes.
        is_file.then_some((blocks * 512, modified))
    }

    /// Opens a regular file for reading and writing, and locks it. `None` if another lock excludes this one, or the file was
    /// removed meanwhile.
    pub(crate) fn open_locked(&self, name: &str, lock: Lock) -> io::Result<Option<File>> {
        // A named pipe would block.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(&self.0, name, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // After the lock: until then another process may remove it, and its name may be that of a new one by now.
        Ok((try_lock(&file, lock)? && !is_removed(&file)?).then_some(file))
    }

    /// Opens a file that exists for its lock, and makes it if it does not exist. `None` if another lock excludes this one.
    pub(crate) fn lock_file(&self, name: &str, lock: Lock) -> io::Result<Option<File>> {
        let file = self.open_or_create(name, OFlags::empty())?;
        Ok(try_lock(&file, lock)?.then_some(file))
    }

    /// Makes a new file, and locks it.
    pub(crate) fn create_locked(&self, name: &str) -> io::Result<File> {
        let file = self.open_or_create(name, OFlags::EXCL)?;
        if try_lock(&file, Lock::Shared)? { Ok(file) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Makes an empty file if there is none, and waits until its name is on the disk.
    pub(crate) fn make_empty(&self, name: &str) -> io::Result<()> {
        self.open_or_create(name, OFlags::empty())?;
        self.sync()
    }

    fn open_or_create(&self, name: &str, more: OFlags) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::CREATE | more;
        Ok(File::from(rustix::fs::openat(&self.0, name, flags, Mode::RUSR | Mode::WUSR)?))
    }

    /// Gives the locked file `from` the name `to`, which must not exist, and returns it, still locked.
    pub(crate) fn rename_new(&self, file: File, from: &str, to: &str) -> io::Result<Option<File>> {
        // A link fails if the name exists. `rename` would replace the entry that another process has just made.
        match rustix::fs::linkat(&self.0, from, &self.0, to, AtFlags::empty()) {
            Ok(()) => rustix::fs::unlinkat(&self.0, from, AtFlags::empty())?,
            // File systems without hard links, such as FAT. Two processes that make the same entry at once lose one's.
            Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::ACCESS) => {
                rustix::fs::renameat(&self.0, from, &self.0, to)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Some(file))
    }

    /// Removes a file.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// As [`remove`](Self::remove), of an entry. Processes that have it open notice by [`is_removed`].
    pub(crate) fn remove_used(&self, name: &str) -> io::Result<()> {
        self.remove(name)
    }

    /// Removes `folder`, the directory `name` in this one, in which only `lock` is left: the file of this name, locked.
    pub(crate) fn remove_locked(&self, name: &str, folder: Self, lock: (&str, File)) -> io::Result<()> {
        // The lock ends last: a process that opens the directory meanwhile fails, instead of losing its files.
        let (lock, _held) = lock;
        folder.remove(lock)?;
        self.remove_folder(name)
    }

    /// Removes an empty directory.
    pub(crate) fn remove_folder(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }

    /// Bytes that this user may still write to the file system. `None` if it is unknown.
    pub(crate) fn free(&self) -> Option<u64> {
        let system = rustix::fs::fstatvfs(&self.0).ok()?;
        // `f_bavail`, not `f_bfree`, which includes what is reserved for the superuser.
        Some(system.f_bavail.saturating_mul(system.f_frsize))
    }

    /// Waits until the names in this directory are on the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.0)?)
    }
}

/// Opens a file at a path of the application's for reading and writing, and makes it if it does not exist. `is_new` if it must
/// not exist. A link in the place of the file is not followed.
pub(crate) fn open_plain(path: &Path, is_new: bool) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::CREATE;
    let flags = if is_new { flags | OFlags::EXCL } else { flags };
    // Less the user's mask: it is the user's file.
    let file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o666))?);
    // A named pipe or a device can't be written at offsets, and could block.
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Gives a file another name, which must not exist.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::hard_link(from, to) {
        // As in `Folder::rename_new`: a link fails if the name exists.
        Ok(()) => std::fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // File systems without hard links, such as FAT.
        // Not atomic: a file that appears between the two calls is replaced.
        Err(_) if !to.try_exists()? => std::fs::rename(from, to),
        Err(_) => Err(io::ErrorKind::AlreadyExists.into()),
    }
}

/// Opens a file at a path of the application's as [`open_plain`] does, and locks it against others. `None` if it is locked.
pub(crate) fn lock_plain(path: &Path) -> io::Result<Option<File>> {
    let file = open_plain(path, false)?;
    Ok(try_lock(&file, Lock::Exclusive)?.then_some(file))
}

/// Ends the lock of [`lock_plain`]. A close does that only once every copy of the descriptor is closed, and a child that another
/// thread has forked has one until it runs its program.
pub(crate) fn unlock_plain(file: &File) {
    // Fails only for a descriptor that is none.
    let _ = rustix::fs::flock(file, FlockOperation::Unlock);
}

/// Removes a file, also if it is open.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

/// True if `path` names this open file, and no link.
pub(crate) fn has_path(file: &File, path: &Path) -> io::Result<bool> {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        named => Ok(identity(named?) == identity(file.metadata()?)),
    }
}

/// True if the file has been removed, and is only there for processes that have it open.
pub(crate) fn is_removed(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.nlink() == 0)
}

/// Waits until the name of a file, whose path this is, is on the disk.
pub(crate) fn sync_name(_: &File, path: &Path) -> io::Result<()> {
    // The parent of a bare file name is the empty path.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// Locks a file against other processes, and other opens of it in this one, until it is closed. False if there is a lock
/// that excludes this one.
fn try_lock(file: &File, lock: Lock) -> io::Result<bool> {
    let operation = match lock {
        Lock::Shared => FlockOperation::NonBlockingLockShared,
        Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match rustix::fs::flock(file, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
