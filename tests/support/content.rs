//! Bodies in which each byte is computed from its offset.

use std::io::Read;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// The bytes of a file.
#[derive(Clone, Debug)]
pub struct Content(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// The pattern up to this length. Takes no memory.
    Pattern(u64),
    Bytes(Arc<[u8]>),
    /// These bytes, repeated forever.
    Loop(Arc<[u8]>),
    /// The first bytes, this number of zeros, the last bytes.
    Padded(Arc<[u8]>, u64, Arc<[u8]>),
    Icy(Arc<Icy>),
}

/// The body of a station: audio, and a metadata block after each interval, most of them empty.
#[derive(Debug)]
struct Icy {
    audio: Content,
    /// Bytes of audio between two blocks.
    interval: u64,
    /// One block in this many, from the first one on, contains the next title.
    every: u64,
    /// Sent in turn. All of the same length, so that each byte can be computed from its offset.
    blocks: Vec<Vec<u8>>,
}

/// A body that never ends within a test.
const ENDLESS: u64 = 1 << 60;

/// Bytes after which the pattern begins again: a prime, so that no block or piece size hides a misplaced byte.
const PERIOD: u64 = 1_048_583;

impl Content {
    pub fn pattern(len: u64) -> Self {
        Self(Kind::Pattern(len))
    }

    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Kind::Bytes(bytes.into()))
    }

    /// `front`, then `zeros` bytes of 0 that take no memory, then `back`.
    pub fn padded(front: impl Into<Arc<[u8]>>, zeros: u64, back: impl Into<Arc<[u8]>>) -> Self {
        Self(Kind::Padded(front.into(), zeros, back.into()))
    }

    /// The pattern without an end.
    pub fn endless() -> Self {
        Self::pattern(ENDLESS)
    }

    /// These bytes, repeated forever.
    pub fn looped(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Kind::Loop(bytes.into()))
    }

    /// Endless audio with a metadata block after each `interval` bytes of it. The first block and every `every`th after
    /// it contain the next title, in turn. The others are empty.
    pub fn icy(audio: &Self, interval: u64, every: u64, titles: &[&str]) -> Self {
        let text = |title: &&str| format!("StreamTitle='{title}';StreamUrl='';").into_bytes();
        let mut blocks: Vec<Vec<u8>> = titles.iter().map(text).collect();
        let len = blocks.iter().map(Vec::len).max().unwrap_or(0).next_multiple_of(16);
        blocks.iter_mut().for_each(|block| block.resize(len, 0));
        Self(Kind::Icy(Arc::new(Icy { audio: audio.clone(), interval, every, blocks })))
    }

    pub fn len(&self) -> u64 {
        match &self.0 {
            Kind::Pattern(len) => *len,
            Kind::Bytes(bytes) => bytes.len() as u64,
            Kind::Padded(front, zeros, back) => front.len() as u64 + zeros + back.len() as u64,
            Kind::Loop(_) | Kind::Icy(_) => ENDLESS,
        }
    }

    /// A strong entity tag.
    pub fn etag(&self) -> String {
        format!("\"v1-{}\"", self.len())
    }

    pub fn append(&self, out: &mut Vec<u8>, part: Range<u64>) {
        match &self.0 {
            Kind::Bytes(bytes) => out.extend_from_slice(&bytes[part.start as usize..part.end as usize]),
            Kind::Loop(bytes) => {
                let mut at = part.start;
                while at < part.end {
                    let from = (at % bytes.len() as u64) as usize;
                    let take = (part.end - at).min((bytes.len() - from) as u64) as usize;
                    out.extend_from_slice(&bytes[from..from + take]);
                    at += take as u64;
                }
            }
            Kind::Padded(front, zeros, back) => {
                let (front_end, back_start) = (front.len() as u64, front.len() as u64 + zeros);
                let clip = |from: u64, to: u64| part.start.clamp(from, to)..part.end.clamp(from, to);
                let (first, middle) = (clip(0, front_end), clip(front_end, back_start));
                let last = clip(back_start, self.len());
                out.extend_from_slice(&front[first.start as usize..first.end as usize]);
                out.resize(out.len() + (middle.end - middle.start) as usize, 0);
                let last = last.start - back_start..last.end - back_start;
                out.extend_from_slice(&back[last.start as usize..last.end as usize]);
            }
            Kind::Icy(icy) => {
                let mut at = part.start;
                while at < part.end {
                    at += icy.append_some(out, at..part.end);
                }
            }
            Kind::Pattern(_) => {
                let mut at = part.start;
                while at < part.end {
                    let from = (at % PERIOD) as usize;
                    let take = (part.end - at).min(PERIOD - from as u64) as usize;
                    out.extend_from_slice(&period()[from..from + take]);
                    at += take as u64;
                }
            }
        }
    }
}

impl Icy {
    /// Appends the bytes from the front of `part` up to the next audio or block. Returns their number.
    fn append_some(&self, out: &mut Vec<u8>, part: Range<u64>) -> u64 {
        let len = part.end - part.start;
        let block_len = self.blocks.first().map_or(0, Vec::len) as u64;
        // A round is the intervals of one title. Only the block after the first interval is not empty.
        let round_len = self.every * (self.interval + 1) + block_len;
        let (round, within) = (part.start / round_len, part.start % round_len);
        let first_len = self.interval + 1 + block_len;
        let (interval, within) = match within.checked_sub(first_len) {
            None => (0, within),
            Some(rest) => (1 + rest / (self.interval + 1), rest % (self.interval + 1)),
        };
        if within < self.interval {
            let take = len.min(self.interval - within);
            let from = (round * self.every + interval) * self.interval + within;
            self.audio.append(out, from..from + take);
            return take;
        }
        if within == self.interval {
            out.push(if interval == 0 { (block_len / 16) as u8 } else { 0 });
            return 1;
        }
        let block = &self.blocks[(round % self.blocks.len() as u64) as usize];
        let from = (within - self.interval - 1) as usize;
        let take = len.min((block.len() - from) as u64);
        out.extend_from_slice(&block[from..from + take as usize]);
        take
    }
}

/// The pattern's byte at `offset`.
fn byte_at(offset: u64) -> u8 {
    period()[(offset % PERIOD) as usize]
}

/// Reads to the end. Panics unless that was the pattern, `len` bytes of it.
#[track_caller]
pub fn assert_whole(reader: &mut impl Read, len: u64) {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("a body without an error");
    assert_eq!(bytes.len() as u64, len);
    assert_pattern(0, &bytes);
}

/// Panics at the first byte that differs from the pattern.
pub fn assert_pattern(offset: u64, bytes: &[u8]) {
    let mut expected = Vec::with_capacity(bytes.len());
    Content::endless().append(&mut expected, offset..offset + bytes.len() as u64);
    if bytes == expected {
        return;
    }
    let wrong = bytes.iter().enumerate().find(|(index, byte)| **byte != byte_at(offset + *index as u64));
    if let Some((index, byte)) = wrong {
        let at = offset + index as u64;
        panic!("byte {at} is {byte}, not {}; read from {offset}", byte_at(at));
    }
}

fn period() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        // splitmix64 (Steele, Lea, Flood, 2014), one byte of each number.
        (0..PERIOD)
            .map(|index| {
                let mut z = index.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                (z >> 56) as u8
            })
            .collect()
    })
}

/// Reads to the end. Returns the number of bytes. Panics if a byte is not the pattern's.
pub fn read_all(stream: &mut windway::Stream) -> Result<u64, windway::Error> {
    let (mut buf, mut offset) = (vec![0; 50_000], 0);
    loop {
        let got = stream.read(&mut buf).map_err(windway::Error::from)?;
        if got == 0 {
            return Ok(offset);
        }
        assert_pattern(offset, &buf[..got]);
        offset += got as u64;
    }
}
