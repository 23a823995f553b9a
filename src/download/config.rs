//! Options and progress of a download.

use crate::error::Error;
use crate::hook::Hook;

/// Options of a download.
///
/// ```
/// let config = windway::download::DownloadConfig::new().overwrite(true);
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct DownloadConfig {
    /// Replaces a file at the path when the download is whole. Default: false, which refuses to begin.
    pub overwrite: bool,
    /// SHA-256 digest that the file has to have. The whole file is read for it. Default: none.
    pub sha256: Option<[u8; 32]>,
    /// Headers sent to the URL's origin, and to no other. Default: none.
    pub headers: Vec<(String, String)>,
    /// Other URLs of the same file: see [`FileConfig::mirrors`](crate::FileConfig::mirrors). Default: none.
    pub mirrors: Vec<String>,
    /// Gives each request headers, and fresh URLs in place of those that expire while the download waits for the network or is
    /// paused. Default: none.
    pub hook: Option<Hook>,
}

impl DownloadConfig {
    /// The default options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets [`overwrite`](Self#structfield.overwrite).
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Sets [`sha256`](Self#structfield.sha256).
    #[must_use]
    pub fn sha256(mut self, sha256: impl Into<Option<[u8; 32]>>) -> Self {
        self.sha256 = sha256.into();
        self
    }

    /// Sets [`headers`](Self#structfield.headers).
    #[must_use]
    pub fn headers(mut self, headers: impl Into<Vec<(String, String)>>) -> Self {
        self.headers = headers.into();
        self
    }

    /// Sets [`mirrors`](Self#structfield.mirrors).
    #[must_use]
    pub fn mirrors(mut self, mirrors: impl Into<Vec<String>>) -> Self {
        self.mirrors = mirrors.into();
        self
    }

    /// Sets [`hook`](Self#structfield.hook).
    #[must_use]
    pub fn hook(mut self, hook: impl Into<Option<Hook>>) -> Self {
        self.hook = hook.into();
        self
    }
}

// Not the values of headers, nor URLs.
impl std::fmt::Debug for DownloadConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { overwrite, sha256, headers, mirrors, hook } = self;
        f.debug_struct("DownloadConfig")
            .field("overwrite", overwrite)
            .field("sha256", sha256)
            .field("headers", &format_args!("{}", headers.len()))
            .field("mirrors", &format_args!("{}", mirrors.len()))
            .field("hook", hook)
            .finish()
    }
}

/// How far a download has come.
///
/// [`Download`](super::Download) shows an example.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// What it does.
    pub phase: DownloadPhase,
    /// Bytes that are there. 0 until the first response: before it, it is not known whether what an earlier download has left is of
    /// the same file.
    pub stored: u64,
    /// Bytes in the file, once known.
    pub len: Option<u64>,
    /// Measured bandwidth in bytes a second: that of all transfers of the downloader until the download has enough of its own, as
    /// [`StreamHandle::bandwidth`](crate::StreamHandle::bandwidth). `None` until enough was transferred.
    pub bandwidth: Option<f64>,
    /// Why it has failed, or the error that is being retried. Cancelling does not count as an error.
    pub last_error: Option<Error>,
}

impl Progress {
    /// That of a download that has just begun.
    pub(super) fn first() -> Self {
        Self { phase: DownloadPhase::Fetching, stored: 0, len: None, bandwidth: None, last_error: None }
    }
}

/// What a download does.
///
/// [`Download`](super::Download) shows an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownloadPhase {
    /// Bytes are requested, or arrive.
    Fetching,
    /// The last request failed and is being retried: [`last_error`](Progress::last_error) is the reason.
    Retrying,
    /// It was paused.
    Paused,
    /// All bytes are there. They are checked, synced and renamed.
    Finishing,
    /// The file is at its path.
    Done,
    /// It has failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl DownloadPhase {
    /// True if the download has ended: it is done, has failed, or was cancelled.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}
