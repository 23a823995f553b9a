//! One reader of a file, as a source: what a [`Stream`](crate::Stream) over HTTP reads from.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::http_file::HttpFile;
use super::reader_id::ReaderId;
use super::shared::Shared;
use crate::cancel::CancelGuard;
use crate::client::ResponseHead;
use crate::config::ReadAhead;
use crate::error::Error;
use crate::event::Subscriber;
use crate::media::MediaInfo;
use crate::phase::Phase;
use crate::safe_url::SafeUrl;
use crate::source::{Source, StreamStats, TryRead};
use crate::types::Priority;

/// One reader of a file. The readers of a file share its stored bytes and its fetches.
#[derive(Debug)]
pub(crate) struct FileReader {
    shared: Arc<Shared>,
    id: ReaderId,
    /// Keeps the file's transfers running. `None` once the reader was closed.
    file: Mutex<Option<Arc<HttpFile>>>,
}

impl FileReader {
    pub(crate) fn new((file, id): (Arc<HttpFile>, ReaderId)) -> Self {
        let shared = Arc::clone(file.shared());
        Self { shared, id, file: Mutex::new(Some(file)) }
    }

    /// Waits for the opening of a file that was opened in the background, as urgently as [`HttpFile::open`] does. From then on
    /// it has `priority`.
    #[cfg(feature = "queue")]
    pub(crate) fn finish_opening(&self, priority: Priority) -> Result<(), Error> {
        Error::check_may_block("open")?;
        self.set_priority(priority);
        self.shared.finish_opening(self.id)
    }

    /// True if all bytes of the file are stored.
    #[cfg(feature = "queue")]
    pub(crate) fn is_whole(&self) -> bool {
        self.is_stored_to(self.len())
    }

    /// True if all bytes before `end` are stored. False if it is `None`.
    #[cfg(feature = "queue")]
    pub(crate) fn is_stored_to(&self, end: Option<u64>) -> bool {
        let has_all =
            |end: u64| self.buffered().first().is_some_and(|range| range.start == 0 && end <= range.end);
        end.is_some_and(has_all)
    }

    /// Another reader of the file. `None` once this one was closed.
    pub(crate) fn again(&self) -> Option<Self> {
        let file = self.file()?;
        let id = file.shared().add_reader();
        Some(Self::new((file, id)))
    }

    fn file(&self) -> Option<Arc<HttpFile>> {
        self.file.lock().clone()
    }
}

impl Source for FileReader {
    fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, Error> {
        self.shared.read(self.id, position, buf)
    }

    fn len(&self) -> Option<u64> {
        self.shared.len()
    }

    fn try_read_at(&self, position: u64, buf: &mut [u8]) -> Result<TryRead, Error> {
        self.shared.try_read(self.id, position, buf)
    }

    fn wait_len(&self) -> Result<u64, Error> {
        self.shared.await_len(self.id)
    }

    fn is_seekable(&self) -> bool {
        self.shared.is_ranged()
    }

    fn url(&self) -> Option<SafeUrl> {
        Some(self.shared.url())
    }

    fn phase(&self) -> Phase {
        self.shared.phase()
    }

    fn last_error(&self) -> Option<Error> {
        self.shared.last_error()
    }

    fn report_failure(&self, position: u64, error: &Error) {
        self.shared.report(error.clone(), position);
    }

    fn buffered(&self) -> Vec<Range<u64>> {
        self.shared.buffered()
    }

    fn is_buffered(&self, position: u64) -> bool {
        self.shared.is_stored(position)
    }

    fn wait_buffered(&self, range: Range<u64>, timeout: Option<Duration>) -> Result<(), Error> {
        self.shared.wait_buffered(self.id, range.start, range.end.saturating_sub(range.start), timeout)
    }

    fn interrupt(&self) {
        self.shared.interrupt(self.id);
    }

    fn resume(&self) {
        self.shared.resume(self.id);
    }

    fn cancel(&self) {
        self.shared.cancel();
    }

    fn on_cancel(&self, hook: Box<dyn FnOnce() + Send>) -> Option<CancelGuard> {
        self.shared.on_cancel(hook)
    }

    fn stats(&self) -> StreamStats {
        self.shared.stats()
    }

    fn media_info(&self) -> MediaInfo {
        self.shared.media_info()
    }

    fn response_head(&self) -> Option<ResponseHead> {
        self.shared.response_head()
    }

    fn bandwidth(&self) -> Option<f64> {
        self.shared.bandwidth()
    }

    fn set_priority(&self, priority: Priority) {
        if let Some(file) = self.file() {
            file.peer().set_priority(priority);
            self.shared.state.lock().priority = priority;
        }
    }

    fn set_read_ahead(&self, read_ahead: ReadAhead) -> Result<(), Error> {
        self.shared.set_read_ahead(read_ahead)
    }

    fn subscribe(&self) -> Option<Subscriber> {
        Some(self.file()?.peer().subscribe())
    }

    fn reader(&self) -> Option<Arc<dyn Source>> {
        Some(Arc::new(self.again()?))
    }

    /// Ends the file's transfers if this was its last reader.
    fn close(&self) {
        let file = self.file.lock().take();
        // Not under the lock: the file's drop joins a thread.
        drop(file);
    }
}

impl Drop for FileReader {
    fn drop(&mut self) {
        // Not in `close`: a handle may still be in a call that names the reader.
        self.shared.remove_reader(self.id);
    }
}
