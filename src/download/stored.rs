//! What a download has left at its path: played without a network, or removed.

use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::run::storage_error;
use crate::cache::{BLOCK, PartFile, PartReader};
use crate::error::{Error, ErrorKind};
use crate::media::{FirstBytes, MediaInfo};
use crate::phase::Phase;
use crate::source::Source;
use crate::stream::Stream;
use crate::types::ByteRange;

/// Opens what a [download](super) to `path` has stored, without a network: the file, if it is whole, and else what is there of it. Sends no
/// request, and does not look whether the server has another version by now. For a download that runs,
/// [`Download::stream`](super::Download::stream) also waits for what is missing.
///
/// Of a file that is not whole the stream has the length of the whole one, and
/// [`buffered`](crate::StreamHandle::buffered) returns the ranges that can be read. They are those that were there at the opening.
/// A read of other bytes fails at once with [`ErrorKind::NotCached`], whose [`range`](Error::range) is what is missing; the stream
/// stays usable. Bytes that a crash has damaged are missing too. A download to the path may begin meanwhile, except on Windows.
///
/// ```no_run
/// use windway::{Error, ErrorKind};
///
/// # fn play(stream: windway::Stream) -> std::io::Result<()> { Ok(()) }
/// // On the train.
/// let stream = windway::download::open_stored("/home/me/Podcasts/17.mp3")?;
/// let handle = stream.handle();
/// if let Err(error) = play(stream) {
///     // A decoder may have hidden the error behind one of its own.
///     match handle.last_error().unwrap_or_else(|| error.into()) {
///         error if error.kind() == ErrorKind::NotCached => println!("the rest was not downloaded yet"),
///         error => return Err(error),
///     }
/// }
/// # Ok::<(), Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::Storage`] if there is nothing, with an [`io::Error`] of the kind `NotFound` as its source, or if it can't be read; those of
/// [`Stream::open_file`].
pub fn open_stored(path: impl AsRef<Path>) -> Result<Stream, Error> {
    let path = path.as_ref();
    if path.is_file() {
        return Stream::open_file(path);
    }
    match StoredPart::open(path) {
        Ok(part) => Ok(Stream::new(part)),
        // Its download may have ended in between.
        Err(_) if path.is_file() => Stream::open_file(path),
        Err(error) => Err(storage_error("can't open what was downloaded to", path, error)),
    }
}

/// Removes what a [download](super) to `path` has left that is not whole: `PATH.part` and `PATH.part.meta`. A file at `path` itself stays.
/// Does nothing if there is none. For a download that runs see [`Download::discard`](super::Download::discard).
///
/// ```no_run
/// windway::download::discard("/home/me/Podcasts/17.mp3")?;
/// # Ok::<(), windway::Error>(())
/// ```
///
/// # Errors
///
/// [`ErrorKind::Storage`]. Its source is an [`io::Error`]: of the kind `WouldBlock` if a download writes to it, `AlreadyExists` if one of
/// the two files is of another program, and stays; others of the file system.
pub fn discard(path: impl AsRef<Path>) -> Result<(), Error> {
    let path = path.as_ref();
    match PartFile::open(path).and_then(|part| part.discard()) {
        // The directory does not exist, or no file can be made there.
        Err(_) if !PartFile::is_left(path) => Ok(()),
        discarded => {
            discarded.map_err(|error| storage_error("can't remove what was downloaded to", path, error))
        }
    }
}

/// A file that is not whole.
struct StoredPart {
    path: PathBuf,
    part: PartReader,
    media: MediaInfo,
}

impl StoredPart {
    fn open(path: &Path) -> io::Result<Self> {
        let part = PartReader::open(path)?;
        let mut first = vec![0; FirstBytes::MOST.min(BLOCK as usize)];
        let stored = part.stored_at(0).min(first.len() as u64) as usize;
        first.truncate(stored);
        if !part.read(0, &mut first) {
            first.clear();
        }
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let media = MediaInfo::detect(Some(part.media_type()), &format!("file:///{name}"), &first);
        Ok(Self { path: path.to_owned(), part, media })
    }

    fn missing(&self, position: u64) -> Error {
        let next = self.part.stored().into_iter().map(|range| range.start).find(|start| *start > position);
        let end = next.unwrap_or(self.part.len());
        let why = format!("bytes {position} to {end} of {} were not downloaded", self.path.display());
        Error::new(ErrorKind::NotCached, why).with_range(ByteRange::new(position, end))
    }
}

impl Source for StoredPart {
    fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, Error> {
        if position >= self.part.len() || buf.is_empty() {
            return Ok(0);
        }
        let most = buf.len().min(usize::try_from(self.part.stored_at(position)).unwrap_or(usize::MAX));
        if most == 0 || !self.part.read(position, &mut buf[..most]) {
            return Err(self.missing(position));
        }
        Ok(most)
    }

    fn len(&self) -> Option<u64> {
        Some(self.part.len())
    }

    fn phase(&self) -> Phase {
        let whole = 0..self.part.len();
        let is_whole = self.part.stored().first() == Some(&whole);
        if is_whole { Phase::Complete } else { Phase::Idle }
    }

    fn buffered(&self) -> Vec<Range<u64>> {
        self.part.stored()
    }

    fn wait_buffered(&self, range: Range<u64>, _: Option<Duration>) -> Result<(), Error> {
        let stored = self.part.stored();
        let is_there = stored.iter().any(|stored| stored.start <= range.start && range.end <= stored.end);
        if is_there || range.is_empty() { Ok(()) } else { Err(self.missing(range.start)) }
    }

    fn media_info(&self) -> MediaInfo {
        self.media.clone()
    }
}
