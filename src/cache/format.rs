//! How an entry lies in its file: a page with the header, a table with one slot for each block, and the blocks.
//!
//! ```text
//!   0      magic, version, SHA-256 of the key, length, validators, media type, label, checksum    written once
//!   4064   stamp: when it was validated, how long it is fresh, checksum                           replaced in place
//!   4096   slots of 32 bytes: which part of the block is filled, checksum of that part, checksum of the slot
//!   data   begins at the next multiple of 4096: each byte at its own offset
//! ```
//!
//! All numbers are little-endian. Pure: bytes in, bytes out. Any bytes decode to what was encoded or to nothing. The
//! checksums of stamp and slots are seeded with the [identity](Header::identity) of the representation and the slot's
//! index, so that the remains of another file at the same place are not taken for a part of this one.

use std::ops::Range;

use ring::digest::{SHA256, digest};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::buffer::BUFFER;

/// Bytes in a block, the unit that a checksum covers.
pub(crate) const BLOCK: u64 = BUFFER as u64;

/// Version of the format, which is in the name of its directory.
pub(crate) const VERSION: u32 = 1;

/// Bytes of the header and the stamp.
pub(crate) const PAGE: usize = 4096;

/// Maximum length of a file that is stored. Its slots take 8 MiB, and more in memory while it is open.
pub(crate) const MAX_LEN: u64 = 64 << 30;

/// The first bytes of an entry, which distinguish it from other files.
const MAGIC: [u8; 8] = *b"windwayC";
/// Three fields of 8 bytes and their checksum.
const STAMP: usize = 32;
/// At the end of the page, within one sector of a disk, so that replacing it is seldom torn by a crash.
const STAMP_AT: usize = PAGE - STAMP;
/// Two positions of 4 bytes, the checksum of the block's part, 8 bytes that are not used, and the checksum of the slot itself.
const SLOT: usize = 32;

/// Maximum length of each text in the header. A response with a longer one is not stored. Six texts of this length and the
/// other fields end before the stamp.
const MAX_TEXT: usize = 512;

/// SHA-256 of a key.
pub(crate) type KeyDigest = [u8; 32];

/// True if a file that begins with `page` was written by some version of windway, or was about to be.
pub(crate) fn is_ours(page: &[u8]) -> bool {
    // After a crash a file may be empty or contain zeros, because its length reached the disk before its bytes.
    page.starts_with(&MAGIC) || page.iter().all(|byte| *byte == 0)
}

pub(crate) fn key_digest(key: &str) -> KeyDigest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    bytes
}

/// What identifies a stored representation, and the fields of its response head. Never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) key: KeyDigest,
    /// Bytes in the whole file.
    pub(crate) len: u64,
    /// When the first byte was stored, in seconds since 1970.
    pub(crate) stored_at: u64,
    /// The server has answered ranges. If not, missing bytes come with all others only.
    pub(crate) has_ranges: bool,
    /// Header fields as the server wrote them. Empty if it sent none.
    pub(crate) etag: String,
    pub(crate) last_modified: String,
    /// The `Date` of the first response, which makes a `Last-Modified` strong or weak.
    pub(crate) date: String,
    pub(crate) media_type: String,
    /// The application's.
    pub(crate) label: String,
    /// Digest that names a resource among those of one key, such as a segment of HLS. Empty if the key has only one.
    pub(crate) part: String,
}

/// Until when an entry may be used without asking the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// When a response confirmed the entry last, in seconds since 1970.
    pub(crate) validated_at: u64,
    /// Seconds after `validated_at` for which it is fresh (RFC 9111, section 4.2).
    pub(crate) fresh_for: u64,
    /// It must not be used without asking, not even while the origin can't be reached.
    pub(crate) must_revalidate: bool,
}

/// Which part of a block is filled, and the checksum of exactly that part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) sum: u64,
}

impl Header {
    /// The header's part of the page. `None` if a text is too long or the length is out of bounds.
    pub(crate) fn encode(&self) -> Option<[u8; PAGE]> {
        let texts = self.texts();
        // Of an empty file nothing can be missing, so an entry would save no request.
        if texts.iter().any(|text| text.len() > MAX_TEXT) || self.len == 0 || self.len > MAX_LEN {
            return None;
        }
        let mut fields = Vec::with_capacity(256);
        fields.extend_from_slice(&MAGIC);
        fields.extend_from_slice(&VERSION.to_le_bytes());
        fields.extend_from_slice(&u32::from(self.has_ranges).to_le_bytes());
        fields.extend_from_slice(&self.key);
        fields.extend_from_slice(&self.len.to_le_bytes());
        fields.extend_from_slice(&self.stored_at.to_le_bytes());
        for text in texts {
            fields.extend_from_slice(&(text.len() as u16).to_le_bytes());
            fields.extend_from_slice(text.as_bytes());
        }
        let sum = xxh3_64(&fields);
        fields.extend_from_slice(&sum.to_le_bytes());
        let mut page = [0; PAGE];
        page[..fields.len()].copy_from_slice(&fields);
        Some(page)
    }

    /// What `page` holds. `None` if that is not, or not wholly, a header of this version.
    pub(crate) fn decode(page: &[u8]) -> Option<Self> {
        let mut fields = Fields { page, at: 0 };
        if fields.take(8)? != MAGIC || fields.u32()? != VERSION {
            return None;
        }
        let has_ranges = match fields.u32()? {
            0 => false,
            1 => true,
            _ => return None,
        };
        let key = fields.take(32)?.try_into().ok()?;
        let (len, stored_at) = (fields.u64()?, fields.u64()?);
        let mut text = || fields.text();
        let (etag, last_modified, date) = (text()?, text()?, text()?);
        let (media_type, label, part) = (text()?, text()?, text()?);
        let end = fields.at;
        let is_whole = fields.u64()? == xxh3_64(&page[..end]);
        // The sum is no signature: another program may have written a length whose slots would take gigabytes of memory.
        let is_valid = is_whole && len > 0 && len <= MAX_LEN;
        is_valid.then_some(Self {
            key,
            len,
            stored_at,
            has_ranges,
            etag,
            last_modified,
            date,
            media_type,
            label,
            part,
        })
    }

    fn texts(&self) -> [&str; 6] {
        [&self.etag, &self.last_modified, &self.date, &self.media_type, &self.label, &self.part]
    }

    /// Names the representation: a hash of the length and of what the server calls this version. Of two entries of one key
    /// with the same identity all bytes are equal. A server that breaks that promise breaks it for every HTTP cache.
    pub(crate) fn identity(&self) -> u64 {
        let validator = self.validator();
        let mut fields = Vec::with_capacity(64 + validator.len());
        fields.extend_from_slice(&self.key);
        fields.extend_from_slice(&self.len.to_le_bytes());
        // A date that reads like a tag names another version.
        fields.push(u8::from(self.etag.is_empty()));
        fields.extend_from_slice(validator.as_bytes());
        let version = xxh3_64(&fields);
        if self.part.is_empty() {
            return version;
        }
        // The first half names the part, so that its entries are found by their names.
        u64::from(part_name(&self.part)) << 32 | xxh3_64_with_seed(self.part.as_bytes(), version) >> 32
    }

    fn validator(&self) -> &str {
        // The date beside a tag changes when a file is copied to another server, and its bytes do not.
        if self.etag.is_empty() { &self.last_modified } else { &self.etag }
    }

    /// True if both are of one representation.
    pub(crate) fn is_same_representation(&self, other: &Self) -> bool {
        let fields = |header: &Self| (header.key, header.len, header.etag.is_empty());
        // Equal names of files are not enough for parts, whose hash is short.
        fields(self) == fields(other) && self.part == other.part && self.validator() == other.validator()
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.len.div_ceil(BLOCK)
    }

    /// Where block 0 begins, if slots and blocks are in one file.
    pub(crate) fn data_start(&self) -> u64 {
        slot_at(self.blocks()).next_multiple_of(PAGE as u64)
    }

    /// Bytes in the block of this index: fewer in the last one.
    pub(crate) fn block_len(&self, index: u64) -> u32 {
        self.len.saturating_sub(index * BLOCK).min(BLOCK) as u32
    }

    /// The name of the entry's file, in the directory that its first two characters name.
    pub(crate) fn file_name(&self) -> String {
        format!("{}-{:016x}", key_name(&self.key), self.identity())
    }
}

/// The part of a file's name that its key decides.
pub(crate) fn key_name(key: &KeyDigest) -> String {
    // Half of the digest keeps names short. The header has all of it, and is compared when an entry is opened.
    key[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first half of the identity of a part.
fn part_name(part: &str) -> u32 {
    xxh3_64(part.as_bytes()) as u32
}

/// What the names of all entries of a part begin with.
pub(crate) fn part_prefix(key: &KeyDigest, part: &str) -> String {
    format!("{}-{:08x}", key_name(key), part_name(part))
}

/// Where the slot of a block lies.
pub(crate) fn slot_at(index: u64) -> u64 {
    PAGE as u64 + index * SLOT as u64
}

/// The checksum of bytes of the block of this index.
pub(crate) fn block_seed(identity: u64, index: u64) -> u64 {
    // Any mixture does: a slot of another file or block must not fit here.
    identity ^ index.wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Slot {
    pub(crate) fn encode(&self, seed: u64) -> [u8; SLOT] {
        let mut bytes = [0; SLOT];
        bytes[..4].copy_from_slice(&self.from.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.to.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sum.to_le_bytes());
        let sum = xxh3_64_with_seed(&bytes[..24], seed);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The slot of a block of `len` bytes. `None` if the block is empty, or if anything is wrong with the slot.
    pub(crate) fn decode(bytes: &[u8], seed: u64, len: u32) -> Option<Self> {
        let mut fields = Fields { page: bytes, at: 0 };
        let slot = Self { from: fields.u32()?, to: fields.u32()?, sum: fields.u64()? };
        let reserved = fields.u64()?;
        let is_whole = fields.u64()? == xxh3_64_with_seed(&bytes[..24], seed);
        (is_whole && reserved == 0 && slot.from < slot.to && slot.to <= len).then_some(slot)
    }

    pub(crate) fn len(&self) -> u32 {
        self.to - self.from
    }

    pub(crate) fn range(&self) -> Range<u32> {
        self.from..self.to
    }

    pub(crate) fn covers(&self, wanted: &Range<u32>) -> bool {
        self.from <= wanted.start && wanted.end <= self.to
    }
}

/// The valid slots in a table that was read from [`slot_at`]`(0)` on, by the block's index. The table may be too short.
pub(crate) fn decode_slots(table: &[u8], header: &Header) -> Vec<(u64, Slot)> {
    let identity = header.identity();
    let slots = table.chunks_exact(SLOT).zip(0..header.blocks());
    slots
        // Holes are common: most of a sparse table.
        .filter(|(bytes, _)| bytes.iter().any(|byte| *byte != 0))
        .filter_map(|(bytes, index)| {
            let slot = Slot::decode(bytes, block_seed(identity, index), header.block_len(index))?;
            Some((index, slot))
        })
        .collect()
}

impl Stamp {
    /// Its offset in the file.
    pub(crate) const AT: u64 = STAMP_AT as u64;

    pub(crate) fn encode(&self, identity: u64) -> [u8; STAMP] {
        let mut bytes = [0; STAMP];
        bytes[..8].copy_from_slice(&self.validated_at.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.fresh_for.to_le_bytes());
        bytes[16] = u8::from(self.must_revalidate);
        let sum = xxh3_64_with_seed(&bytes[..24], identity);
        bytes[24..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The stamp in a page. One that is not valid, because it was torn, means that nothing is known: not fresh since 1970,
    /// and not to be used without asking.
    pub(crate) fn decode(page: &[u8], identity: u64) -> Self {
        let unknown = Self { must_revalidate: true, ..Self::default() };
        Self::try_decode(page, identity).unwrap_or(unknown)
    }

    fn try_decode(page: &[u8], identity: u64) -> Option<Self> {
        let bytes = page.get(STAMP_AT..PAGE)?;
        let mut fields = Fields { page: bytes, at: 0 };
        let (validated_at, fresh_for, flags) = (fields.u64()?, fields.u64()?, fields.u64()?);
        let is_whole = fields.u64()? == xxh3_64_with_seed(&bytes[..24], identity);
        (is_whole && flags <= 1).then_some(Self { validated_at, fresh_for, must_revalidate: flags == 1 })
    }
}

/// Takes fields from the front of some bytes.
struct Fields<'a> {
    page: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let bytes = self.page.get(self.at..self.at.checked_add(len)?)?;
        self.at += len;
        Some(bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<String> {
        let len = u16::from_le_bytes(self.take(2)?.try_into().ok()?);
        if usize::from(len) > MAX_TEXT {
            return None;
        }
        String::from_utf8(self.take(usize::from(len))?.to_vec()).ok()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in crate::cache) fn header(len: u64) -> Header {
        Header {
            key: key_digest("https://host/a.flac"),
            len,
            stored_at: 1_700_000_000,
            has_ranges: true,
            etag: "\"v1\"".into(),
            last_modified: String::new(),
            date: String::new(),
            media_type: "audio/flac".into(),
            label: String::new(),
            part: String::new(),
        }
    }

    #[test]
    fn the_texts_that_fit_are_those_that_leave_room_for_the_stamp() {
        let long = || "x".repeat(MAX_TEXT);
        let full = Header {
            etag: long(),
            last_modified: long(),
            date: long(),
            media_type: long(),
            label: long(),
            part: long(),
            ..header(1)
        };
        let page = full.encode().unwrap();
        assert!(page[STAMP_AT..].iter().all(|byte| *byte == 0));
        assert_eq!(Header::decode(&page), Some(full));
        assert!(Header { label: "x".repeat(MAX_TEXT + 1), ..header(1) }.encode().is_none());
        assert!(header(0).encode().is_none() && header(MAX_LEN + 1).encode().is_none());
    }

    #[test]
    fn an_entry_is_named_by_its_key_and_what_the_server_calls_this_version() {
        let one = header(1000);
        assert_eq!(one.file_name().len(), 49);
        assert!(one.file_name().starts_with(&key_name(&one.key)));
        for other in [
            Header { etag: "\"v2\"".into(), ..one.clone() },
            Header { len: 1001, ..one.clone() },
            // A date that reads like the tag.
            Header { etag: String::new(), last_modified: one.etag.clone(), ..one.clone() },
        ] {
            assert_ne!(other.file_name(), one.file_name());
        }
        let parts = ["a", "b"].map(|part| Header { part: part.into(), ..one.clone() });
        assert_ne!(parts[0].file_name(), parts[1].file_name());
        let newer = Header { etag: "\"v2\"".into(), ..parts[0].clone() };
        assert_ne!(newer.file_name(), parts[0].file_name());
        for version in [&newer, &parts[0]] {
            assert!(version.file_name().starts_with(&part_prefix(&one.key, "a")));
        }
        let later = Header { stored_at: 1, label: "x".into(), date: "now".into(), ..one.clone() };
        assert_eq!(later.file_name(), one.file_name());
    }

    #[test]
    fn a_slot_fits_its_own_file_and_block_only() {
        let (len, slot) = (BLOCK as u32, Slot { from: 0, to: 100, sum: 7 });
        let seed = block_seed(header(1 << 30).identity(), 3);
        assert_eq!(Slot::decode(&slot.encode(seed), seed, len), Some(slot));
        assert_eq!(Slot::decode(&slot.encode(seed), seed, 99), None);
        for other in [block_seed(header(1 << 30).identity(), 4), block_seed(header(1 << 29).identity(), 3)] {
            assert_eq!(Slot::decode(&slot.encode(seed), other, len), None);
        }
        let empty = Slot { from: 5, to: 5, sum: 0 };
        assert_eq!(Slot::decode(&empty.encode(seed), seed, len), None);
        assert_eq!(Slot::decode(&[0; SLOT], 0, len), None);
    }

    fn headers() -> impl Strategy<Value = Header> {
        let text = || "[ -~]{0,80}";
        (
            any::<[u8; 32]>(),
            1..=MAX_LEN,
            any::<u64>(),
            any::<bool>(),
            (text(), text(), text(), text(), text(), text()),
        )
            .prop_map(|(key, len, stored_at, has_ranges, texts)| {
                let (etag, last_modified, date, media_type, label, part) = texts;
                Header { key, len, stored_at, has_ranges, etag, last_modified, date, media_type, label, part }
            })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(header in headers(), at in any::<u64>(), fresh in any::<u64>(), must in any::<bool>()) {
            let mut page = header.encode().unwrap();
            let stamp = Stamp { validated_at: at, fresh_for: fresh, must_revalidate: must };
            page[STAMP_AT..].copy_from_slice(&stamp.encode(header.identity()));
            prop_assert_eq!(Stamp::decode(&page, header.identity()), stamp);
            prop_assert_eq!(Header::decode(&page), Some(header));
        }

        /// A header, a stamp or a slot of which any byte was changed or lost is none.
        #[test]
        fn what_was_damaged_is_nothing(header in headers(), at in any::<prop::sample::Index>(), change in 1..=u8::MAX) {
            let page = header.encode().unwrap();
            let used = page.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            let mut damaged = page;
            damaged[at.index(used)] ^= change;
            prop_assert_eq!(Header::decode(&damaged), None);
            prop_assert_eq!(Header::decode(&page[..at.index(used)]), None);
            let slot = Slot { from: 1, to: 2, sum: 3 };
            let mut bytes = slot.encode(9);
            bytes[at.index(SLOT)] ^= change;
            prop_assert_eq!(Slot::decode(&bytes, 9, 10), None);
            let mut stamp = [0; PAGE];
            stamp[STAMP_AT..].copy_from_slice(&Stamp::default().encode(9));
            stamp[STAMP_AT + at.index(STAMP)] ^= change;
            prop_assert_eq!(Stamp::try_decode(&stamp, 9), None);
        }

        #[test]
        fn any_bytes_decode_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..2 * PAGE),
            // So that more than the magic is looked at.
            is_begun in any::<bool>(),
        ) {
            let mut bytes = bytes;
            if is_begun && bytes.len() > 16 {
                bytes[..8].copy_from_slice(&MAGIC);
                bytes[8..16].copy_from_slice(&[1, 0, 0, 0, 1, 0, 0, 0]);
            }
            Header::decode(&bytes);
            Stamp::decode(&bytes, 1);
            decode_slots(&bytes, &header(1 << 20));
        }
    }
}
