//! Records which bytes of a local file a decoder reads.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

use symphonia::core::io::MediaSource;

use support::link::INITIAL_WINDOW;

/// A jump that is no longer than this leads into what is left of a bisection, and that is fetched as a whole: a quarter of 256 KiB.
const ALL_LEFT: u64 = 64 * 1024;

/// A local file that records which of its bytes are read.
pub(crate) struct Recorder {
    file: File,
    at: u64,
    len: u64,
    reads: Recorded,
}

/// Access to the recorded reads.
#[derive(Clone)]
pub(crate) struct Recorded(Arc<Mutex<Reads>>);

/// Ranges in the order of the reads. A read that begins where the last one ended extends its range.
#[derive(Clone)]
pub(crate) struct Reads {
    /// Bytes in the file.
    len: u64,
    ranges: Vec<Range<u64>>,
}

impl Recorder {
    pub(crate) fn new(path: &Path) -> Self {
        let file = File::open(path).expect("a file that was just made");
        let len = file.metadata().expect("a file's length").len();
        let reads = Recorded(Arc::new(Mutex::new(Reads { len, ranges: Vec::new() })));
        Self { file, at: 0, len, reads }
    }

    pub(crate) fn reads(&self) -> Recorded {
        self.reads.clone()
    }
}

impl Read for Recorder {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let got = self.file.read(buf)?;
        let end = self.at + got as u64;
        self.reads.0.lock().expect("no panic under this lock").add(self.at..end);
        self.at = end;
        Ok(got)
    }
}

impl Seek for Recorder {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }
}

impl MediaSource for Recorder {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        Some(self.len)
    }
}

impl Recorded {
    pub(crate) fn take(&self) -> Reads {
        let mut reads = self.0.lock().expect("no panic under this lock");
        let ranges = std::mem::take(&mut reads.ranges);
        Reads { len: reads.len, ranges }
    }
}

impl Reads {
    fn add(&mut self, range: Range<u64>) {
        match self.ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if range.is_empty() => {}
            _ => self.ranges.push(range),
        }
    }

    /// Bytes in the file.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The ranges in the order of their positions. Adjacent ones are joined.
    fn merged(&self) -> Vec<Range<u64>> {
        let mut sorted = self.ranges.clone();
        sorted.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        merged
    }

    /// Number of different bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.merged().iter().map(|range| range.end - range.start).sum()
    }

    /// Bytes of the longest range.
    pub(crate) fn longest(&self) -> u64 {
        self.merged().iter().map(|range| range.end - range.start).max().unwrap_or(1)
    }

    /// Dependent round trips and flights of a seek that bisects, if each round trip brings a place and both places of the next
    /// jump, and the last one all that is left.
    ///
    /// Each round trip lets the connections' windows grow by the first one. So the flights are those of the first place, over
    /// connections that were idle, or of the last one, whichever are more.
    pub(crate) fn bisection(&self) -> (u32, u32) {
        let mut starts: Vec<u64> = self.ranges.iter().map(|range| range.start).collect();
        // A place that is read on is no jump.
        starts.dedup();
        let jump = |index: usize| starts.get(index + 1).map_or(0, |next| next.abs_diff(starts[index]));
        let (mut trips, mut at) = (1, 0);
        while jump(at) > ALL_LEFT {
            // The next place has come too. The one behind that has not.
            at += 2;
            if at >= starts.len() {
                break;
            }
            trips += 1;
        }
        let bytes = |range: Option<&Range<u64>>| range.map_or(0, |range| range.end - range.start);
        let last = bytes(self.ranges.last()).div_ceil(trips.into());
        (trips - 1, flights(bytes(self.ranges.first())).max(flights(last)))
    }

    /// The ranges without those of `before`.
    pub(crate) fn without(&self, before: &Self) -> Self {
        let mut left = self.ranges.clone();
        for known in before.merged() {
            let cut = |range: Range<u64>| {
                [range.start..range.end.min(known.start), range.start.max(known.end)..range.end]
            };
            left = left.into_iter().flat_map(cut).filter(|range| !range.is_empty()).collect();
        }
        Self { len: self.len, ranges: left }
    }
}

/// Flights after the first one that slow start needs for this number of bytes.
pub(crate) fn flights(bytes: u64) -> u32 {
    bytes.div_ceil(INITIAL_WINDOW).max(1).ilog2()
}

/// Prints each range as its start, counted from the end if that is nearer, and its length.
impl fmt::Display for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let len = range.end - range.start;
            let from_end = self.len - range.start;
            if from_end < range.start && from_end < 1 << 20 {
                write!(f, "{separator}-{from_end}+{len}")?;
            } else {
                write!(f, "{separator}{}+{len}", range.start)?;
            }
        }
        Ok(())
    }
}
