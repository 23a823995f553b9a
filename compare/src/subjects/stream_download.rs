use std::any::Any;
use std::io::{self, Read};
use std::time::Duration;

use stream_download::storage::temp::TempStorageProvider;
use stream_download::{Settings, StreamDownload};
use tokio::runtime::Runtime;

use super::{ReadSeek, Subject, on_threads, time_cancel};
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

    fn background(&mut self, url: &str, count: usize, at_once: usize) -> Result<Box<dyn Any>, Failure> {
        if count == at_once {
            // It downloads without a reader. Not one after the other: opening waits for the response head.
            let opening = (0..count).map(|_| {
                let settings = Settings::default();
                Ok(self.0.spawn(StreamDownload::new_http(url.parse()?, TempStorageProvider::new(), settings)))
            });
            return Ok(Box::new(opening.collect::<Result<Vec<_>, Failure>>()?));
        }
        // A reader shows when one has ended.
        let (runtime, url) = (self.0.handle().clone(), url.to_owned());
        on_threads(count, at_once, move || {
            let Ok(url) = url.parse() else { return };
            let opening = StreamDownload::new_http(url, TempStorageProvider::new(), Settings::default());
            // An error is that of the end of the process.
            let _ = runtime.block_on(opening).map(|mut stream| io::copy(&mut stream, &mut io::sink()));
        });
        Ok(Box::new(()))
    }

    fn cancel(&mut self, url: &str) -> Result<Duration, Failure> {
        let stream = self.start(url)?;
        let token = stream.cancellation_token();
        time_cancel(stream, || token.cancel())
    }
}
