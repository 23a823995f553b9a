//! What one writes around a client without seeks.

use std::io::{self, Read, Seek, SeekFrom};

use super::ReadSeek;

/// Requests a URL from a position on, and returns the body.
type Request<B> = Box<dyn Fn(u64) -> io::Result<B> + Send>;

/// A seek is a new request from the position on. The rest of the old body is dropped, and with it its connection.
pub(super) struct Ranged<B> {
    request: Request<B>,
    position: u64,
    len: u64,
    body: Option<B>,
}

impl<B> Ranged<B> {
    /// Begins with `body`, that of the whole file.
    pub(super) fn new(body: B, len: u64, request: impl Fn(u64) -> io::Result<B> + Send + 'static) -> Self {
        Self { request: Box::new(request), position: 0, len, body: Some(body) }
    }
}

impl<B: Read> Read for Ranged<B> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let body = match &mut self.body {
            Some(body) => body,
            None => self.body.insert((self.request)(self.position)?),
        };
        let got = body.read(buf)?;
        self.position += got as u64;
        Ok(got)
    }
}

impl<B> Seek for Ranged<B> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(to) => to,
            SeekFrom::Current(by) => self.position.saturating_add_signed(by),
            SeekFrom::End(by) => self.len.saturating_add_signed(by),
        };
        self.body = None;
        Ok(self.position)
    }
}

impl<B: Read + Send> ReadSeek for Ranged<B> {
    fn byte_len(&self) -> Option<u64> {
        Some(self.len)
    }
}
