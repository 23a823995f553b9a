use std::any::Any;
use std::io::Read;
use std::thread;
use std::time::{Duration, Instant};

use stream_download::storage::temp::TempStorageProvider;
use stream_download::{Settings, StreamDownload};
use tokio::runtime::Runtime;

use super::{ReadSeek, Subject};
use crate::Failure;

type Stream = StreamDownload<TempStorageProvider>;

/// As in its README: a temporary file, and the default settings.
pub(super) struct Streams(Runtime);

impl Streams {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self(tokio::runtime::Builder::new_multi_thread().enable_all().build()?))
    }

    fn start(&self, url: &str) -> Result<Stream, Failure> {
        let opening = StreamDownload::new_http(url.parse()?, TempStorageProvider::new(), Settings::default());
        self.0.block_on(opening).map_err(|error| error.to_string().into())
    }
}

impl ReadSeek for Stream {
    fn byte_len(&self) -> Option<u64> {
        self.content_length()
    }
}

impl Subject for Streams {
    fn get(&mut self, url: &str) -> Result<usize, Failure> {
        Ok(self.start(url)?.read_to_end(&mut Vec::new())?)
    }

    fn open(&mut self, url: &str) -> Result<Box<dyn ReadSeek>, Failure> {
        Ok(Box::new(self.start(url)?))
    }

    /// It downloads without a reader.
    fn background(&mut self, url: &str, count: usize) -> Result<Box<dyn Any>, Failure> {
        let streams: Result<Vec<_>, _> = (0..count).map(|_| self.start(url)).collect();
        Ok(Box::new(streams?))
    }

    fn cancel(&mut self, url: &str) -> Result<Duration, Failure> {
        let mut stream = self.start(url)?;
        let token = stream.cancellation_token();
        let reader = thread::spawn(move || {
            let mut buf = [0; 4096];
            while stream.read(&mut buf).is_ok_and(|got| got > 0) {}
            Instant::now()
        });
        thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        token.cancel();
        let ended = reader.join().map_err(|_| "the reader panicked")?;
        Ok(ended.duration_since(began))
    }
}
