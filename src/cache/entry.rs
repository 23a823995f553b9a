//! One entry while it is open: which of its bytes may be served, and how they are read and written.
//!
//! A block is checked when it is first read or written: the filled part is read whole and held against its slot's checksum.
//! From then on the entry trusts it until it is closed. Bytes that this entry wrote itself are trusted from the start.
//! Whoever else has the file open writes equal bytes to equal offsets, so it can make a part unknown, but never wrong.
//!
//! Another program may truncate the file. A later write would make it long again, with zeros in place of bytes that are trusted. So
//! each write looks at the length first, and a file that has become shorter, or whose trusted bytes can't be read, is abandoned:
//! nothing of it is served or written any more.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::format::{BLOCK, Header, PAGE, Slot, Stamp, block_seed, decode_slots, slot_at};
use super::layer::{FileLayer, read_full, write_full};
use crate::buffer::Buffer;

/// The files of an entry. For the cache both are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    /// Header, stamp and slots.
    pub(crate) meta: Arc<dyn FileLayer>,
    /// The blocks.
    pub(crate) data: Arc<dyn FileLayer>,
    /// Where block 0 begins in `data`.
    pub(crate) data_start: u64,
}

/// An open entry. Shared by all streams of the process that read or write it.
#[derive(Debug)]
pub(crate) struct EntryFile {
    files: Files,
    header: Header,
    identity: u64,
    stamp: Mutex<Stamp>,
    blocks: Box<[Mutex<Block>]>,
    /// A write has failed: nothing more is written.
    is_read_only: AtomicBool,
    /// Trusted bytes were lost. Then it is read-only, too, and all blocks are empty.
    is_abandoned: AtomicBool,
    /// The length that `files.data` has at least, unless it was truncated: that at the opening, or after the furthest write.
    known_len: AtomicU64,
    /// Counts writes, so that its streams see that there is more.
    writes: AtomicU64,
}

/// What is known of a block.
#[derive(Debug, Default)]
struct Block {
    /// The slot in the file, as far as this entry knows: what it read when it was opened, or wrote since.
    slot: Option<Slot>,
    /// The bytes of `slot` have been held against its checksum, or come from this entry. Then they are in one of `parts`.
    is_checked: bool,
    /// The parts that may be read, each with its checksum. They neither overlap nor touch.
    parts: Vec<Slot>,
    growing: Option<Growing>,
}

/// The state after hashing a part that grows at its end, so that no byte is hashed twice.
struct Growing {
    from: u32,
    to: u32,
    hasher: Box<Xxh3>,
}

impl fmt::Debug for Growing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Growing({}..{})", self.from, self.to)
    }
}

impl EntryFile {
    /// Opens what `files` holds. `None` if it is no valid entry.
    pub(crate) fn open(files: Files) -> Option<Self> {
        let mut page = [0; PAGE];
        let got = read_full(&*files.meta, &mut page, 0).ok()?;
        let header = Header::decode(&page[..got])?;
        let mut table = vec![0; (slot_at(header.blocks()) - slot_at(0)) as usize];
        // An unreadable table counts as an empty one: its blocks are fetched again, which is better than an error.
        let got = read_full(&*files.meta, &mut table, slot_at(0)).unwrap_or(0);
        let stamp = Stamp::decode(&page, header.identity());
        let slots = decode_slots(&table[..got], &header);
        let known_len = files.data.len().ok()?;
        Some(Self::new(files, header, stamp, slots, known_len))
    }

    /// Writes the header of a new entry into empty files.
    pub(crate) fn create(files: Files, header: Header, stamp: Stamp) -> io::Result<Self> {
        let Some(mut page) = header.encode() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let encoded = stamp.encode(header.identity());
        page[PAGE - encoded.len()..].copy_from_slice(&encoded);
        write_full(&*files.meta, &page, 0)?;
        let known_len = files.data.len()?;
        Ok(Self::new(files, header, stamp, Vec::new(), known_len))
    }

    fn new(files: Files, header: Header, stamp: Stamp, slots: Vec<(u64, Slot)>, known_len: u64) -> Self {
        let mut blocks: Box<[Mutex<Block>]> = (0..header.blocks()).map(|_| Mutex::default()).collect();
        for (index, slot) in slots {
            blocks[index as usize].get_mut().slot = Some(slot);
        }
        let identity = header.identity();
        let stamp = Mutex::new(stamp);
        Self {
            files,
            header,
            identity,
            stamp,
            blocks,
            is_read_only: AtomicBool::new(false),
            is_abandoned: AtomicBool::new(false),
            known_len: AtomicU64::new(known_len),
            writes: AtomicU64::new(0),
        }
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn stamp(&self) -> Stamp {
        *self.stamp.lock()
    }

    /// Notes that a response confirmed the entry.
    pub(crate) fn set_stamp(&self, stamp: Stamp) {
        let mut known = self.stamp.lock();
        *known = stamp;
        if !self.is_read_only() {
            // One that is lost makes the entry look older, so it is validated once more.
            let _ = write_full(&*self.files.meta, &stamp.encode(self.identity), Stamp::AT);
        }
    }

    /// Number of writes so far.
    pub(crate) fn writes(&self) -> u64 {
        self.writes.load(Ordering::Acquire)
    }

    /// True once a write has failed.
    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only.load(Ordering::Acquire)
    }

    /// Stops all writing. What is stored stays readable.
    pub(crate) fn make_read_only(&self) {
        self.is_read_only.store(true, Ordering::Release);
    }

    /// True if the file has lost bytes that were trusted. It is of no use any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.is_abandoned.load(Ordering::Acquire)
    }

    /// True if the file ends within the slots, or before bytes that one of them describes: another program has truncated it, or a
    /// crash.
    pub(crate) fn is_cut(&self) -> bool {
        let end = self.known_len.load(Ordering::Relaxed);
        if end < self.files.data_start {
            return true;
        }
        let is_behind = |(index, block): (u64, &Mutex<Block>)| {
            let slot = block.lock().slot;
            slot.is_some_and(|slot| self.data_at(index, slot.to) > end)
        };
        (0..).zip(&self.blocks).any(is_behind)
    }

    /// Serves and writes nothing any more. No block may be locked by this thread.
    fn abandon(&self) {
        self.make_read_only();
        for block in &self.blocks {
            *block.lock() = Block::default();
        }
        if !self.is_abandoned.swap(true, Ordering::AcqRel) {
            log::warn!(
                "a file of the cache has lost bytes while it was open: another program has changed it"
            );
        }
    }

    /// The bytes that the entry may have: each that is not checked yet may turn out to be lost.
    pub(crate) fn stored(&self) -> Vec<Range<u64>> {
        let mut stored = Vec::new();
        for (index, block) in (0..).zip(&self.blocks) {
            let block = block.lock();
            let start = index * BLOCK;
            let within = |part: &Range<u32>| start + u64::from(part.start)..start + u64::from(part.end);
            if block.is_checked || block.slot.is_none() {
                stored.extend(block.parts.iter().map(|part| within(&part.range())));
            } else if let Some(slot) = block.slot {
                stored.push(within(&slot.range()));
            }
        }
        stored
    }

    /// Fills `buf` with bytes of a block, from `within` on. False if one of them is not stored, or not what was stored.
    pub(crate) fn read(&self, index: u64, within: u64, buf: &mut [u8]) -> bool {
        let Some(block) = self.blocks.get(index as usize) else { return false };
        let Ok(from) = u32::try_from(within) else { return false };
        let wanted = from..from.saturating_add(buf.len() as u32);
        {
            let mut block = block.lock();
            if !block.is_checked && block.slot.is_some() {
                let Some(filled) = self.check(index, &mut block) else { return false };
                let Some(slot) = block.slot.filter(|slot| slot.covers(&wanted)) else { return false };
                // Copied from the bytes that were checked: read again, they could be others.
                let at = (wanted.start - slot.from) as usize;
                buf.copy_from_slice(&filled[at..at + buf.len()]);
                return true;
            }
            if !block.has(&wanted) {
                return false;
            }
        }
        // Without the lock: stored bytes never change.
        let is_read = self.read_data(index, wanted.start, buf);
        if !is_read {
            // If they stayed trusted, they would be missed and fetched again and again, and never written.
            self.abandon();
        }
        is_read
    }

    /// Stores bytes of a block: first the bytes, then the slot with their checksum.
    ///
    /// # Errors
    ///
    /// Those of the file. Then nothing more is written, and what was stored before is still there.
    pub(crate) fn write(&self, index: u64, within: u64, bytes: &[u8]) -> io::Result<()> {
        let written = self.try_write(index, within, bytes);
        if written.is_err() {
            self.make_read_only();
        }
        written
    }

    fn try_write(&self, index: u64, within: u64, bytes: &[u8]) -> io::Result<()> {
        let is_inside = within + bytes.len() as u64 <= u64::from(self.header.block_len(index));
        let Some(block) = self.blocks.get(index as usize).filter(|_| is_inside && !self.is_read_only())
        else {
            return Err(io::ErrorKind::Other.into());
        };
        // First: another thread may write behind the end meanwhile.
        let known_len = self.known_len.load(Ordering::Acquire);
        if self.files.data.len()? < known_len {
            self.abandon();
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another program has truncated the file"));
        }
        let range = within as u32..within as u32 + bytes.len() as u32;
        let mut block = block.lock();
        if !block.is_checked && block.slot.is_some() {
            // The checksum in the new slot covers what is there already, so that has to be checked first.
            // If it fails the block counts as empty, and these bytes begin a new part.
            self.check(index, &mut block);
        }
        // A slot without bytes is not valid. And stored bytes are never written again: readers copy them without the lock.
        if bytes.is_empty() || block.has(&range) {
            return Ok(());
        }
        write_full(&*self.files.data, bytes, self.data_at(index, range.start))?;
        // Only now: whoever sees it finds a file that is as long.
        self.known_len.fetch_max(self.data_at(index, range.end), Ordering::Release);
        self.add(index, &mut block, &range, bytes);
        // While the block is locked: a stream that sees the new number waits for the lock, and then finds the bytes.
        self.writes.fetch_add(1, Ordering::Release);
        // A block has one slot, with the checksum of one part. The shorter parts are lost when the entry is closed; readers
        // mostly read in sequence, so there is mostly one.
        let longest = block.parts.iter().max_by_key(|part| part.len()).copied();
        if let Some(slot) = longest.filter(|_| longest != block.slot) {
            write_full(&*self.files.meta, &slot.encode(block_seed(self.identity, index)), slot_at(index))?;
            (block.slot, block.is_checked) = (Some(slot), true);
        }
        Ok(())
    }

    /// Holds the filled part of a block against its slot, and returns it. If they disagree the block is empty.
    fn check(&self, index: u64, block: &mut Block) -> Option<Filled> {
        let slot = block.slot?;
        let filled =
            self.read_part(index, &slot.range()).filter(|filled| self.is_right(index, &slot, filled));
        // A slot that is wrong is forgotten, or each further read would read and hash the block again.
        *block = Block::default();
        if filled.is_some() {
            *block = Block { slot: Some(slot), is_checked: true, parts: vec![slot], growing: None };
        }
        filled
    }

    fn is_right(&self, index: u64, part: &Slot, bytes: &[u8]) -> bool {
        xxh3_64_with_seed(bytes, block_seed(self.identity, index)) == part.sum
    }

    /// Adds bytes that were just written, and joins them with the parts that they touch.
    fn add(&self, index: u64, block: &mut Block, range: &Range<u32>, bytes: &[u8]) {
        let seed = block_seed(self.identity, index);
        let touching = block.touching(range);
        let growing = block.growing.take();
        if let ([part], Some(growing)) = (&touching[..], growing) {
            let is_its = part.from == growing.from && part.to == growing.to;
            if is_its && part.from <= range.start && part.to < range.end {
                let Growing { mut hasher, .. } = growing;
                // The bytes before it overlap the part: they are equal to those that were hashed already.
                hasher.update(&bytes[(part.to - range.start) as usize..]);
                return self.replace(index, block, &touching, part.from..range.end, hasher);
            }
        }
        if touching.is_empty() && range.len() as u32 == self.header.block_len(index) {
            // A whole block never grows, so no state of a hasher is kept, which takes more than 500 bytes.
            let sum = xxh3_64_with_seed(bytes, seed);
            block.parts.push(Slot { from: range.start, to: range.end, sum });
            return;
        }
        if touching.is_empty() {
            let mut hasher = Box::new(Xxh3::with_seed(seed));
            hasher.update(bytes);
            return self.replace(index, block, &touching, range.clone(), hasher);
        }
        self.join(index, block, &touching, range, bytes);
    }

    /// Joins bytes that were just written with the parts that they touch.
    fn join(&self, index: u64, block: &mut Block, touching: &[Slot], range: &Range<u32>, bytes: &[u8]) {
        let joined =
            touching.iter().fold(range.clone(), |all, part| all.start.min(part.from)..all.end.max(part.to));
        // The checksum of the joined part can't be computed from those of its parts, so its bytes are hashed again.
        let filled = self.read_part(index, &joined);
        // Bytes that do not agree with the old checksum must not get into the new one.
        let is_right = |part: &Slot| {
            filled.as_ref().is_some_and(|filled| {
                let at = (part.from - joined.start) as usize;
                self.is_right(index, part, &filled[at..at + part.len() as usize])
            })
        };
        let lost: Vec<Slot> = touching.iter().filter(|part| !is_right(part)).copied().collect();
        match filled {
            Some(mut filled) if lost.is_empty() => {
                let at = (range.start - joined.start) as usize;
                filled.buffer[at..at + bytes.len()].copy_from_slice(bytes);
                let mut hasher = Box::new(Xxh3::with_seed(block_seed(self.identity, index)));
                hasher.update(&filled);
                self.replace(index, block, touching, joined, hasher);
            }
            _ => {
                block.parts.retain(|part| !lost.contains(part));
                // Ends, because fewer parts touch the range now.
                self.add(index, block, range, bytes);
            }
        }
    }

    /// Puts the part that `hasher` has seen in the place of those that are in it.
    fn replace(&self, index: u64, block: &mut Block, old: &[Slot], new: Range<u32>, hasher: Box<Xxh3>) {
        block.parts.retain(|part| !old.contains(part));
        block.parts.push(Slot { from: new.start, to: new.end, sum: hasher.digest() });
        // Only a part that may still grow at its end needs the state of its hash.
        let is_whole = new.end == self.header.block_len(index);
        block.growing = (!is_whole).then_some(Growing { from: new.start, to: new.end, hasher });
    }

    fn read_part(&self, index: u64, part: &Range<u32>) -> Option<Filled> {
        let mut filled = Filled { buffer: Buffer::new(), len: (part.end - part.start) as usize };
        let is_read = self.read_data(index, part.start, &mut filled.buffer[..filled.len]);
        is_read.then_some(filled)
    }

    /// Where a byte of a block lies in its file.
    fn data_at(&self, index: u64, within: u32) -> u64 {
        self.files.data_start + index * BLOCK + u64::from(within)
    }

    /// An error of the file is a miss as well: the bytes come from the network instead.
    fn read_data(&self, index: u64, within: u32, buf: &mut [u8]) -> bool {
        read_full(&*self.files.data, buf, self.data_at(index, within)).is_ok_and(|got| got == buf.len())
    }
}

/// A part of a block, read for a check.
#[derive(Debug)]
struct Filled {
    buffer: Buffer,
    len: usize,
}

impl std::ops::Deref for Filled {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Block {
    fn has(&self, wanted: &Range<u32>) -> bool {
        self.parts.iter().any(|part| part.covers(wanted))
    }

    fn touching(&self, range: &Range<u32>) -> Vec<Slot> {
        // Neighbours count as touching: a block has one slot, which describes one part.
        let touches = |part: &&Slot| part.from <= range.end && range.start <= part.to;
        self.parts.iter().filter(touches).copied().collect()
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "lists of ranges, some of one")]
mod tests;
