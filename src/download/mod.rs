//! Downloads to named files: continued after a crash, checked, and renamed when they are whole. Needs the feature `cache`.
//!
//! [`Downloader::download`] fetches a file in the background, below everything that is played. Until it is whole it lies in
//! `PATH.part`, and `PATH.part.meta` beside it says which of its bytes are there. Both are locked against a second download.
//!
//! | what happens | what follows |
//! |---|---|
//! | the process ends, or crashes | the next download to the same path continues; each block is held against its checksum |
//! | the file has changed on the server, or it has no ranges, or no strong validator: an `ETag` that is not weak, or a `Last-Modified` that is a minute older than the response | from the start |
//! | the next download has another URL | it continues if the URLs differ in the query only, such as a token, and the server sends the same validator; else from the start. A [mirror](DownloadConfig::mirrors) of the same URL continues |
//! | the network fails | it is retried for as long as the download is not cancelled. A server that can't be reached is dialled again within 1.5 s, or within 1 % of the time that this has lasted, and within 8 s at most, so the download goes on soon after the network is back |
//! | the disk is full, or the directory is removed | it fails with [`ErrorKind::Storage`](crate::ErrorKind::Storage); the next download continues with what could be written |
//! | there is a file at the path | it is refused, unless [`overwrite`](DownloadConfig::overwrite) is set. A link is replaced and not followed |
//! | another program has a file named `PATH.part` or `PATH.part.meta` | it is refused |
//! | the file is empty | it fails with [`ErrorKind::Empty`](crate::ErrorKind::Empty) |
//! | the server sends an HTML page | it fails with [`ErrorKind::NotMedia`](crate::ErrorKind::NotMedia): a login, an error; if bytes have arrived before, after 2 min |
//! | it is whole | length and [`sha256`](DownloadConfig::sha256) are checked, the bytes are synced, the file is renamed, and the directory synced |
//!
//! On Windows the file stays open for reading and writing until the [`Download`] and its streams are dropped. Programs that share
//! a file with readers only can't open it until then. A file that is to be replaced must not be open in such a program.
//! A temporary file, `.tmp…`, lies beside it meanwhile, for a body without a length.
//!
//! [`Download::stream`] plays the file while it is fetched, from the same bytes. [`open_stored`] plays what is there of it without a
//! network, and [`discard`] removes it. The name that a server suggests
//! (`Content-Disposition`) is never used.

mod config;
mod handle;
mod outcome;
mod run;
mod stored;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use self::run::Running;
use crate::client::Request;
use crate::downloader::Downloader;
use crate::error::Error;
#[cfg(feature = "queue")]
use crate::queue::Track;
use crate::stream::Stream;

pub use config::{DownloadConfig, DownloadPhase, Progress};
pub use handle::DownloadHandle;
pub use stored::{discard, open_stored};

pub use crate::watch::Watch;

/// A file that is being downloaded. Its drop stops the download; what was fetched stays, for the next one. Other threads use its
/// [`handle`](Self::handle).
///
/// ```no_run
/// use windway::Downloader;
/// use windway::download::{DownloadConfig, DownloadPhase};
///
/// let url = "https://example.com/episode.mp3";
/// let download = Downloader::global()?.download(url, "/home/me/episode.mp3", DownloadConfig::new())?;
/// let progress = download.progress();
/// if progress.phase == DownloadPhase::Fetching {
///     println!("{} of {:?} bytes", progress.stored, progress.len);
/// }
/// let bytes = download.wait()?;
/// println!("{bytes} bytes");
/// # Ok::<(), windway::Error>(())
/// ```
pub struct Download(Arc<Running>);

impl Downloader {
    /// Downloads `url` to the file `path`. Does not wait for the network: a thread of the download, `windway-download`, waits for
    /// the bytes and finishes the file. Continues what an earlier download to this path has left.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`](crate::ErrorKind::InvalidUrl),
    /// [`ErrorKind::UnsupportedScheme`](crate::ErrorKind::UnsupportedScheme),
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig);
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) if the thread can't be started;
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage) if the files can't be opened. Its source is a [`std::io::Error`]:
    ///
    /// | its kind | what is wrong |
    /// |---|---|
    /// | `AlreadyExists` | there is a file at the path, or one of another program at `PATH.part` or `PATH.part.meta` |
    /// | `WouldBlock` | another download writes to it, of this process or of another one |
    /// | `InvalidInput` | the path is that of a directory, or names no file |
    /// | others | those of the file system; names may have 245 bytes on most, because of `.part.meta` |
    pub fn download(
        &self,
        url: &str,
        path: impl AsRef<Path>,
        config: DownloadConfig,
    ) -> Result<Download, Error> {
        Running::start(self, Request::get(url)?, path.as_ref(), config).map(Download)
    }

    /// As [`download`](Self::download), of a track of a playlist or feed. The rules of its list apply: where redirects may lead,
    /// and that [`DownloadConfig::headers`] are sent only to a track of the application, or to one on the list's own origin if
    /// the list got them too.
    ///
    /// # Errors
    ///
    /// Those of [`download`](Self::download); [`ErrorKind::Forbidden`](crate::ErrorKind::Forbidden) for a redirect that the rules
    /// do not allow; [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a track that a closure opens.
    #[cfg(feature = "queue")]
    pub fn download_track(
        &self,
        track: &Track,
        path: impl AsRef<Path>,
        mut config: DownloadConfig,
    ) -> Result<Download, Error> {
        let remote = track.require_remote()?;
        if !remote.gets_headers {
            config.headers.clear();
        }
        Running::start(self, remote.request()?, path.as_ref(), config).map(Download)
    }
}

impl Download {
    /// A handle for other threads. It does not keep the download running.
    pub fn handle(&self) -> DownloadHandle {
        DownloadHandle::new(&self.0)
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        self.0.progress()
    }

    /// Blocks until the download has ended. Returns the length of the file. Waits for as long as it is paused.
    ///
    /// # Errors
    ///
    /// Why it has failed: those of [`open`](crate::open());
    /// [`ErrorKind::WrongDigest`](crate::ErrorKind::WrongDigest), after which nothing of it is kept;
    /// [`ErrorKind::Storage`](crate::ErrorKind::Storage) if the file can't be written or renamed;
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled);
    /// [`ErrorKind::WouldDeadlock`](crate::ErrorKind::WouldDeadlock) in a callback.
    pub fn wait(&self) -> Result<u64, Error> {
        self.0.wait()
    }

    /// Fetches no more, but for what its streams need, until [`resume`](Self::resume). Does not block.
    pub fn pause(&self) {
        self.0.set_paused(true);
    }

    /// Fetches on. Does not block.
    pub fn resume(&self) {
        self.0.set_paused(false);
    }

    /// Ends the download, and the streams of it. What was fetched stays, for the next download to the same path. Does not block.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Ends the download, as [`cancel`](Self::cancel), and removes what was fetched of a file that is not whole: nothing is left of it. A
    /// download that has ended without an error keeps its file. Blocks until the thread of the download has ended. Without the
    /// [`Download`], after the program was started again, [`discard`] does it, and while another thread has it,
    /// [`DownloadHandle::discard`].
    ///
    /// ```no_run
    /// # use windway::download::Download;
    /// fn on_abort(download: Download) {
    ///     if let Err(error) = download.discard() {
    ///         eprintln!("{error}");
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`discard`]; [`ErrorKind::WouldDeadlock`](crate::ErrorKind::WouldDeadlock) in a callback, after which what was fetched
    /// stays.
    pub fn discard(self) -> Result<(), Error> {
        self.handle().discard()
    }

    /// A stream of the file, from the bytes that are there and those that come. While there is one, the download has the priority
    /// of what is played. It ends with [`ErrorKind::Changed`](crate::ErrorKind::Changed) if the file has changed and is fetched
    /// from the start.
    ///
    /// # Errors
    ///
    /// Why the download has failed.
    pub fn stream(&self) -> Result<Stream, Error> {
        self.0.stream().map(Stream::new)
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.0.cancel();
        self.0.join();
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("progress", &self.progress()).finish_non_exhaustive()
    }
}
