//! A file that is being downloaded to a path of the application's: the bytes in `PATH.part`, header and slots in
//! `PATH.part.meta`.
//!
//! The same checksums as the cache's make it safe to continue after a crash: bytes without a right checksum are fetched again.
//! The lock on `PATH.part.meta` keeps a second process, and a second download of this one, away. It ends with the download, also
//! if streams of it go on reading.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::entry::{EntryFile, Files};
use super::format::{BLOCK, Header, PAGE, Stamp, is_ours};
use super::layer::{FileLayer, read_full};
use super::store::Entry;
use super::sys::{has_path, lock_plain, open_plain, remove_file, rename_new, sync_name, unlock_plain};

/// Maximum number of attempts to open the files: each may meet a download that ends, and removes them.
const ATTEMPTS: usize = 5;

/// A download's files, for as long as it runs.
#[derive(Debug)]
pub(crate) struct PartFile {
    path: PathBuf,
    meta: Arc<MetaFile>,
    /// `PATH.part`, once its entry was opened.
    data: Mutex<Option<Arc<File>>>,
    /// What was entered last.
    entry: Mutex<Weak<Entry>>,
    /// An earlier run has left something: it has to be read before the file counts as whole.
    was_continued: AtomicBool,
}

/// `PATH.part.meta`, which is locked. `None` once the download has ended.
#[derive(Debug)]
struct MetaFile(RwLock<Option<File>>);

impl MetaFile {
    fn with<T>(&self, act: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        // File I/O under the lock: a write that has begun must end before the file's own lock does, or it could meet those of the
        // next download.
        match &*self.0.read() {
            Some(file) => act(file),
            None => Err(io::Error::other("the download has ended")),
        }
    }
}

impl FileLayer for MetaFile {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        self.with(|file| FileLayer::read_at(file, buf, at))
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        self.with(|file| FileLayer::write_at(file, bytes, at))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(FileLayer::len)
    }
}

impl PartFile {
    /// Opens the files of the download to `path`, or makes them, and locks them.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] if the path can't be that of a file; [`io::ErrorKind::WouldBlock`] if another download
    /// has the lock; [`io::ErrorKind::AlreadyExists`] if one of the two files is of another program. Others of the file system.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let ends_in_separator = path.to_string_lossy().ends_with(std::path::is_separator);
        // Found here, or it would be found by the rename, after the whole download.
        if path.file_name().is_none() || ends_in_separator || is_folder(path) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path is not that of a file"));
        }
        let foreign = || {
            io::Error::new(
                io::ErrorKind::AlreadyExists,
                "its .part or .part.meta is a file of another program",
            )
        };
        for _ in 0..ATTEMPTS {
            let meta_path = with_suffix(path, ".part.meta");
            // In this order, and again: a download that ends meanwhile renames its file and then removes the lock, and one that
            // begins makes the lock first.
            if !meta_path.exists() && with_suffix(path, ".part").exists() && !meta_path.exists() {
                return Err(foreign());
            }
            let Some(meta) = lock_plain(&meta_path)? else {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, "another download writes to it"));
            };
            let mut page = [0; PAGE];
            let got = read_full(&meta, &mut page, 0)?;
            // A user's file of this name must not be emptied.
            if !is_ours(&page[..got]) {
                return Err(foreign());
            }
            // A download that ended in between has removed the file.
            if has_path(&meta, &meta_path)? {
                return Ok(Self {
                    path: path.to_owned(),
                    meta: Arc::new(MetaFile(RwLock::new(Some(meta)))),
                    data: Mutex::default(),
                    entry: Mutex::default(),
                    was_continued: AtomicBool::new(false),
                });
            }
        }
        Err(io::Error::other("the file of the lock is removed again and again"))
    }

    /// The entry for the representation that a response has shown: what an earlier run has left of the same one, or an empty
    /// one.
    pub(crate) fn enter(&self, header: Header) -> io::Result<Arc<Entry>> {
        let part = self.part();
        let is_same = |old: &Header| {
            // Without a validator nothing shows whether the bytes are of this version.
            let has_validator = !header.etag.is_empty() || !header.last_modified.is_empty();
            has_validator && old.identity() == header.identity()
        };
        let left = Header::read(&*self.meta).filter(is_same).filter(|_| part.exists());
        let (data, core) = match left {
            Some(_) => {
                let data = Arc::new(open_plain(&part, false)?);
                let core = EntryFile::open(self.files(&data));
                (data, core.ok_or(io::ErrorKind::InvalidData)?)
            }
            None => {
                self.meta.with(|meta| meta.set_len(0))?;
                // A new file: a stream of the old version may still have the other one open.
                remove_if_there(&part)?;
                let data = Arc::new(open_plain(&part, true)?);
                let core = EntryFile::create(self.files(&data), header, Stamp::default())?;
                (data, core)
            }
        };
        *self.data.lock() = Some(Arc::clone(&data));
        self.was_continued.store(!core.stored().is_empty(), Ordering::Release);
        let entry = Arc::new(Entry::new(core, data, part, None));
        *self.entry.lock() = Arc::downgrade(&entry);
        Ok(entry)
    }

    /// True if there are bytes that an earlier run has written.
    pub(crate) fn was_continued(&self) -> bool {
        self.was_continued.load(Ordering::Acquire)
    }

    fn files(&self, data: &Arc<File>) -> Files {
        Files { meta: Arc::clone(&self.meta) as _, data: Arc::clone(data) as _, data_start: 0 }
    }

    /// Makes the next [`enter`](Self::enter) begin from the start: the server has shown that the bytes are of another version,
    /// whatever it calls that.
    pub(crate) fn forget(&self) {
        if let Err(error) = self.meta.with(|meta| meta.set_len(0)) {
            log::debug!("an outdated download can't be forgotten: {error}");
        }
    }

    /// Opens an empty `PATH.part`, for bytes that come without a length and can't be continued.
    pub(crate) fn start_over(&self) -> io::Result<Arc<File>> {
        self.meta.with(|meta| meta.set_len(0))?;
        remove_if_there(&self.part())?;
        let data = Arc::new(open_plain(&self.part(), true)?);
        *self.data.lock() = Some(Arc::clone(&data));
        Ok(data)
    }

    /// Waits until all `len` bytes are on the disk. If that fails, both files are removed.
    pub(crate) fn sync(&self, len: u64) -> io::Result<()> {
        let data = self.data()?;
        match data.metadata()?.len() {
            known if known < len => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "the file is shorter than it should be",
                ));
            }
            // Bytes behind the end are of no block, so no checksum covers them: another program has added them.
            known if known > len => data.set_len(len)?,
            _ => {}
        }
        data.sync_data().inspect_err(|_| {
            // On Linux a failed sync drops what it could not write, and the next one succeeds (fsync(2), and its bugs since 4.13).
            // Until the pages are read from the disk again, their checksums are right.
            if let Err(error) = self.discard() {
                log::warn!("a download that the disk has not taken is not removed: {error}");
            }
        })
    }

    /// Gives the whole file its name, and waits until that is on the disk. [`sync`](Self::sync) comes before: after a crash the
    /// name could stand for a file of zeros.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AlreadyExists`] if there is a file at the path, unless `overwrite`.
    pub(crate) fn finish(&self, overwrite: bool) -> io::Result<()> {
        let data = self.data()?;
        // Another program may have replaced it. Its file must not get the name.
        if !has_path(&data, &self.part())? {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "it was removed, or another file has taken its place",
            ));
        }
        if overwrite {
            std::fs::rename(self.part(), &self.path)?;
        } else {
            rename_new(&self.part(), &self.path)?;
        }
        // If a crash has left both names, the renaming has left them, too.
        remove_if_there(&self.part())?;
        sync_name(&data, &self.path)?;
        // Last: its lock keeps other downloads to this path away until the name is on the disk.
        remove_if_there(&with_suffix(&self.path, ".part.meta"))
    }

    fn data(&self) -> io::Result<Arc<File>> {
        Ok(self.data.lock().clone().ok_or(io::ErrorKind::NotFound)?)
    }

    /// True if there is one of the two files of a download to `path`, whoever has made it.
    pub(crate) fn is_left(path: &Path) -> bool {
        [".part", ".part.meta"].iter().any(|suffix| with_suffix(path, suffix).symlink_metadata().is_ok())
    }

    /// Removes both files.
    pub(crate) fn discard(&self) -> io::Result<()> {
        remove_if_there(&self.part())?;
        remove_if_there(&with_suffix(&self.path, ".part.meta"))
    }

    /// Ends the lock, so that another download to the path may begin. Nothing more is written; what is stored stays readable for
    /// streams. Leaves no empty file where nothing was fetched.
    pub(crate) fn close(&self) {
        if let Some(entry) = self.entry.lock().upgrade() {
            entry.close();
        }
        if let Err(error) = self.meta.with(|meta| self.remove_empty(meta)) {
            log::debug!("the empty files of a download are not removed: {error}");
        }
        if let Some(meta) = self.meta.0.write().take() {
            unlock_plain(&meta);
        }
    }

    fn remove_empty(&self, meta: &File) -> io::Result<()> {
        let meta_path = with_suffix(&self.path, ".part.meta");
        // Once this download has ended, the files may be those of another one.
        if !has_path(meta, &meta_path)? {
            return Ok(());
        }
        let (part, data) = (self.part(), self.data.lock().clone());
        // Made for a response that then was an HTML page, or brought nothing.
        let is_empty = data.map_or(Ok(false), |data| {
            io::Result::Ok(data.metadata()?.len() == 0 && has_path(&data, &part)?)
        })?;
        if is_empty {
            remove_if_there(&part)?;
        }
        // While there is a `PATH.part`, the file beside it shows whose it is, even if it is empty.
        if (is_empty || meta.metadata()?.len() == 0) && !part.exists() {
            remove_if_there(&meta_path)?;
        }
        Ok(())
    }

    fn part(&self) -> PathBuf {
        with_suffix(&self.path, ".part")
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        self.close();
    }
}

/// What a download has left that is not whole, for reading. Takes no lock: what was checked stays as it is, whatever writes,
/// because a download writes other bytes into a new file only.
#[derive(Debug)]
pub(crate) struct PartReader(EntryFile);

impl PartReader {
    /// Opens what the download to `path` has left.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::NotFound`] if there is nothing; [`io::ErrorKind::InvalidData`] if it is nothing of a download. Others of
    /// the file system.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let open = |suffix| {
            let path = with_suffix(path, suffix);
            // Before it is opened: opening a named pipe blocks until another process writes to it.
            if !path.metadata()?.is_file() {
                return Err(io::Error::from(io::ErrorKind::InvalidData));
            }
            File::open(path)
        };
        let (meta, data) = (open(".part.meta")?, open(".part")?);
        let files = Files { meta: Arc::new(meta), data: Arc::new(data), data_start: 0 };
        let core = EntryFile::open(files)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "nothing of it is stored"))?;
        core.make_read_only();
        Ok(Self(core))
    }

    /// Bytes in the whole file.
    pub(crate) fn len(&self) -> u64 {
        self.0.header().len
    }

    pub(crate) fn media_type(&self) -> &str {
        &self.0.header().media_type
    }

    /// The ranges that may be there, ascending. They do not touch.
    pub(crate) fn stored(&self) -> Vec<Range<u64>> {
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in self.0.stored() {
            match joined.last_mut().filter(|last| last.end == range.start) {
                Some(last) => last.end = range.end,
                None => joined.push(range),
            }
        }
        joined
    }

    /// Number of bytes from `position` on that one [`read`](Self::read) may return.
    pub(crate) fn stored_at(&self, position: u64) -> u64 {
        let stored = self.0.stored().into_iter().find(|range| range.contains(&position));
        let end_of_block = (position / BLOCK + 1) * BLOCK;
        stored.map_or(0, |range| range.end.min(end_of_block) - position)
    }

    /// Fills `buf`, with bytes of one block. False if they are not there, or are damaged.
    pub(crate) fn read(&self, position: u64, buf: &mut [u8]) -> bool {
        self.0.read(position / BLOCK, position % BLOCK, buf)
    }
}

/// True for a directory, and false for a link to one, which a rename replaces.
fn is_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::format::tests::header;

    const LEN: u64 = BLOCK + 100;

    #[test]
    fn what_an_earlier_run_has_left_of_the_same_version_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.flac");
        {
            let part = PartFile::open(&path).unwrap();
            let entry = part.enter(header(LEN)).unwrap();
            entry.write(0, 0, &[7; BLOCK as usize]).unwrap();
            assert_eq!(PartFile::open(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        let part = PartFile::open(&path).unwrap();
        let entry = part.enter(header(LEN)).unwrap();
        assert_eq!(entry.stored().len(), 1);
        let mut buf = [0; 10];
        assert!(entry.read(0, 5, &mut buf) && buf == [7; 10]);
        assert!(part.sync(LEN).is_err());
        entry.write(1, 0, &[8; 100]).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(part.finish(false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        // Another program has added bytes.
        part.data.lock().as_ref().unwrap().set_len(LEN + 10).unwrap();
        part.sync(LEN).unwrap();
        part.finish(true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len() as u64, LEN);
        // Some file systems of Windows keep a file that was removed until it is closed.
        drop((part, entry));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    /// As a child has it that another thread is about to start.
    #[test]
    #[cfg(unix)]
    fn a_copy_of_the_descriptor_does_not_keep_the_lock_of_a_download_that_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let part = PartFile::open(&path).unwrap();
        let _copy = part.meta.with(File::try_clone).unwrap();
        part.close();
        PartFile::open(&path).unwrap();
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn what_the_disk_has_not_taken_is_not_continued() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let part = PartFile::open(&path).unwrap();
        let entry = part.enter(header(LEN)).unwrap();
        entry.write(0, 0, &[7; BLOCK as usize]).unwrap();
        // A device has no disk, so a sync of it fails: fsync(2), EINVAL.
        *part.data.lock() = Some(Arc::new(File::open("/dev/null").unwrap()));
        assert_eq!(part.sync(0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert!(!PartFile::is_left(&path));
        part.close();
        drop((part, entry));
        let again = PartFile::open(&path).unwrap();
        assert!(again.enter(header(LEN)).unwrap().stored().is_empty());
    }

    #[test]
    fn another_version_or_one_without_a_validator_begins_from_the_start() {
        let other = Header { etag: "\"v2\"".into(), ..header(LEN) };
        let unknown = Header { etag: String::new(), ..header(LEN) };
        for (first, then) in [(header(LEN), other), (unknown.clone(), unknown)] {
            let directory = tempfile::tempdir().unwrap();
            let part = PartFile::open(&directory.path().join("a")).unwrap();
            let old = part.enter(first).unwrap();
            old.write(0, 0, &[7; 1000]).unwrap();
            let new = part.enter(then).unwrap();
            assert!(new.stored().is_empty());
            // A stream of the old version writes it elsewhere.
            new.write(0, 0, &[9; 1000]).unwrap();
            old.write(0, 0, &[7; 2000]).unwrap();
            assert!(new.read(0, 0, &mut [0; 1000]));
            assert_eq!(std::fs::read(directory.path().join("a.part")).unwrap(), [9; 1000]);
        }
    }
}
