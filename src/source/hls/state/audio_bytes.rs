//! The bytes of a section: appended at one end, read from the middle on. What was read is kept until it is dropped, for a seek back.

use std::collections::VecDeque;

/// Bytes are collected in chunks of about this size.
const CHUNK: usize = 32 * 1024;

/// Bytes that are addressed by their offset from the first one that was ever appended.
#[derive(Debug, Default)]
pub(super) struct AudioBytes {
    chunks: VecDeque<Vec<u8>>,
    /// The chunk that contains the next byte to read, and the place of that byte in it. The end of a chunk is also the start of the
    /// next one.
    next: (usize, usize),
    /// Offset of the first byte that is stored.
    start: u64,
    /// Offset of the next byte to read: between `start` and `written`.
    read: u64,
    /// Offset of the next byte to be appended.
    written: u64,
}

impl AudioBytes {
    /// Offset of the first byte that is stored.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// Offset of the next byte to read.
    pub(super) fn position(&self) -> u64 {
        self.read
    }

    /// Offset of the next byte to be appended.
    pub(super) fn end(&self) -> u64 {
        self.written
    }

    /// Number of bytes that were not read yet.
    pub(super) fn unread(&self) -> usize {
        (self.written - self.read) as usize
    }

    /// Number of bytes that were read and can be dropped: those of whole chunks.
    pub(super) fn kept(&self) -> usize {
        (self.read - self.start) as usize - self.next.1
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        match self.chunks.back_mut().filter(|chunk| chunk.len() + bytes.len() <= CHUNK) {
            Some(chunk) => chunk.extend_from_slice(bytes),
            None => {
                let mut chunk = Vec::with_capacity(CHUNK.max(bytes.len()));
                chunk.extend_from_slice(bytes);
                self.chunks.push_back(chunk);
            }
        }
    }

    /// Counts bytes as appended and read, and stores none.
    pub(super) fn skip(&mut self, len: usize) {
        self.written += len as u64;
        self.clear();
    }

    /// Drops all bytes. What was not read counts as read.
    pub(super) fn clear(&mut self) {
        (self.chunks, self.next) = (VecDeque::new(), (0, 0));
        (self.start, self.read) = (self.written, self.written);
    }

    /// Notes that nothing more is appended, so that the last chunk can be dropped once it was read.
    pub(super) fn close(&mut self) {
        if self.unread() == 0 {
            self.next = (self.chunks.len(), 0);
        }
    }

    /// Copies bytes that were not read yet. 0 if there are none.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while done < buf.len() {
            let (index, place) = self.next;
            let Some(chunk) = self.chunks.get(index) else { break };
            let rest = &chunk[place..];
            if rest.is_empty() {
                // The last chunk may still grow.
                if index + 1 == self.chunks.len() {
                    break;
                }
                self.next = (index + 1, 0);
                continue;
            }
            let len = rest.len().min(buf.len() - done);
            buf[done..done + len].copy_from_slice(&rest[..len]);
            done += len;
            self.next.1 += len;
        }
        self.read += done as u64;
        done
    }

    /// Reads on from `offset`, which must be stored, or be the end.
    pub(super) fn seek(&mut self, offset: u64) {
        self.read = offset;
        let mut left = (offset - self.start) as usize;
        self.next = (0, 0);
        for chunk in &self.chunks {
            self.next.1 = left;
            if left < chunk.len() {
                return;
            }
            left -= chunk.len();
            self.next = (self.next.0 + 1, 0);
        }
        // The end of the last chunk, which may still grow.
        if let Some(chunk) = self.chunks.back() {
            self.next = (self.chunks.len() - 1, chunk.len());
        }
    }

    /// Bytes that were not read yet, in runs.
    pub(super) fn unread_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let (index, place) = self.next;
        let place_in = move |at: usize| if at == index { place } else { 0 };
        let chunks = self.chunks.iter_mut().enumerate().skip(index);
        chunks.map(move |(at, chunk)| &mut chunk[place_in(at)..])
    }

    /// Drops chunks that were read, as far as they lie before `offset`.
    pub(super) fn forget_before(&mut self, offset: u64) {
        while self.chunks.front().is_some_and(|chunk| self.start + chunk.len() as u64 <= offset) {
            if !self.forget_chunk() {
                return;
            }
        }
    }

    /// Drops chunks that were read, the oldest first, until at most so many bytes of them are left.
    pub(super) fn limit_kept(&mut self, most: usize) {
        while self.kept() > most && self.forget_chunk() {}
    }

    /// Drops the first chunk. False if it was not read to its end.
    fn forget_chunk(&mut self) -> bool {
        if self.next.0 == 0 {
            return false;
        }
        self.next.0 -= 1;
        self.start += self.chunks.pop_front().map_or(0, |chunk| chunk.len() as u64);
        true
    }

    /// Drops the bytes from `offset` on, which were not read yet.
    pub(super) fn truncate(&mut self, offset: u64) {
        while let Some(chunk) = self.chunks.back_mut().filter(|_| self.written > offset) {
            let start = self.written - chunk.len() as u64;
            chunk.truncate(offset.saturating_sub(start) as usize);
            self.written = start.max(offset);
            if start >= offset {
                self.chunks.pop_back();
            }
        }
        // Its chunk may be gone.
        self.seek(self.read);
    }

    /// Puts `bytes` in the place of those from one offset to another, which were not read yet.
    pub(super) fn replace(&mut self, (from, to): (u64, u64), bytes: &[u8]) {
        let mut position = self.start;
        let mut chunks = VecDeque::new();
        // Chunks are moved, and only the two at the ends are copied.
        while let Some(chunk) = self.chunks.pop_front() {
            let end = position + chunk.len() as u64;
            if end > from {
                chunks.push_back(chunk[..(from - position) as usize].to_vec());
                self.chunks.push_front(chunk);
                break;
            }
            position = end;
            chunks.push_back(chunk);
        }
        chunks.push_back(bytes.to_vec());
        while let Some(mut chunk) = self.chunks.pop_front() {
            let end = position + chunk.len() as u64;
            if end > to {
                chunk.drain(..to.saturating_sub(position) as usize);
                chunks.push_back(chunk);
                break;
            }
            position = end;
        }
        chunks.append(&mut self.chunks);
        chunks.retain(|chunk| !chunk.is_empty());
        self.chunks = chunks;
        self.written = self.written - (to - from) + bytes.len() as u64;
        // Its chunk may be another one now.
        self.seek(self.read);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Read(usize),
        /// To this share of what is stored.
        Seek(f64),
        /// This share of what was not read, with so many bytes.
        Replace(f64, f64, usize),
        ForgetBefore(f64),
        LimitKept(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0_usize..20_000).prop_map(Step::Push),
            3 => (0_usize..20_000).prop_map(Step::Read),
            2 => (0.0..=1.0).prop_map(Step::Seek),
            1 => (0.0..=1.0, 0.0..=1.0, 0_usize..20_000).prop_map(|(from, to, len)| Step::Replace(from, to, len)),
            1 => (0.0..=1.0).prop_map(Step::ForgetBefore),
            1 => (0_usize..100_000).prop_map(Step::LimitKept),
        ]
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written_wherever_reading_goes_on(
            steps in proptest::collection::vec(step(), 0..40),
        ) {
            let mut bytes = AudioBytes::default();
            // All that was ever written, and the offset of the next byte to read.
            let (mut all, mut read) = (Vec::new(), 0);
            let mut fresh = 0_u8;
            let mut make = |len: usize| {
                fresh = fresh.wrapping_add(1);
                vec![fresh; len]
            };
            for step in steps {
                let within = |from: u64, to: u64, share: f64| from + ((to - from) as f64 * share) as u64;
                match step {
                    Step::Push(len) => {
                        let new = make(len);
                        bytes.push(&new);
                        all.extend(new);
                    }
                    Step::Read(len) => {
                        let mut buf = vec![0; len];
                        let got = bytes.read(&mut buf);
                        prop_assert_eq!(got, len.min(all.len() - read), "all that is there");
                        prop_assert!(buf[..got] == all[read..read + got]);
                        read += got;
                    }
                    Step::Seek(share) => {
                        let to = within(bytes.start(), bytes.end(), share);
                        bytes.seek(to);
                        read = to as usize;
                    }
                    Step::Replace(from, to, len) => {
                        let from = within(read as u64, all.len() as u64, from);
                        let to = within(from, all.len() as u64, to);
                        let new = make(len);
                        bytes.replace((from, to), &new);
                        all.splice(from as usize..to as usize, new);
                    }
                    Step::ForgetBefore(share) => {
                        let offset = within(bytes.start(), bytes.end(), share);
                        bytes.forget_before(offset);
                        prop_assert!(bytes.start() <= offset);
                    }
                    Step::LimitKept(most) => {
                        bytes.limit_kept(most);
                        prop_assert!(bytes.kept() <= most);
                    }
                }
                prop_assert!(bytes.start() <= read as u64, "what was not read stays");
                prop_assert_eq!((bytes.position(), bytes.end()), (read as u64, all.len() as u64));
                let stored: usize = bytes.chunks.iter().map(Vec::len).sum();
                prop_assert_eq!(stored as u64, bytes.end() - bytes.start());
                let unread: Vec<&mut [u8]> = bytes.unread_mut().collect();
                prop_assert!(unread.concat() == all[read..]);
            }
        }
    }
}
