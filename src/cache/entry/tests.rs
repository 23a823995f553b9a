//! An entry over files that lose, reorder and tear writes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::cache::format::tests::header;

fn byte_at(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// The bytes of all entries here, computed once: without optimisation that takes longer than all else in these tests.
static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| (0..4 * BLOCK).map(byte_at).collect());

fn bytes(range: Range<u64>) -> &'static [u8] {
    &BYTES[range.start as usize..range.end as usize]
}

/// A file on a device that loses what was not synced: after a crash each sector that was written since may be the old one, the
/// new one or anything between, whatever the order of the writes.
#[derive(Debug, Default)]
struct Faulty(Mutex<Image>);

#[derive(Debug, Default)]
struct Image {
    now: Vec<u8>,
    /// What a crash may go back to, by sector.
    lasting: BTreeMap<usize, Vec<u8>>,
    /// Writes fail.
    is_full: bool,
}

const SECTOR: usize = 512;

impl FileLayer for Faulty {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().now.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let image = self.0.lock();
        let from = image.now.get(at as usize..).unwrap_or_default();
        // No more than some pages at once, as a file system may do.
        let len = from.len().min(buf.len()).min(100_000);
        buf[..len].copy_from_slice(&from[..len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<usize> {
        let mut image = self.0.lock();
        if image.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let (at, len) = (at as usize, bytes.len().min(70_000));
        // To whole sectors, also where a crash has cut the file off within one.
        let end = (at + len).next_multiple_of(SECTOR);
        if image.now.len() < end {
            image.now.resize(end, 0);
        }
        for sector in at / SECTOR..(at + len).div_ceil(SECTOR) {
            let old = image.now[sector * SECTOR..][..SECTOR].to_vec();
            image.lasting.entry(sector).or_insert(old);
        }
        image.now[at..at + len].copy_from_slice(&bytes[..len]);
        Ok(len)
    }
}

impl Faulty {
    /// What is left after a crash.
    fn crash(&self, mut random: impl FnMut() -> u64) -> Arc<Self> {
        let Image { now, lasting, .. } = &*self.0.lock();
        let mut left = now.clone();
        for (sector, old) in lasting {
            let torn_at = match random() % 4 {
                0 => SECTOR,
                1 => random() as usize % SECTOR,
                _ => 0,
            };
            left[sector * SECTOR..][..torn_at].copy_from_slice(&old[..torn_at]);
        }
        if random() % 8 == 0 {
            left.truncate(random() as usize % (left.len() + 1));
        }
        let image = Image { now: left, ..Image::default() };
        Arc::new(Self(Mutex::new(image)))
    }

    fn flip(&self, at: u64) {
        let mut image = self.0.lock();
        let at = at as usize % image.now.len();
        image.now[at] ^= 1 << (at % 8);
    }
}

fn files(file: &Arc<Faulty>, header: &Header) -> Files {
    let layer: Arc<dyn FileLayer> = Arc::clone(file) as _;
    Files { meta: Arc::clone(&layer), data: layer, data_start: header.data_start() }
}

fn create(len: u64) -> (Arc<Faulty>, EntryFile) {
    let file = Arc::new(Faulty::default());
    let entry = EntryFile::create(files(&file, &header(len)), header(len), Stamp::default()).unwrap();
    (file, entry)
}

fn reopen(file: &Arc<Faulty>, len: u64) -> EntryFile {
    EntryFile::open(files(file, &header(len))).unwrap()
}

fn write(entry: &EntryFile, range: Range<u64>) {
    assert_eq!(range.start / BLOCK, (range.end - 1) / BLOCK);
    entry.write(range.start / BLOCK, range.start % BLOCK, bytes(range)).unwrap();
}

fn read(entry: &EntryFile, range: Range<u64>) -> bool {
    let mut buf = vec![0; (range.end - range.start) as usize];
    let is_there = entry.read(range.start / BLOCK, range.start % BLOCK, &mut buf);
    assert!(!is_there || buf == bytes(range), "wrong bytes");
    is_there
}

#[test]
fn what_was_written_is_there_in_another_process() {
    let len = 2 * BLOCK + 1000;
    let (file, entry) = create(len);
    for range in [0..BLOCK, 2 * BLOCK..len, BLOCK + 10..BLOCK + 20, BLOCK + 20..BLOCK + 500] {
        write(&entry, range);
    }
    for entry in [entry, reopen(&file, len)] {
        assert_eq!(entry.stored(), [0..BLOCK, BLOCK + 10..BLOCK + 500, 2 * BLOCK..len]);
        assert!(read(&entry, 0..BLOCK) && read(&entry, 2 * BLOCK + 7..len));
        assert!(read(&entry, BLOCK + 10..BLOCK + 500) && read(&entry, BLOCK + 100..BLOCK + 101));
        assert!(!read(&entry, BLOCK..BLOCK + 11) && !read(&entry, BLOCK + 499..BLOCK + 501));
    }
}

#[test]
fn the_longest_part_of_a_block_is_the_one_that_lasts() {
    let (file, entry) = create(BLOCK);
    write(&entry, 1000..2000);
    write(&entry, 5000..5500);
    assert!(read(&entry, 5000..5500));
    assert_eq!(reopen(&file, BLOCK).stored(), [1000..2000]);
    write(&entry, 5500..7000);
    assert_eq!(reopen(&file, BLOCK).stored(), [5000..7000]);
    // The new bytes join both.
    write(&entry, 1500..5000);
    let entry = reopen(&file, BLOCK);
    assert_eq!(entry.stored(), [1000..7000]);
    assert!(read(&entry, 1000..7000));
    // After a restart, and before anything was read.
    let entry = reopen(&file, BLOCK);
    write(&entry, 7000..8000);
    write(&entry, 0..1000);
    let entry = reopen(&file, BLOCK);
    assert_eq!(entry.stored(), [0..8000]);
    assert!(read(&entry, 0..8000));
}

#[test]
fn a_changed_bit_is_a_miss_of_its_block_and_the_block_can_be_written_again() {
    let (file, entry) = create(2 * BLOCK);
    write(&entry, 0..BLOCK);
    write(&entry, BLOCK..2 * BLOCK);
    file.flip(header(2 * BLOCK).data_start() + 77);
    for is_read_first in [true, false] {
        let entry = reopen(&file, 2 * BLOCK);
        assert!(!is_read_first || !read(&entry, 100..110));
        assert!(read(&entry, BLOCK..2 * BLOCK));
        write(&entry, 100..200);
        assert_eq!(entry.stored(), [100..200, BLOCK..2 * BLOCK]);
        assert!(read(&entry, 100..200) && !read(&entry, 99..101));
    }
}

#[test]
fn a_full_disk_ends_writing_and_leaves_what_is_stored() {
    let (file, entry) = create(2 * BLOCK);
    write(&entry, 0..1000);
    file.0.lock().is_full = true;
    assert!(entry.write(0, 1000, bytes(1000..2000)).is_err());
    file.0.lock().is_full = false;
    assert!(entry.is_read_only() && entry.write(1, 0, &[0; 10]).is_err());
    assert!(read(&entry, 0..1000) && !read(&entry, 0..2000));
    assert!(read(&reopen(&file, 2 * BLOCK), 0..1000));
}

#[test]
fn a_file_that_another_program_truncates_is_abandoned_before_a_write_fills_the_hole() {
    let len = 2 * BLOCK;
    for is_read_first in [false, true] {
        let (file, entry) = create(len);
        write(&entry, 0..BLOCK);
        let other = reopen(&file, len);
        assert!(read(&other, 0..1000) && !entry.is_cut());
        file.0.lock().now.truncate(5000);
        assert!(reopen(&file, len).is_cut());
        if is_read_first {
            assert!(!read(&entry, 0..BLOCK) && entry.is_abandoned());
        }
        // It would be a file with zeros where the first block was.
        assert!(entry.write(1, 0, bytes(BLOCK..len)).is_err() && entry.is_abandoned());
        assert!(other.write(1, 0, bytes(BLOCK..len)).is_err() && !read(&other, 0..1000));
        assert!(entry.stored().is_empty() && other.stored().is_empty());
    }
    let (file, _) = create(len);
    file.0.lock().now.truncate(PAGE);
    assert!(reopen(&file, len).is_cut());
}

#[test]
fn bytes_behind_the_end_are_refused() {
    let (_, entry) = create(BLOCK + 10);
    assert!(entry.write(1, 5, &[0; 6]).is_err());
    assert!(!entry.read(1, 0, &mut [0; 11]) && !entry.read(2, 0, &mut [0]));
}

#[test]
fn a_growing_block_is_hashed_once() {
    let (file, entry) = create(BLOCK);
    for from in (0..BLOCK).step_by(1000) {
        write(&entry, from..BLOCK.min(from + 1000));
        // No byte of the file was read for it.
        assert!(entry.blocks[0].lock().growing.is_some() || from + 1000 >= BLOCK);
    }
    assert!(read(&reopen(&file, BLOCK), 0..BLOCK));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64),
    Read(u64, u64),
    /// Opens the entry again, as another process does, and leaves this one open.
    Open,
    Crash(u64),
    Flip(u64),
}

const LEN: u64 = 3 * BLOCK + 12_345;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || (0..LEN, 1..BLOCK);
    let step = prop_oneof![
        6 => some().prop_map(|(at, len)| Step::Write(at, len)),
        4 => some().prop_map(|(at, len)| Step::Read(at, len)),
        1 => Just(Step::Open),
        1 => any::<u64>().prop_map(Step::Crash),
        1 => any::<u64>().prop_map(Step::Flip),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Within one block.
fn clip(at: u64, len: u64) -> Range<u64> {
    at..(at + len).min((at / BLOCK + 1) * BLOCK).min(LEN)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Whatever a crash leaves: a byte that is served is the byte that was stored. `read` looks at that.
    #[test]
    fn a_byte_served_is_the_byte_stored_or_it_is_a_miss(steps in steps()) {
        let (mut file, entry) = create(LEN);
        // A flipped bit is found at the first touch only, so each step asks an entry that has not touched anything, too.
        let (mut open, mut is_flipped) = (vec![entry], false);
        for step in steps {
            match step {
                Step::Write(at, len) => {
                    let which = (at % open.len() as u64) as usize;
                    write(&open[which], clip(at, len));
                }
                Step::Read(at, len) if is_flipped => {
                    read(&reopen(&file, LEN), clip(at, len));
                }
                Step::Read(at, len) => {
                    for entry in &open {
                        read(entry, clip(at, len));
                    }
                }
                Step::Open => open.push(reopen(&file, LEN)),
                Step::Crash(seed) => {
                    let mut state = seed | 1;
                    file = file.crash(|| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                        state >> 33
                    });
                    match EntryFile::open(files(&file, &header(LEN))) {
                        Some(entry) => open = vec![entry],
                        None => {
                            let new = create(LEN);
                            (file, open) = (new.0, vec![new.1]);
                        }
                    }
                    is_flipped = false;
                }
                Step::Flip(at) => {
                    // The header itself is the other test's.
                    let blocks = file.0.lock().now.len() as u64;
                    if blocks > PAGE as u64 {
                        file.flip(PAGE as u64 + at % (blocks - PAGE as u64));
                        open.truncate(1);
                        open[0] = reopen(&file, LEN);
                        is_flipped = true;
                    }
                }
            }
        }
        let entry = reopen(&file, LEN);
        for range in entry.stored() {
            read(&entry, clip(range.start, range.end - range.start));
        }
    }
}
