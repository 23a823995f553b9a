//! Opens streams over HTTP, and stations.

#[cfg(doc)]
use super::handle::StreamHandle;
use super::reading::Stream;
use crate::client::Request;
use crate::config::{FileConfig, RadioConfig};
use crate::downloader::Downloader;
use crate::error::Error;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::source::file::{FileReader, HttpFile};
use crate::source::radio::Radio;

/// Opens `url` with the process's downloader and default options.
///
/// Blocks until the first bytes arrive, or at most for [`read_timeout`](crate::FileConfig::read_timeout), 30 s, without progress.
/// To cancel it meanwhile, use [`Downloader::open_later`]. Sends a request for the first 256 KiB, and beside it, over a second
/// connection, one for the last KiB of the file, which many decoders read first.
///
/// A host that can't be reached fails at once: [`ErrorKind::HostNotFound`], [`ErrorKind::Refused`],
/// [`ErrorKind::Unreachable`] and [`ErrorKind::ConnectTimedOut`] are not retried here. Other errors that are
/// [retryable](Error::is_retryable) are.
///
/// # Errors
///
/// The reason why opening failed, with the URL: [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`],
/// [`ErrorKind::HostNotFound`], [`ErrorKind::Refused`], [`ErrorKind::Tls`], [`ErrorKind::Status`],
/// [`ErrorKind::NotMedia`], [`ErrorKind::Empty`], [`ErrorKind::Redirect`], [`ErrorKind::TimedOut`] and the like.
///
/// ```no_run
/// let stream = windway::open("https://example.com/episode.mp3")?;
/// println!("{:?} bytes", stream.len());
/// # Ok::<(), windway::Error>(())
/// ```
pub fn open(url: &str) -> Result<Stream, Error> {
    Downloader::global()?.open(url)
}

impl Downloader {
    /// Opens `url` with default options, like [`open`].
    ///
    /// # Errors
    ///
    /// The same as for [`open`].
    pub fn open(&self, url: &str) -> Result<Stream, Error> {
        self.open_with(url, FileConfig::default())
    }

    /// Opens `url`. Blocks until the first bytes arrive: see [`open`].
    ///
    /// # Errors
    ///
    /// The same as for [`open`], and [`ErrorKind::InvalidConfig`], which names the field.
    pub fn open_with(&self, url: &str, config: FileConfig) -> Result<Stream, Error> {
        HttpFile::open(self, Request::get(url)?, config).map(FileReader::new).map(Stream::new)
    }

    /// Opens `url` like [`open_with`](Self::open_with), but does not block. The first bytes are fetched in the
    /// background. If that fails, the first read requests them again. It returns an error that is not
    /// [retryable](Error::is_retryable), such as a 404, at once. Others are retried, also that a host can't be reached: the network
    /// may come back. The read then fails with [`ErrorKind::TimedOut`] after [`read_timeout`](crate::FileConfig::read_timeout), and
    /// the next one tries again; [`give_up`](crate::FileConfig::give_up) ends that. [`Error::cause`] is the error of the last attempt.
    ///
    /// Length, seekability and media info are unknown before the first bytes: [`StreamHandle::wait_buffered`]`(1, ..)` waits for
    /// them.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`]; [`ErrorKind::InvalidConfig`], which names the field;
    /// [`ErrorKind::Storage`] if a temporary file can't be made; [`ErrorKind::Cancelled`] once the downloader has stopped.
    pub fn open_later(&self, url: &str, config: FileConfig) -> Result<Stream, Error> {
        HttpFile::open_later(self, Request::get(url)?, config).map(FileReader::new).map(Stream::new)
    }

    /// Opens the station at `url`. Does not block: the radio's thread connects, and the first read returns the error if
    /// that fails.
    ///
    /// ```no_run
    /// use windway::{Downloader, RadioConfig};
    ///
    /// let radio = Downloader::global()?.open_radio("http://example.com:8000/stream", RadioConfig::default())?;
    /// # Ok::<(), windway::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidUrl`], [`ErrorKind::UnsupportedScheme`]; [`ErrorKind::InvalidConfig`], which names the
    /// field; [`ErrorKind::Cancelled`] once the downloader has stopped; [`ErrorKind::Io`] if a thread can't be started.
    pub fn open_radio(&self, url: &str, config: RadioConfig) -> Result<Radio, Error> {
        Radio::open(self, url, config)
    }
}
