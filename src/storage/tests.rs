//! Tests of storage as a whole, over each kind of store.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::{self, ThreadId};
use std::time::Instant;

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::disk::{
    Disk,
    tests::{await_earlier_work, hold, own_disk},
};
use super::layout::BLOCK;
use super::store::{BlockStore, Place};
use super::temp_file::TempFileStore;
use super::write_behind::MAX_BACKLOG;
use super::{Resource, TryStored};
use crate::buffer::Buffer;
use crate::config::StorageConfig;
use crate::error::{Error, ErrorKind};

fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// The bytes at the first offsets, computed once: without optimisation that takes longer than all else in these tests.
static FIRST_BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| (0..64 * BLOCK).map(byte_at).collect());

fn bytes(range: Range<u64>) -> Vec<u8> {
    match FIRST_BYTES.get(range.start as usize..range.end as usize) {
        Some(bytes) => bytes.to_vec(),
        None => range.map(byte_at).collect(),
    }
}

/// In memory; in a temporary file whose last blocks stay in memory; in one whose blocks are written soon.
fn each_kind() -> [Arc<Resource>; 3] {
    let resource = |config| Arc::new(Resource::new(&config).unwrap());
    let all =
        [StorageConfig::Memory, StorageConfig::TempFile(None), StorageConfig::TempFile(None)].map(resource);
    *all[2].disk.lock() = Some(own_disk());
    all
}

fn store_in_parts(resource: &Arc<Resource>, range: Range<u64>, part: u64) {
    for at in range.clone().step_by(part as usize) {
        resource.store(at, &bytes(at..range.end.min(at + part))).unwrap();
    }
}

/// Blocks until the disk thread has done all that it was asked for.
fn await_disk(resource: &Resource) {
    let disk = resource.shared_disk().unwrap();
    loop {
        await_earlier_work(&disk);
        if !resource.state.lock().is_enlisted {
            return;
        }
    }
}

#[test]
fn what_is_written_anywhere_is_read_back() {
    for resource in each_kind() {
        let far = 5 << 32;
        resource.write_at(far + 10, &bytes(far + 10..far + 200_000)).unwrap();
        let mut buf = vec![0; 300_000];
        assert_eq!(resource.read_at(far, &mut buf).unwrap(), 0);
        let got = resource.read_at(far + 70_000, &mut buf).unwrap();
        assert_eq!(buf[..got], bytes(far + 70_000..far + 200_000));
    }
}

#[test]
fn eviction_forgets_whole_blocks_outside_the_windows() {
    for resource in each_kind() {
        resource.write_at(0, &bytes(0..4 * BLOCK)).unwrap();
        resource.evict(&[BLOCK + 5..BLOCK + 6, 3 * BLOCK - 1..3 * BLOCK]);
        let ranges: Vec<_> = resource.with_ranges(|ranges| ranges.iter().collect());
        assert_eq!(ranges.len(), 1);
        assert_eq!(ranges[0], BLOCK..3 * BLOCK);
        resource.write_at(9 * BLOCK, &bytes(9 * BLOCK..10 * BLOCK)).unwrap();
        let mut buf = vec![0; BLOCK as usize];
        assert_eq!(resource.read_at(2 * BLOCK, &mut buf).unwrap(), buf.len());
        assert_eq!(buf, bytes(2 * BLOCK..3 * BLOCK));
    }
}

/// What is stored while the windows are made may lie in one that has moved.
#[test]
fn nothing_is_stored_between_the_look_at_the_windows_and_the_eviction() {
    for resource in each_kind() {
        resource.write_at(0, &bytes(0..2 * BLOCK)).unwrap();
        resource.evict_outside(|| {
            assert!(resource.state.try_lock().is_none());
            Some(vec![0..BLOCK])
        });
        assert!(resource.with_ranges(|ranges| ranges.iter().eq([0..BLOCK])));
        resource.evict_outside(|| None);
        assert!(resource.with_ranges(|ranges| ranges.iter().eq([0..BLOCK])));
    }
}

#[test]
fn a_full_disk_is_an_error_of_its_own_and_nothing_counts_as_stored() {
    let Ok(full) = std::fs::File::options().read(true).write(true).open("/dev/full") else {
        return; // A system without it has nothing to test with.
    };
    let resource = Resource::over(TempFileStore::over(full, "/dev".into()));
    let error = resource.write_at(5, b"bytes").unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Storage, false));
    let text = error.to_string();
    assert!(text.starts_with("a temporary file in /dev can't be written: No space left"), "{text}");
    assert_eq!(resource.read_at(5, &mut [0; 10]).unwrap(), 0);
}

#[test]
fn a_block_that_a_full_disk_refuses_is_stored_no_more_and_the_next_write_fails() {
    let Ok(full) = std::fs::File::options().read(true).write(true).open("/dev/full") else {
        return; // A system without it has nothing to test with.
    };
    let resource = Arc::new(Resource::over(TempFileStore::over(full, "/dev".into())));
    *resource.disk.lock() = Some(own_disk());
    let block = || Buffer::from(bytes(0..BLOCK));
    resource.write_block(0, &mut block()).unwrap();
    await_disk(&resource);
    assert_eq!(resource.read_at(0, &mut [0; 10]).unwrap(), 0);
    let error = resource.write_block(BLOCK, &mut block()).unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Storage, false));
    // The error is returned once: the disk may have room again.
    resource.write_block(BLOCK, &mut block()).unwrap();
}

#[cfg(all(feature = "cache", unix))]
#[test]
fn a_full_disk_is_an_error_also_behind_an_entry_that_has_failed() {
    let Ok(full) = std::fs::File::options().read(true).write(true).open("/dev/full") else {
        return; // A system without it has nothing to test with.
    };
    let directory = tempfile::tempdir().unwrap();
    let part = crate::cache::PartFile::open(&directory.path().join("a")).unwrap();
    let header = crate::cache::Header {
        key: [0; 32],
        len: 3 * BLOCK,
        stored_at: 0,
        has_ranges: true,
        etag: "\"1\"".into(),
        last_modified: String::new(),
        date: String::new(),
        media_type: String::new(),
        label: String::new(),
        part: String::new(),
    };
    let entry = part.enter(header).unwrap();
    let resource = Arc::new(Resource::over(TempFileStore::over(full, "/dev".into())));
    resource.attach(Arc::clone(&entry), Box::new(|_| {}));
    resource.write_at(0, &bytes(0..BLOCK)).unwrap();
    entry.make_read_only();
    for offset in [BLOCK, 2 * BLOCK] {
        let error = resource.write_at(offset, &bytes(offset..offset + BLOCK)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Storage);
    }
    let mut buf = vec![0; 2 * BLOCK as usize];
    assert_eq!(resource.read_at(0, &mut buf).unwrap(), BLOCK as usize);
}

#[test]
fn a_block_that_waits_to_be_written_serves_all_readers_and_is_read_from_the_file_afterwards() {
    let resource = Arc::new(Resource::new(&StorageConfig::TempFile(None)).unwrap());
    let disk = own_disk();
    *resource.disk.lock() = Some(Arc::clone(&disk));
    let (release, _work) = hold(&disk);
    resource.write_block(BLOCK, &mut Buffer::from(bytes(BLOCK..2 * BLOCK))).unwrap();
    resource.write_block(2 * BLOCK, &mut Buffer::from(bytes(2 * BLOCK..3 * BLOCK))).unwrap();
    // It is complete, so these bytes are nothing new.
    resource.write_at(BLOCK + 5, &bytes(BLOCK + 5..BLOCK + 10)).unwrap();
    resource.evict(&[BLOCK..2 * BLOCK]);
    let mut buf = vec![0; BLOCK as usize];
    assert_eq!(resource.try_read_at(BLOCK + 1, &mut buf).unwrap(), TryStored::Bytes(BLOCK as usize - 1));
    assert_eq!(buf[..BLOCK as usize - 1], bytes(BLOCK + 1..2 * BLOCK));
    assert!(resource.state.lock().write_behind.get(BLOCK).is_some());
    release.send(()).unwrap();
    await_disk(&resource);
    assert!(resource.state.lock().write_behind.get(BLOCK).is_none());
    buf.fill(0);
    assert_eq!(resource.read_at(BLOCK, &mut buf).unwrap(), buf.len());
    assert_eq!(buf, bytes(BLOCK..2 * BLOCK));
    assert_eq!(resource.read_at(2 * BLOCK, &mut buf).unwrap(), 0);
}

#[test]
fn parts_behind_a_whole_block_wait_in_memory_until_their_block_is_full() {
    let resource = Arc::new(Resource::new(&StorageConfig::TempFile(None)).unwrap());
    let disk = own_disk();
    *resource.disk.lock() = Some(Arc::clone(&disk));
    let (release, _work) = hold(&disk);
    store_in_parts(&resource, 0..2 * BLOCK + 100_000, 50_000);
    let is_in_memory = |offset| resource.state.lock().write_behind.get(offset).is_some();
    // The first block went to the file in parts: nothing showed that more would follow.
    assert_eq!([0, BLOCK, 2 * BLOCK].map(is_in_memory), [false, true, true]);
    let mut buf = vec![0; 3 * BLOCK as usize];
    assert_eq!(resource.read_at(5, &mut buf).unwrap() as u64, 2 * BLOCK + 100_000 - 5);
    assert_eq!(buf[..2 * BLOCK as usize + 99_995], bytes(5..2 * BLOCK + 100_000));
    assert_eq!(resource.try_read_at(2 * BLOCK + 5, &mut buf).unwrap(), TryStored::Bytes(100_000 - 5));
    release.send(()).unwrap();
    await_disk(&resource);
    assert_eq!([BLOCK, 2 * BLOCK].map(is_in_memory), [false, true]);
    buf.fill(0);
    assert_eq!(resource.read_at(BLOCK, &mut buf).unwrap() as u64, BLOCK + 100_000);
    assert_eq!(buf[..BLOCK as usize + 100_000], bytes(BLOCK..2 * BLOCK + 100_000));
}

/// Threads that have written blocks.
type Writers = Arc<Mutex<Vec<ThreadId>>>;

/// Forgets the bytes, and records which threads write them.
#[derive(Debug, Default)]
struct Recording {
    places: BTreeMap<u64, Arc<RecordingPlace>>,
    writers: Writers,
}

#[derive(Debug)]
struct RecordingPlace(Writers);

/// Stores no byte.
#[derive(Debug, Default)]
struct Panicking;

#[derive(Debug)]
struct PanickingPlace;

impl BlockStore for Panicking {
    fn entry(&mut self, _: u64) -> Arc<dyn Place> {
        Arc::new(PanickingPlace)
    }

    fn get(&self, _: u64) -> Option<Arc<dyn Place>> {
        Some(Arc::new(PanickingPlace))
    }

    fn indices(&self, _: Range<u64>) -> Vec<u64> {
        Vec::new()
    }

    fn remove(&mut self, _: u64) {}
}

impl Place for PanickingPlace {
    fn read(&self, _: u64, _: &mut [u8]) -> Result<bool, Error> {
        panic!("as the test wants")
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), Error> {
        panic!("as the test wants")
    }
}

impl BlockStore for Recording {
    fn entry(&mut self, index: u64) -> Arc<dyn Place> {
        let new = || Arc::new(RecordingPlace(Arc::clone(&self.writers)));
        Arc::clone(self.places.entry(index).or_insert_with(new)) as Arc<dyn Place>
    }

    fn get(&self, index: u64) -> Option<Arc<dyn Place>> {
        self.places.get(&index).map(|place| Arc::clone(place) as Arc<dyn Place>)
    }

    fn indices(&self, within: Range<u64>) -> Vec<u64> {
        self.places.range(within).map(|(index, _)| *index).collect()
    }

    fn remove(&mut self, index: u64) {
        self.places.remove(&index);
    }

    fn is_slow_to_drop(&self) -> bool {
        true
    }
}

impl Place for RecordingPlace {
    fn read(&self, _: u64, _: &mut [u8]) -> Result<bool, Error> {
        Ok(false)
    }

    fn write(&self, _: u64, _: &[u8]) -> Result<(), Error> {
        self.0.lock().push(thread::current().id());
        Ok(())
    }
}

/// Writes `blocks` to a resource whose disk thread does nothing before `go_on`, which is called when no more blocks fit in memory.
/// Returns the outcome, the threads that have written blocks, and the disk thread.
fn write_more_than_fits(
    blocks: u64,
    go_on: impl FnOnce(&Resource),
) -> (Result<(), Error>, Vec<ThreadId>, ThreadId) {
    let store = Recording::default();
    let (writers, resource, disk) = (Arc::clone(&store.writers), Arc::new(Resource::over(store)), own_disk());
    *resource.disk.lock() = Some(Arc::clone(&disk));
    let (release, _work) = hold(&disk);
    let (full, is_full) = bounded(1);
    let outcome = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            (0..blocks).try_for_each(|index| {
                if index == MAX_BACKLOG as u64 {
                    full.send(()).unwrap();
                }
                resource.write_block(index * BLOCK, &mut Buffer::from(vec![7; BLOCK as usize]))
            })
        });
        is_full.recv().unwrap();
        go_on(&resource);
        release.send(()).unwrap();
        writer.join().unwrap()
    });
    let id = await_earlier_work(&disk);
    await_disk(&resource);
    let writers = writers.lock().clone();
    (outcome, writers, id)
}

#[test]
fn a_writer_waits_for_the_disk_thread_instead_of_writing_beside_it() {
    let blocks = 3 * MAX_BACKLOG as u64;
    let (outcome, writers, disk) = write_more_than_fits(blocks, |_| ());
    outcome.unwrap();
    assert_eq!(writers.len() as u64, blocks);
    // Where the disk thread gets no processor for `MAX_WAIT`, the writer may write a block.
    let own = writers.iter().filter(|writer| **writer != disk).count() as u64;
    assert!(own < blocks / 4, "{own} of {blocks}");
}

#[test]
fn a_close_ends_the_wait_of_a_writer_for_the_disk_thread() {
    let (outcome, writers, _) = write_more_than_fits(MAX_BACKLOG as u64 + 1, Resource::close);
    assert!(outcome.unwrap_err().is_cancelled() && writers.is_empty());
}

#[test]
fn an_interrupt_ends_the_wait_of_a_writer_for_the_disk_thread() {
    let interrupt = |resource: &Resource| {
        resource.set_interrupted(true);
        resource.notify();
    };
    assert_goes_on_while_the_disk_hangs(interrupt);
}

#[test]
fn a_writer_does_not_wait_forever_for_a_disk_thread_that_hangs() {
    assert_goes_on_while_the_disk_hangs(|_| ());
}

/// A writer for whose blocks there is no room in memory writes them, after `go_on`, although the disk thread does nothing.
fn assert_goes_on_while_the_disk_hangs(go_on: impl FnOnce(&Resource)) {
    let store = Recording::default();
    let (writers, resource, disk) = (Arc::clone(&store.writers), Arc::new(Resource::over(store)), own_disk());
    *resource.disk.lock() = Some(Arc::clone(&disk));
    let (release, _work) = hold(&disk);
    let (full, is_full) = bounded(1);
    let writer = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for index in 0..=MAX_BACKLOG as u64 {
                if index == MAX_BACKLOG as u64 {
                    full.send(()).unwrap();
                }
                resource.write_block(index * BLOCK, &mut Buffer::from(vec![7; BLOCK as usize])).unwrap();
            }
        });
        is_full.recv().unwrap();
        go_on(&resource);
        let id = writer.thread().id();
        writer.join().unwrap();
        id
    });
    assert_eq!(*writers.lock(), [writer]);
    assert!(resource.with_ranges(|ranges| ranges.run_from(0)) == (MAX_BACKLOG as u64 + 1) * BLOCK);
    release.send(()).unwrap();
}

#[test]
fn a_panic_on_the_disk_thread_is_an_error_and_the_thread_goes_on() {
    let (resource, other, disk) =
        (Arc::new(Resource::over(Panicking)), Arc::new(Resource::over(Recording::default())), own_disk());
    for resource in [&resource, &other] {
        *resource.disk.lock() = Some(Arc::clone(&disk));
        resource.write_block(0, &mut Buffer::from(vec![7; BLOCK as usize])).unwrap();
        await_disk(resource);
        await_earlier_work(&disk);
    }
    let failed = resource.write_block(0, &mut Buffer::from(vec![7; BLOCK as usize])).unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Panicked);
    other.write_block(0, &mut Buffer::from(vec![7; BLOCK as usize])).unwrap();
    assert_eq!(resource.with_ranges(|ranges| ranges.run_from(0)), 0);
}

#[test]
fn a_panic_during_a_load_is_the_error_of_the_read() {
    let (resource, disk) = (Arc::new(Resource::over(Panicking)), own_disk());
    *resource.disk.lock() = Some(Arc::clone(&disk));
    resource.state.lock().ranges.insert(0..BLOCK);
    let mut buf = [0; 10];
    assert_eq!(resource.try_read_at(0, &mut buf).unwrap(), TryStored::OnDisk);
    await_earlier_work(&disk);
    assert_eq!(resource.try_read_at(0, &mut buf).unwrap_err().kind(), ErrorKind::Panicked);
}

#[test]
fn a_read_that_never_waits_gets_what_was_loaded_and_what_is_written_afterwards() {
    let resource = Arc::new(Resource::new(&StorageConfig::TempFile(None)).unwrap());
    let mut buf = vec![0; 3 * BLOCK as usize];
    assert_eq!(resource.try_read_at(0, &mut buf).unwrap(), TryStored::Nothing);
    resource.write_at(0, &bytes(0..BLOCK + 10)).unwrap();
    assert_eq!(resource.try_read_at(5, &mut buf).unwrap(), TryStored::OnDisk);
    await_disk(&resource);
    // The read has requested the block behind.
    assert_eq!(resource.try_read_at(5, &mut buf).unwrap(), TryStored::Bytes(BLOCK as usize - 5));
    await_disk(&resource);
    resource.write_at(BLOCK + 10, &bytes(BLOCK + 10..BLOCK + 100)).unwrap();
    assert_eq!(resource.try_read_at(5, &mut buf).unwrap(), TryStored::Bytes(BLOCK as usize + 95));
    assert_eq!(buf[..BLOCK as usize + 95], bytes(5..BLOCK + 100));
    resource.evict(&[BLOCK..BLOCK + 1]);
    assert_eq!(resource.try_read_at(5, &mut buf).unwrap(), TryStored::Nothing);
    assert_eq!(resource.try_read_at(BLOCK, &mut buf).unwrap(), TryStored::Bytes(100));
}

#[test]
fn a_failed_load_is_returned_once_by_a_read_of_that_block() {
    let file = tempfile::tempfile().unwrap();
    let resource = Arc::new(Resource::over(TempFileStore::over(file.try_clone().unwrap(), "here".into())));
    resource.write_at(0, &bytes(0..2 * BLOCK)).unwrap();
    let mut buf = [0; 10];
    assert_eq!(resource.try_read_at(0, &mut buf).unwrap(), TryStored::OnDisk);
    await_disk(&resource);
    // The first block lies in memory by now; the second one is lost.
    file.set_len(BLOCK).unwrap();
    for _ in 0..2 {
        assert_eq!(resource.try_read_at(0, &mut buf).unwrap(), TryStored::Bytes(10));
        await_disk(&resource);
    }
    for _ in 0..2 {
        assert_eq!(resource.try_read_at(BLOCK, &mut buf).unwrap_err().kind(), ErrorKind::Storage);
        assert_eq!(resource.try_read_at(BLOCK, &mut buf).unwrap(), TryStored::OnDisk);
        await_disk(&resource);
    }
}

#[test]
fn the_disk_thread_loads_for_all_resources() {
    let resources: Vec<Arc<Resource>> = (0..20)
        .map(|number| {
            let resource = Arc::new(Resource::new(&StorageConfig::TempFile(None)).unwrap());
            resource.write_at(0, &[number; 100]).unwrap();
            resource
        })
        .collect();
    let disk = Disk::shared().unwrap();
    for (number, resource) in resources.iter().enumerate() {
        let mut buf = [0];
        assert_eq!(resource.try_read_at(0, &mut buf).unwrap(), TryStored::OnDisk);
        await_earlier_work(&disk);
        assert_eq!(resource.try_read_at(0, &mut buf).unwrap(), TryStored::Bytes(1));
        assert_eq!(buf[0], number as u8);
    }
    assert!(resources.iter().all(|resource| Arc::ptr_eq(resource.disk.lock().as_ref().unwrap(), &disk)));
}

#[test]
fn a_closed_resource_holds_no_block_and_takes_none_in() {
    let resource = Resource::new(&StorageConfig::WholeMemory).unwrap();
    resource.write_at(0, &bytes(0..3 * BLOCK)).unwrap();
    let held: Vec<_> =
        (0..3).map(|index| Arc::downgrade(&resource.state.lock().find(index * BLOCK).unwrap().0)).collect();
    resource.close();
    assert!(held.iter().all(|block| block.upgrade().is_none()));

    let resource = Arc::new(Resource::new(&StorageConfig::TempFile(None)).unwrap());
    resource.write_at(0, &bytes(0..BLOCK)).unwrap();
    let mut buf = [0; 100];
    assert_eq!(resource.try_read_at(0, &mut buf).unwrap(), TryStored::OnDisk);
    resource.close();
    assert!(resource.state.lock().store.is_none() && resource.disk.lock().is_none());
    assert_eq!(resource.read_at(0, &mut buf).unwrap(), 0);
    assert_eq!(resource.try_read_at(0, &mut buf).unwrap(), TryStored::Nothing);
    assert!(resource.write_at(0, &buf).unwrap_err().is_cancelled());
    let mut block = Buffer::from(bytes(0..BLOCK));
    assert!(resource.write_block(0, &mut block).unwrap_err().is_cancelled());
    resource.evict(&[]);
    assert!(resource.with_ranges(|ranges| ranges.iter().next().is_none()));
}

#[test]
fn the_disk_thread_closes_a_large_file_of_a_stream_that_is_dropped() {
    let store = Recording::default();
    let (open, resource, disk) = (Arc::downgrade(&store.writers), Resource::over(store), own_disk());
    *resource.disk.lock() = Some(Arc::clone(&disk));
    let (release, _work) = hold(&disk);
    resource.close();
    drop(resource);
    assert!(open.upgrade().is_some());
    release.send(()).unwrap();
    await_earlier_work(&disk);
    assert!(open.upgrade().is_none());
    // The thread has given back the share of the resource.
    assert_eq!(Arc::strong_count(&disk), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64),
    /// In parts of this size.
    Store(u64, u64, u64),
    /// The block of this index, with its memory.
    WriteBlock(u64),
    Read(u64, u64),
    /// Without waiting for a disk, after it was waited for or not.
    TryRead(u64, u64, bool),
    Evict(Vec<(u64, u64)>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    const END: u64 = 12 * BLOCK;
    let some = || (0..END, 0..3 * BLOCK);
    let step = prop_oneof![
        4 => some().prop_map(|(at, len)| Step::Write(at, len)),
        2 => (0..END / BLOCK, 0..3 * BLOCK, 1..BLOCK)
            .prop_map(|(index, len, part)| Step::Store(index * BLOCK, len, part.max(10_000))),
        2 => (0..END / BLOCK).prop_map(Step::WriteBlock),
        4 => some().prop_map(|(at, len)| Step::Read(at, len)),
        4 => (some(), any::<bool>()).prop_map(|((at, len), is_loaded)| Step::TryRead(at, len, is_loaded)),
        1 => proptest::collection::vec(some(), 0..3).prop_map(Step::Evict),
    ];
    proptest::collection::vec(step, 1..30)
}

/// Which bytes are stored, by their offsets: 1, or 0. What they are depends on the offset only. Not `bool`, which is filled one by
/// one: without optimisation that takes longer than all else here.
struct Model(Vec<u8>);

impl Model {
    fn store(&mut self, range: Range<u64>) {
        self.0[range.start as usize..range.end as usize].fill(1);
    }

    /// Whole blocks outside of the windows are removed, and nothing else.
    fn evict(&mut self, windows: &[Range<u64>]) {
        for (index, block) in self.0.chunks_mut(BLOCK as usize).enumerate() {
            let own = index as u64 * BLOCK..(index as u64 + 1) * BLOCK;
            let is_kept = |window: &Range<u64>| window.start < own.end && own.start < window.end;
            if !windows.iter().any(|window| !window.is_empty() && is_kept(window)) {
                block.fill(0);
            }
        }
    }

    /// What is there without a gap from `at` on, `len` bytes at most.
    fn stored(&self, at: u64, len: usize) -> Vec<u8> {
        let is_stored = &self.0[at as usize..][..len];
        let len = is_stored.iter().position(|is_stored| *is_stored == 0).unwrap_or(len) as u64;
        bytes(at..at + len)
    }

    /// Takes a step with `resource`, and compares what it reads.
    fn step(&mut self, resource: &Arc<Resource>, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Write(at, len) => {
                resource.write_at(*at, &bytes(*at..at + len)).unwrap();
                self.store(*at..at + len);
            }
            Step::Store(at, len, part) => {
                store_in_parts(resource, *at..at + len, *part);
                self.store(*at..at + len);
            }
            Step::WriteBlock(index) => {
                let own = index * BLOCK..(index + 1) * BLOCK;
                resource.write_block(own.start, &mut Buffer::from(bytes(own.clone()))).unwrap();
                self.store(own);
            }
            Step::Read(at, len) => {
                let mut buf = vec![0; *len as usize];
                let got = resource.read_at(*at, &mut buf).unwrap();
                prop_assert_eq!(&buf[..got], &self.stored(*at, buf.len())[..]);
            }
            Step::TryRead(at, len, is_loaded) => self.try_read(resource, *at, *len, *is_loaded)?,
            Step::Evict(windows) => {
                let windows: Vec<_> = windows.iter().map(|(at, len)| *at..at + len).collect();
                resource.evict(&windows);
                self.evict(&windows);
            }
        }
        Ok(())
    }

    fn try_read(
        &self,
        resource: &Arc<Resource>,
        at: u64,
        len: u64,
        is_loaded: bool,
    ) -> Result<(), TestCaseError> {
        let mut buf = vec![0; len as usize];
        let mut stored = resource.try_read_at(at, &mut buf).unwrap();
        // Bytes that were in memory may be on disk a moment later: the disk thread has written them.
        if is_loaded && stored == TryStored::OnDisk {
            await_disk(resource);
            stored = resource.try_read_at(at, &mut buf).unwrap();
        }
        let is_there = len > 0 && self.0[at as usize] == 1;
        prop_assert_eq!(stored == TryStored::Nothing, !is_there);
        prop_assert!(!is_loaded || stored != TryStored::OnDisk);
        if let TryStored::Bytes(got) = stored {
            prop_assert_eq!(&buf[..got], &self.stored(at, got)[..]);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// What is there is what was written and not evicted.
    #[test]
    fn storage_agrees_with_a_list_of_bytes(steps in steps()) {
        for resource in each_kind() {
            let mut model = Model(vec![0; 15 * BLOCK as usize]);
            for step in &steps {
                model.step(&resource, step)?;
            }
        }
    }
}

#[test]
fn a_waiter_is_woken_by_the_bytes_and_released_by_its_deadline() {
    let resource = Resource::new(&StorageConfig::Memory).unwrap();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| resource.wait(None, |view| view.ranges.contains(7).then_some(())));
        resource.write_at(7, b"x").unwrap();
        assert_eq!(waiter.join().unwrap(), Some(()));
    });
    assert_eq!(resource.wait(Some(Instant::now()), |_| None::<()>), None);
}

/// Writers, readers and an evictor at once: what a reader gets is right, or nothing.
#[test]
fn no_race_delivers_a_byte_of_another_offset() {
    for resource in each_kind() {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2_u64)
                .map(|reader| {
                    let (resource, over) = (&resource, &over);
                    scope.spawn(move || {
                        let mut buf = vec![0; 100_000];
                        let mut offset = reader * 1000;
                        while !over.load(Ordering::Acquire) {
                            offset = (offset * 31 + 77) % (32 * BLOCK);
                            let got = resource.read_at(offset, &mut buf).unwrap() as u64;
                            assert_eq!(buf[..got as usize], bytes(offset..offset + got));
                            if let TryStored::Bytes(got) = resource.try_read_at(offset, &mut buf).unwrap() {
                                assert_eq!(buf[..got], bytes(offset..offset + got as u64));
                            }
                            await_disk(resource);
                        }
                    })
                })
                .collect();
            for round in 0..300_u64 {
                let offset = (round * 7919) % (31 * BLOCK);
                resource.write_at(offset, &bytes(offset..offset + BLOCK)).unwrap();
                let own = offset.next_multiple_of(BLOCK)..offset.next_multiple_of(BLOCK) + BLOCK;
                let mut block = Buffer::from(bytes(own.clone()));
                resource.write_block(own.start, &mut block).unwrap();
                store_in_parts(&resource, own.end..own.end + BLOCK + 10_000, 50_000);
                resource.evict(&[offset.saturating_sub(2 * BLOCK)..offset + 3 * BLOCK]);
            }
            over.store(true, Ordering::Release);
            for reader in readers {
                reader.join().unwrap();
            }
        });
    }
}
