//! A file that is fetched whole into a file of the application's, also if no reader needs it.

use std::sync::Arc;

use super::backing::Backing;
use super::cached::Cached;
use super::http_file::HttpFile;
use super::reader_id::ReaderId;
use super::shared::Shared;
use crate::cache::PartFile;
use crate::client::Request;
use crate::config::FileConfig;
use crate::downloader::Downloader;
use crate::error::{Error, ErrorKind};
use crate::types::Priority;

/// Bytes that are read at once when a whole file is checked or copied.
const CHUNK: usize = 256 * 1024;

impl HttpFile {
    /// Fetches what `request` names into `part` in the background.
    pub(crate) fn download(
        downloader: &Downloader,
        request: Request,
        config: FileConfig,
        part: Arc<PartFile>,
    ) -> Result<(Arc<Self>, ReaderId), Error> {
        let mut shared = Shared::new(request, config)?;
        shared.backing = Some(Backing::Part(part));
        Self::begin(downloader, shared)
    }
}

impl Shared {
    /// Blocks until all of the file is stored. Returns its length.
    ///
    /// # Errors
    ///
    /// What fetching has ended with. Transient errors do not end it.
    pub(crate) fn await_whole(&self) -> Result<u64, Error> {
        let ended = self.resource.wait(None, |view| {
            let state = self.state.lock();
            if let Some(len) = state.len().filter(|len| view.ranges.run_from(0) >= *len) {
                return Some(Ok(len));
            }
            if let Some(reason) = self.cancel_reason() {
                return Some(Err(Error::cancelled(reason)));
            }
            // A retryable error does not end a download: it is retried until `give_up`.
            let halted = state.waits.halted().filter(|error| !error.is_retryable());
            state.waits.ended().or(halted).cloned().map(Err)
        });
        // Without a deadline there is an answer.
        let ended = ended.unwrap_or_else(|| Err(Error::new(ErrorKind::TimedOut, "the download timed out")));
        ended.map_err(|error| error.with_url(self.url()))
    }

    /// Passes all of the file to `each`, in order. False if a part of it was lost on the disk: it is fetched again.
    pub(crate) fn read_whole(
        &self,
        len: u64,
        mut each: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let (mut offset, mut buf) = (0, vec![0; CHUNK]);
        while offset < len {
            let got = self.resource.read_at(offset, &mut buf)?;
            if got == 0 {
                self.replan(Priority::Low);
                return Ok(false);
            }
            each(&buf[..got])?;
            offset += got as u64;
        }
        Ok(true)
    }

    /// Waits until all stored bytes are in their files. True if they are in the one that the application has named, false if
    /// in a temporary file, because the response gave no length.
    pub(crate) fn flush(&self) -> Result<bool, Error> {
        let flushed = self.resource.flush();
        let state = self.state.lock();
        // A write to the named file has failed.
        if let Some(error) = state.waits.ended() {
            return Err(error.clone());
        }
        flushed.map(|()| matches!(state.cached, Cached::Confirmed(_)))
    }
}
