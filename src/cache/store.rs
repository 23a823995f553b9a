//! What the handles of a cache share: its directory, the open entries, and how much may be written.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::config::CacheConfig;
use super::directory::{Directory, Found};
use super::entry::{EntryFile, Files};
use super::format::{BLOCK, Header, KeyDigest, Stamp, part_prefix};
use super::freshness::{Use, seconds};
use super::layer::FileLayer;
use super::quota::{Limits, Usage, victims};
use super::sys::{HAS_HOLES, is_removed};
use crate::cancel::CancelReason;
use crate::error::{Error, ErrorKind};

/// How often an entry that other processes make or remove meanwhile is opened again. See [`Store::open_or_create`].
const ATTEMPTS: usize = 20;

/// Seconds between two updates of the time at which an entry was used. Each update writes to the file system, and the order of
/// eviction needs no more.
const TOUCH_INTERVAL: u64 = 60;

/// A cache.
#[derive(Debug)]
pub(crate) struct Store {
    pub(super) config: CacheConfig,
    pub(super) directory: Directory,
    /// The path that the application has named, for errors.
    path: PathBuf,
    open: Mutex<OpenEntries>,
    usage: Mutex<Usage>,
    /// Held while the directory is scanned, so that one thread does it for all.
    scanning: Mutex<()>,
}

/// The entries that this process has open.
#[derive(Debug, Default)]
struct OpenEntries {
    /// By the names of their files. So the streams of this process share what has been checked. One of them may have lost its name
    /// to another process.
    by_name: HashMap<String, Weak<Entry>>,
    /// Number of removals by this process. A file that was opened before the last of them may have lost its name.
    removals: u64,
}

/// An open entry, and the lock that keeps it from being evicted.
#[derive(Debug)]
pub(crate) struct Entry {
    core: EntryFile,
    file: Arc<File>,
    /// Where it is written, for errors: the directory of the cache, or a file.
    path: PathBuf,
    /// `None` if nothing limits what is written.
    store: Option<Arc<Store>>,
    /// Nothing is stored any more, and that is no failure.
    is_closed: AtomicBool,
    /// Up to where the file takes room that was counted, where files have no holes.
    counted: Mutex<u64>,
    /// When it was last noted that the entry is used, in seconds since 1970.
    touched_at: AtomicU64,
}

impl Store {
    /// Opens the directory. Does not look at its entries.
    pub(super) fn open(path: &Path, config: CacheConfig) -> io::Result<Self> {
        let directory = Directory::open(path)?;
        Ok(Self {
            config,
            directory,
            path: path.to_owned(),
            open: Mutex::default(),
            usage: Mutex::default(),
            scanning: Mutex::default(),
        })
    }

    /// The entry of a key that was confirmed last, if it may be used without asking first. `part` is empty for the key's only
    /// resource.
    pub(crate) fn lookup(
        self: &Arc<Self>,
        key: &KeyDigest,
        part: &str,
        now: SystemTime,
    ) -> Option<(Arc<Entry>, Use)> {
        let entry = self.newest(key, part)?;
        let usable = entry.core.stamp().usable(now, self.config.max_age);
        (usable != Use::Confirmed).then_some((entry, usable))
    }

    /// As [`lookup`](Self::lookup), but also returns an entry that may only be used after validation.
    pub(crate) fn newest(self: &Arc<Self>, key: &KeyDigest, part: &str) -> Option<Arc<Entry>> {
        let names = self.find(key, part);
        // An entry that can't be opened is a miss: its bytes come from the network instead.
        let entries = names.iter().filter_map(|name| self.open_entry(name).ok().flatten());
        // The name has a prefix of the digests only.
        let entries = entries.filter(|entry| entry.header().key == *key && entry.header().part == part);
        entries.max_by_key(|entry| entry.core.stamp().validated_at)
    }

    /// The entry for the representation that a response has just shown. Makes it if there is none.
    ///
    /// # Errors
    ///
    /// Errors of the file system; the error that nothing more may be written.
    pub(crate) fn enter(self: &Arc<Self>, header: Header, stamp: Stamp) -> io::Result<Arc<Entry>> {
        let name = header.file_name();
        let entry = self.open_or_create(&name, header.clone(), stamp)?;
        if !entry.header().is_same_representation(&header) {
            return Err(io::Error::other("another representation has the same digest"));
        }
        // Also if the entry existed before: the response has just confirmed it.
        entry.core.set_stamp(stamp);
        Ok(entry)
    }

    /// Names of the entries of a part: one for each version.
    fn find(&self, key: &KeyDigest, part: &str) -> Vec<String> {
        let mut names = self.directory.find(key);
        if !part.is_empty() {
            let prefix = part_prefix(key, part);
            names.retain(|name| name.starts_with(&prefix));
        }
        names
    }

    /// Removes the other entries of the resource of `entry`, which is the server's version.
    pub(crate) fn evict_others(&self, entry: &Entry) {
        let (header, name) = (entry.header(), entry.header().file_name());
        for other in self.find(&header.key, &header.part).iter().filter(|found| **found != name) {
            // It may still be open; then it is evicted later.
            let _ = self.directory.evict(other);
        }
    }

    fn open_entry(self: &Arc<Self>, name: &str) -> io::Result<Option<Arc<Entry>>> {
        // Another attempt only after a removal in between, so this ends.
        loop {
            if let Some(entry) = self.registered(name) {
                return Ok(Some(entry));
            }
            let removals = self.open.lock().removals;
            let Some(entry) = self.open_file(name)? else { return Ok(None) };
            if let Some(entry) = self.register(name, entry, removals) {
                return Ok(Some(entry));
            }
        }
    }

    /// Opens the entry's file. `None` if there is none, or if it is damaged: then it is removed.
    fn open_file(self: &Arc<Self>, name: &str) -> io::Result<Option<Entry>> {
        let Some(file) = self.directory.open_entry(name)?.map(Arc::new) else { return Ok(None) };
        let core = Header::read(&*file).and_then(|header| EntryFile::open(files(&file, &header)));
        // A file that was renamed or copied would be served for another key. And one that was truncated must not get long again, since
        // another process may still trust what it has lost.
        match core.filter(|core| core.header().file_name() == *name && !core.is_cut()) {
            Some(core) => Ok(Some(Entry::new(core, file, self.path.clone(), Some(Arc::clone(self))))),
            None => {
                log::debug!("a damaged entry of the cache is removed: {name}");
                // It holds a shared lock on the file, and the removal needs an exclusive one.
                drop(file);
                self.directory.evict(name)?;
                Ok(None)
            }
        }
    }

    /// Opens the entry, or makes it if there is none.
    fn open_or_create(self: &Arc<Self>, name: &str, header: Header, stamp: Stamp) -> io::Result<Arc<Entry>> {
        // Each attempt that fails has met another process that made the entry after it was not found, or removed it before it was
        // locked. To make one takes longer than to remove one, so an attempt outlasts what it has met, and there is nothing to wait
        // for in between: a blocking `flock` has no limit, and the other process may be stopped while it holds the lock. Then all
        // attempts fail, and the stream is not cached.
        for _ in 0..ATTEMPTS {
            if let Some(entry) = self.open_entry(name)? {
                return Ok(entry);
            }
            if let Some(entry) = self.create_entry(name, &header, stamp)? {
                return Ok(entry);
            }
        }
        Err(io::Error::other("an entry of the cache is made and removed again and again"))
    }

    /// `None` if there is one, or if it was removed at once.
    fn create_entry(
        self: &Arc<Self>,
        name: &str,
        header: &Header,
        stamp: Stamp,
    ) -> io::Result<Option<Arc<Entry>>> {
        // The slots count at once, although their hole takes no room yet: blocks are counted when they are written, slots are not.
        if !self.admit(header.data_start()) {
            return Err(no_room());
        }
        let removals = self.open.lock().removals;
        let written =
            // The clone shares the lock of `file`, which lasts until the last of them is closed (flock(2)).
            |file: &File| {
                // As long as the slots from the start: a shorter one was truncated, and may have lost slots.
                file.set_len(header.data_start())?;
                EntryFile::create(files_of(file.try_clone()?, header), header.clone(), stamp)
            };
        let made = self.directory.create_entry(name, |file| written(file).map(drop))?;
        let Some(file) = made.map(Arc::new) else { return Ok(None) };
        let core = EntryFile::open(files(&file, header)).ok_or(io::ErrorKind::InvalidData)?;
        Ok(self.register(name, Entry::new(core, file, self.path.clone(), Some(Arc::clone(self))), removals))
    }

    /// The open entry of this name, unless another process has removed its file.
    fn registered(&self, name: &str) -> Option<Arc<Entry>> {
        let entry = self.open.lock().by_name.get(name).and_then(Weak::upgrade);
        // Without the lock, since this asks the file system.
        entry.filter(|entry| !entry.is_removed())
    }

    /// The one entry of this name in the process: `entry`, unless another thread was faster. `None` if this process has removed an
    /// entry since it had made `removals`: it may have been this one, which must not be found any more.
    fn register(&self, name: &str, entry: Entry, removals: u64) -> Option<Arc<Entry>> {
        let entry = Arc::new(entry);
        let mut removed: Option<Arc<Entry>> = None;
        loop {
            // One entry for all streams of the process: two would each check all blocks, and could write different slots.
            let other = {
                let mut open = self.open.lock();
                if open.removals != removals {
                    return None;
                }
                let is_other =
                    |other: &Arc<Entry>| removed.as_ref().is_none_or(|removed| !Arc::ptr_eq(other, removed));
                let Some(other) = open.by_name.get(name).and_then(Weak::upgrade).filter(is_other) else {
                    // Only here, because only a new entry makes the map grow.
                    open.by_name.retain(|_, entry| entry.strong_count() > 0);
                    open.by_name.insert(name.to_owned(), Arc::downgrade(&entry));
                    return Some(entry);
                };
                other
            };
            // Without the lock, since this asks the file system.
            if !other.is_removed() {
                return Some(other);
            }
            removed = Some(other);
        }
    }

    /// Counts bytes that are about to be written. Scans the directory and evicts entries when that is due. False if there is no
    /// room for them.
    fn admit(&self, bytes: u64) -> bool {
        let limits = self.limits();
        if self.usage.lock().admit(bytes, limits) || self.admit_early(bytes, limits) {
            return true;
        }
        self.admit_after_scan(bytes, limits)
    }

    /// The first response that is stored must not wait until thousands of entries are counted.
    fn admit_early(&self, bytes: u64, limits: Limits) -> bool {
        if self.usage.lock().is_scanned() {
            return false;
        }
        // I/O, so not under the lock of the usage, which each write takes.
        let free = self.directory.free();
        self.usage.lock().admit_early(bytes, limits, free)
    }

    /// Counts the entries, unless that was done.
    pub(super) fn count(&self) {
        if !self.usage.lock().is_scanned() {
            self.admit_after_scan(0, self.limits());
        }
    }

    fn admit_after_scan(&self, bytes: u64, limits: Limits) -> bool {
        // File I/O under a lock: threads that wait for the lock need its result.
        let _scanning = self.scanning.lock();
        // Another thread may have scanned while this one waited for the lock.
        if self.usage.lock().admit(bytes, limits) {
            return true;
        }
        // Before the scan: it may pass a folder before something is written there.
        let before = self.usage.lock().since_scan();
        match self.scan_and_evict(bytes) {
            Ok((used, free, limits)) => {
                let mut usage = self.usage.lock();
                usage.handle_scan(used, before, limits, free);
                usage.admit_after_scan(bytes)
            }
            Err(error) => {
                log::warn!("the directory of the cache can't be read: {error}");
                false
            }
        }
    }

    /// Makes room for `bytes`. Returns how many bytes the entries have afterwards, how many are free, and the limits to hold
    /// them against.
    fn scan_and_evict(&self, bytes: u64) -> io::Result<(u64, Option<u64>, Limits)> {
        let mut limits = self.limits();
        // What other versions have stored counts as well: the user has set one limit for the directory.
        limits.max_bytes = limits.max_bytes.saturating_sub(self.directory.scan_others()?);
        let now = SystemTime::now();
        let found = self.directory.scan(now)?;
        let used: u64 = found.iter().map(|found| found.bytes).sum();
        let free = self.directory.free();
        let pins: HashSet<String> = self.directory.pins()?.into_iter().collect();
        let (victims, needed) = victims(found, &pins, bytes, limits, free, seconds(now));
        if needed == 0 {
            return Ok((used, free, limits));
        }
        let Some(_lock) = self.directory.lock_eviction()? else {
            // Another process makes room just now.
            // Writing goes on meanwhile, beyond the limit by what the docs of `max_bytes` allow. A failed write would make its
            // entry read-only.
            let limits = Limits { max_bytes: limits.max_bytes + limits.part(), ..limits };
            return Ok((used, free, limits));
        };
        let freed = self.evict(victims, needed);
        Ok((used - freed, free.map(|free| free + freed), limits))
    }

    fn evict(&self, victims: Vec<Found>, needed: u64) -> u64 {
        let mut freed = 0;
        for victim in victims {
            if freed >= needed {
                break;
            }
            // One that is open, that another process has removed, or that was pinned meanwhile, frees nothing.
            if self.directory.evict_unpinned(&victim.name).unwrap_or(false) {
                freed += victim.bytes;
            }
        }
        freed
    }

    /// Bytes on disk. Waits for the first scan of the directory.
    pub(super) fn used(&self) -> u64 {
        self.count();
        self.usage.lock().used()
    }

    /// Removes an entry, also if it is open. A stream that is opened from now on does not find it.
    pub(super) fn remove_entry(&self, name: &str) -> io::Result<()> {
        self.directory.remove(name)?;
        // Last. An entry that is registered before this is forgotten here, and one that was opened before and is registered later
        // is refused, because the number has changed. The other order would let the second one stay until it is closed.
        let mut open = self.open.lock();
        open.by_name.remove(name);
        open.removals += 1;
        Ok(())
    }

    /// Removes an entry of which the server has a newer version.
    pub(crate) fn remove_outdated(&self, entry: &Entry) {
        // Another stream of it may have come first. The file that has its name by now is not the outdated one.
        if entry.is_removed() {
            return;
        }
        if let Err(error) = self.remove_entry(&entry.header().file_name()) {
            log::debug!("an outdated entry of the cache can't be removed: {error}");
        }
    }

    /// Makes the next write scan the directory: entries were removed.
    pub(super) fn forget_usage(&self) {
        *self.usage.lock() = Usage::default();
    }

    fn limits(&self) -> Limits {
        Limits { max_bytes: self.config.max_bytes, keep_free: self.config.keep_free }
    }
}

impl Entry {
    pub(super) fn new(core: EntryFile, file: Arc<File>, path: PathBuf, store: Option<Arc<Store>>) -> Self {
        // The slots were counted when the entry was made.
        let counted = file.metadata().map_or(0, |file| file.len()).max(core.header().data_start());
        Self {
            core,
            file,
            path,
            store,
            is_closed: AtomicBool::new(false),
            counted: Mutex::new(counted),
            touched_at: AtomicU64::new(0),
        }
    }

    pub(crate) fn header(&self) -> &Header {
        self.core.header()
    }

    pub(crate) fn set_stamp(&self, stamp: Stamp) {
        self.core.set_stamp(stamp);
    }

    /// The bytes that may be there. One that turns out not to be there is missed when it is read.
    pub(crate) fn stored(&self) -> Vec<Range<u64>> {
        self.core.stored()
    }

    /// Number of writes so far, by all streams of the process.
    pub(crate) fn writes(&self) -> u64 {
        self.core.writes()
    }

    /// True if nothing more is written.
    pub(crate) fn is_read_only(&self) -> bool {
        self.core.is_read_only()
    }

    /// True if its file has no name any more, so that no other stream will find what is stored in it.
    fn is_removed(&self) -> bool {
        // A file that can't be looked at is of no use to others either.
        is_removed(&self.file).unwrap_or(true)
    }

    /// Refuses writes from now on, as a failed write does.
    #[cfg(all(test, unix))]
    pub(crate) fn make_read_only(&self) {
        self.core.make_read_only();
    }

    /// Ends all writing, because no fetch has any reason to write any more.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
        self.core.make_read_only();
    }

    /// Fills `buf` with bytes of the block of this index, from `within` on. False if they are not there.
    pub(crate) fn read(&self, index: u64, within: u64, buf: &mut [u8]) -> bool {
        self.touch();
        let is_read = self.core.read(index, within, buf);
        self.remove_abandoned();
        is_read
    }

    /// Stores bytes of the block of this index.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Storage`] if the file can't be written, or there is no room; [`ErrorKind::Cancelled`] if it is closed. Then
    /// nothing more is written.
    pub(crate) fn write(&self, index: u64, within: u64, bytes: &[u8]) -> Result<(), Error> {
        let offset = self.header().data_start() + index * BLOCK + within;
        if self.store.as_ref().is_some_and(|store| !self.admit(store, offset, bytes.len() as u64)) {
            self.core.make_read_only();
            return Err(storage_error("the cache has no room", no_room()));
        }
        let written = self.core.write(index, within, bytes);
        self.remove_abandoned();
        written.map_err(|error| match self.is_closed.load(Ordering::Acquire) {
            // As a resource that is closed: a fetch whose stream is gone has not failed.
            true => Error::cancelled(CancelReason::Peer),
            false => storage_error(&format!("can't write to {}: {error}", self.path.display()), error),
        })
    }

    /// Removes the file if it is of no use any more, so that the next stream begins a new one.
    fn remove_abandoned(&self) {
        if let Some(store) = self.store.as_ref().filter(|_| self.core.is_abandoned()) {
            store.remove_outdated(self);
        }
    }

    /// Counts the room that `len` bytes at `offset` take on the disk. False if there is none.
    fn admit(&self, store: &Store, offset: u64, len: u64) -> bool {
        if HAS_HOLES {
            return store.admit(len);
        }
        // Another write may grow the file, too. Under the lock, which may scan the directory: the other one would wait for the same
        // scan.
        let mut counted = self.counted.lock();
        let end = counted.max(offset + len);
        let is_admitted = store.admit(end - *counted);
        if is_admitted {
            *counted = end;
        }
        is_admitted
    }

    /// All bytes. `None` if one of them is not there.
    #[cfg(feature = "hls")]
    pub(crate) fn read_all(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.header().len).ok()?];
        let mut blocks = (0..).zip(bytes.chunks_mut(BLOCK as usize));
        blocks.all(|(index, block)| self.read(index, 0, block)).then_some(bytes)
    }

    /// Stores bytes from `offset` on, in one block or more.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write).
    #[cfg(feature = "hls")]
    pub(crate) fn write_at(&self, mut offset: u64, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let within = offset % BLOCK;
            let (now, rest) = bytes.split_at(bytes.len().min((BLOCK - within) as usize));
            self.write(offset / BLOCK, within, now)?;
            (offset, bytes) = (offset + now.len() as u64, rest);
        }
        Ok(())
    }

    /// Notes that the entry is used.
    fn touch(&self) {
        let now = SystemTime::now();
        let before = self.touched_at.load(Ordering::Relaxed);
        let now_seconds = seconds(now);
        if self.store.is_none() || now_seconds.abs_diff(before) < TOUCH_INTERVAL {
            return;
        }
        // Only one of the threads that read at the same time.
        if self.touched_at.swap(now_seconds, Ordering::Relaxed) == before {
            // A failure has one effect: the entry is evicted sooner.
            let _ = self.file.set_modified(now);
        }
    }
}

impl Header {
    /// The header at the beginning of a file.
    pub(super) fn read(file: &dyn FileLayer) -> Option<Self> {
        let mut page = [0; super::format::PAGE];
        let got = super::layer::read_full(file, &mut page, 0).ok()?;
        Self::decode(&page[..got])
    }
}

/// Header, slots and blocks in one file.
pub(super) fn files(file: &Arc<File>, header: &Header) -> Files {
    let layer: Arc<dyn FileLayer> = Arc::clone(file) as _;
    Files { meta: Arc::clone(&layer), data: layer, data_start: header.data_start() }
}

fn files_of(file: File, header: &Header) -> Files {
    files(&Arc::new(file), header)
}

fn no_room() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "nothing can be evicted")
}

pub(super) fn storage_error(what: &str, cause: io::Error) -> Error {
    Error::new(ErrorKind::Storage, what).with_cause(cause)
}

/// Time since 1970, for the API.
pub(super) fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
