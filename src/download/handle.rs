//! The handle of a download, for other threads.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::config::Progress;
use super::outcome::Outcome;
use super::run::Running;
use super::stored::discard;
use crate::cancel::CancelReason;
use crate::error::Error;
use crate::watch::{Look, Watch};

/// Observes and controls a [`Download`](super::Download) from other threads. Cheap to clone. No call blocks, but for
/// [`wait`](Self::wait), [`discard`](Self::discard) and the iterator of [`watch`](Self::watch).
///
/// It does not keep the download running. After the download has ended or was dropped, the handle still returns its last
/// progress and how it ended, and discards what is left of it; other calls do nothing.
///
/// ```no_run
/// use std::time::Duration;
/// use windway::Downloader;
/// use windway::download::DownloadConfig;
///
/// let url = "https://example.com/episode.mp3";
/// let download = Downloader::global()?.download(url, "/home/me/episode.mp3", DownloadConfig::new())?;
/// let handle = download.handle(); // for the "cancel" button
/// let watch = handle.watch(Duration::from_millis(200));
/// std::thread::spawn(move || {
///     for progress in watch {
///         println!("{:?}, {} of {:?} bytes", progress.phase, progress.stored, progress.len);
///     }
/// });
/// handle.cancel();
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct DownloadHandle {
    running: Weak<Running>,
    outcome: Arc<Outcome>,
}

impl DownloadHandle {
    pub(super) fn new(running: &Arc<Running>) -> Self {
        Self { running: Arc::downgrade(running), outcome: Arc::clone(running.outcome()) }
    }

    /// How far the download has come.
    pub fn progress(&self) -> Progress {
        // The thread of a download keeps it until the outcome is recorded.
        self.running.upgrade().map_or_else(|| self.outcome.last(), |running| running.progress())
    }

    /// Returns the progress now, and again after each `every`. The last one is that of a download that has ended, or was dropped:
    /// it comes at once. The iterator blocks the thread that uses it, which must not be one that runs a callback of windway; no other
    /// thread wakes for it. With an `every` of zero it does not block.
    pub fn watch(&self, every: Duration) -> Watch<Progress> {
        let handle = self.clone();
        let look = move || {
            let progress = handle.progress();
            Look { is_last: progress.phase.is_over(), progress }
        };
        Watch::new(look, every, &self.outcome.ending, None)
    }

    /// As [`Download::pause`](super::Download::pause).
    pub fn pause(&self) {
        self.with_running(|running| running.set_paused(true));
    }

    /// As [`Download::resume`](super::Download::resume).
    pub fn resume(&self) {
        self.with_running(|running| running.set_paused(false));
    }

    /// As [`Download::cancel`](super::Download::cancel).
    pub fn cancel(&self) {
        self.with_running(|running| running.cancel());
    }

    /// As [`Download::wait`](super::Download::wait). The drop of the download ends the wait, with
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    ///
    /// # Errors
    ///
    /// Those of [`Download::wait`](super::Download::wait).
    pub fn wait(&self) -> Result<u64, Error> {
        if let Some(running) = self.running.upgrade() {
            return running.wait();
        }
        Error::check_may_block("waiting for a download")?;
        // The thread of a download keeps it until the outcome is recorded.
        self.outcome.end().unwrap_or_else(|| Err(Error::cancelled(CancelReason::Peer)))
    }

    /// As [`Download::discard`](super::Download::discard), also while another thread is blocked in
    /// [`Download::wait`](super::Download::wait), which fails with [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled) then.
    /// Blocks until the download has ended and its files are removed. If the download was dropped before, what it has left is
    /// removed.
    ///
    /// ```no_run
    /// use windway::Downloader;
    /// use windway::download::DownloadConfig;
    ///
    /// let url = "https://example.com/episode.mp3";
    /// let download = Downloader::global()?.download(url, "/home/me/episode.mp3", DownloadConfig::new())?;
    /// let handle = download.handle();
    /// std::thread::spawn(move || download.wait());
    /// handle.discard()?; // the "discard" button
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Download::discard`](super::Download::discard); [`ErrorKind::Storage`](crate::ErrorKind::Storage) if another
    /// download to the path runs by now, which goes on.
    pub fn discard(&self) -> Result<(), Error> {
        self.cancel();
        Error::check_may_block("discarding a download")?;
        // Cancelled, or it was whole: its file is kept then. Its end is recorded after its files are closed.
        let _ = self.wait();
        discard(&self.outcome.path)
    }

    fn with_running(&self, call: impl FnOnce(&Running)) {
        if let Some(running) = self.running.upgrade() {
            call(&running);
        }
    }
}

impl fmt::Debug for DownloadHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownloadHandle").field("progress", &self.progress()).finish_non_exhaustive()
    }
}
