//! All sections of a presentation as one run of bytes, for decoders that know nothing of sections.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;

use parking_lot::Mutex;

use super::handle::{HlsHandle, HlsKind};
use super::presentation::Hls;
use super::reader::Section;
use super::state::section::SectionInfo;
use crate::cancel::CancelGuard;
use crate::error::{Error, ErrorKind};
use crate::media::{AudioCodec, MediaInfo};
use crate::phase::Phase;
use crate::safe_url::SafeUrl;
use crate::source::{Pending, Source, StreamStats, TryRead};

/// Bytes before the position of the reader that can be read again: a decoder that has probed the beginning seeks back to it.
const KEPT: usize = 256 * 1024;

/// `fLaC`, and the STREAMINFO block with its header (RFC 9639, section 8): where sections join, a decoder has it already.
const FLAC_HEAD: usize = 42;

/// The audio of an [`Hls`] as one run of bytes, for a [`Stream`](crate::Stream). [`Hls::into_source`] makes it.
///
/// It is read in one direction, and up to 256 KiB back. Where audio is missing, what follows joins what was before. Seeks by
/// time, levels and events are those of its [`handle`](Self::handle). To play without a gap, drop
/// [`info().skip`](SectionInfo::skip) from the beginning of the decoded audio, and [`HlsHandle::padding`] from its end.
///
/// ```no_run
/// use windway::Stream;
/// use windway::hls::HlsConfig;
///
/// let downloader = windway::Downloader::global()?;
/// let hls = downloader.open_hls("https://example.com/episode.m3u8", HlsConfig::default())?;
/// let mut stream = Stream::new(hls.into_source()?);
/// std::io::copy(&mut stream, &mut std::fs::File::create("episode.aac")?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct HlsSource {
    handle: HlsHandle,
    first: SectionInfo,
    /// Locked only by reads. A stream makes one read at a time, so a read may block while it holds the lock.
    reader: Mutex<Reader>,
}

impl Hls {
    /// All sections as one run of bytes, for a [`Stream`](crate::stream::Stream). Blocks until the first section begins.
    ///
    /// It fits presentations whose sections one decoder can read, as most on demand are. Where the codec, the rate or the
    /// channels change, reads fail with [`ErrorKind::Unsupported`].
    ///
    /// # Errors
    ///
    /// Those of [`next_section`](Self::next_section); [`ErrorKind::Empty`] if there is no audio.
    pub fn into_source(self) -> Result<HlsSource, Error> {
        HlsSource::new(self)
    }
}

struct Reader {
    hls: Hls,
    section: Option<Section>,
    /// Bytes of the head of the section that are left out and have not been read yet.
    head: usize,
    /// The last bytes up to `position`.
    kept: VecDeque<u8>,
    position: u64,
}

impl HlsSource {
    fn new(mut hls: Hls) -> Result<Self, Error> {
        let section = hls.next_section()?.ok_or_else(|| {
            Error::new(ErrorKind::Empty, "the presentation has no audio").with_url(hls.shared.request.url())
        })?;
        let first = section.info().clone();
        let (handle, section) = (hls.handle(), Some(section));
        let reader = Reader { hls, section, head: 0, kept: VecDeque::new(), position: 0 };
        Ok(Self { handle, first, reader: Mutex::new(reader) })
    }

    /// The handle of the presentation.
    pub fn handle(&self) -> &HlsHandle {
        &self.handle
    }

    /// What the first section is. All that follow have the same codec, rate and channels.
    pub fn info(&self) -> &SectionInfo {
        &self.first
    }
}

/// Whether a read may block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Block,
    Try,
}

/// What follows a section.
enum Opened {
    Section,
    End,
    NotYet,
}

impl Reader {
    /// `None` if nothing is there yet: only of a read that must not block.
    fn read_at(
        &mut self,
        position: u64,
        buf: &mut [u8],
        first: &SectionInfo,
        mode: Mode,
    ) -> Result<Option<usize>, Error> {
        let behind = self.position.checked_sub(position).and_then(|behind| usize::try_from(behind).ok());
        if let Some(behind) = behind.filter(|behind| *behind > 0) {
            let from = self.kept.len().checked_sub(behind).ok_or_else(|| {
                let why = format!(
                    "byte {position} is more than {KEPT} bytes behind what was read of an HLS stream"
                );
                Error::new(ErrorKind::InvalidInput, why)
            })?;
            let again = self.kept.range(from..).zip(buf);
            return Ok(Some(again.map(|(byte, into)| *into = *byte).count()));
        }
        // Decoders skip what they have no use for. What is between has to be read: no byte position can be requested.
        while self.position < position {
            let left = usize::try_from(position - self.position).unwrap_or(usize::MAX);
            let mut skipped = vec![0; left.min(32 * 1024)];
            match self.read_next(&mut skipped, first, mode)? {
                Some(0) => return Ok(Some(0)),
                None => return Ok(None),
                Some(_) => {}
            }
        }
        self.read_next(buf, first, mode)
    }

    fn read_next(&mut self, buf: &mut [u8], first: &SectionInfo, mode: Mode) -> Result<Option<usize>, Error> {
        let mut head = [0; FLAC_HEAD];
        loop {
            let Some(section) = &self.section else {
                match self.open_section(first, mode)? {
                    Opened::Section => continue,
                    Opened::End => return Ok(Some(0)),
                    Opened::NotYet => return Ok(None),
                }
            };
            let into = if self.head > 0 { &mut head[..self.head] } else { &mut *buf };
            let got = match mode {
                Mode::Block => section.shared.read(section.id, into)?,
                Mode::Try => match section.shared.try_read(section.id, into)? {
                    Some(got) => got,
                    None => return Ok(None),
                },
            };
            match got {
                0 => self.section = None,
                got if self.head > 0 => self.head -= got,
                got => {
                    self.keep(&buf[..got]);
                    return Ok(Some(got));
                }
            }
        }
    }

    fn open_section(&mut self, first: &SectionInfo, mode: Mode) -> Result<Opened, Error> {
        let next = match mode {
            Mode::Block => self.hls.next_section()?,
            Mode::Try => match self.hls.try_next_section()? {
                Some(next) => next,
                None => return Ok(Opened::NotYet),
            },
        };
        // It is not the last word: after a seek there are sections again.
        let Some(section) = next else { return Ok(Opened::End) };
        let kind = |info: &SectionInfo| (info.codec, info.sample_rate, info.channels);
        if kind(section.info()) != kind(first) {
            let why = format!(
                "the audio changes from {:?} to {:?}, which needs another decoder: read the presentation by its sections",
                kind(first),
                kind(section.info())
            );
            return Err(Error::new(ErrorKind::Unsupported, why).with_url(self.hls.shared.request.url()));
        }
        self.head = if first.codec == AudioCodec::Flac { FLAC_HEAD } else { 0 };
        self.section = Some(section);
        Ok(Opened::Section)
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.position += bytes.len() as u64;
        self.kept.extend(bytes);
        self.kept.drain(..self.kept.len().saturating_sub(KEPT));
    }

    /// Bytes that can be read without blocking.
    fn buffered(&self) -> Range<u64> {
        // What is stored begins with the rest of the head, which is left out.
        let section = self.section.as_ref().filter(|_| self.head == 0);
        let ahead = section.map_or(0, |section| section.buffered());
        self.position - self.kept.len() as u64..self.position + ahead
    }
}

impl Source for HlsSource {
    fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, Error> {
        let got = self.reader.lock().read_at(position, buf, &self.first, Mode::Block)?;
        Ok(got.unwrap_or_default())
    }

    fn len(&self) -> Option<u64> {
        // While a read is blocked the end has not been reached.
        let reader = self.reader.try_lock()?;
        // A seek by time has no place in bytes: what follows it is behind all that was read.
        let has_ended =
            reader.section.is_none() && self.handle.shared.with(|state| state.has_ended()) == Some(true);
        has_ended.then_some(reader.position)
    }

    fn try_read_at(&self, position: u64, buf: &mut [u8]) -> Result<TryRead, Error> {
        let got = self.reader.lock().read_at(position, buf, &self.first, Mode::Try)?;
        Ok(match got {
            Some(0) => TryRead::End,
            Some(got) => TryRead::Bytes(got),
            None if self.handle.phase() == Phase::Retrying => TryRead::Pending(Pending::Retrying),
            None => TryRead::Pending(Pending::Fetching),
        })
    }

    // A position in bytes is known only once the segments before it are demuxed. The handle seeks by time.
    fn is_seekable(&self) -> bool {
        false
    }

    fn is_live(&self) -> bool {
        self.handle.kind() != HlsKind::Vod
    }

    fn url(&self) -> Option<SafeUrl> {
        Some(self.handle.url())
    }

    fn phase(&self) -> Phase {
        self.handle.phase()
    }

    fn last_error(&self) -> Option<Error> {
        self.handle.last_error()
    }

    fn buffered(&self) -> Vec<Range<u64>> {
        // While a read is blocked nothing is there that was not read.
        let buffered = self.reader.try_lock().map(|reader| reader.buffered());
        buffered.into_iter().filter(|range| !range.is_empty()).collect()
    }

    fn interrupt(&self) {
        self.handle.interrupt();
    }

    fn resume(&self) {
        self.handle.resume();
    }

    fn cancel(&self) {
        self.handle.cancel();
    }

    fn on_cancel(&self, hook: Box<dyn FnOnce() + Send>) -> Option<CancelGuard> {
        self.handle.shared.link.on_cancel(hook)
    }

    fn stats(&self) -> StreamStats {
        self.handle.stats()
    }

    fn media_info(&self) -> MediaInfo {
        self.first.media_info()
    }

    fn bandwidth(&self) -> Option<f64> {
        self.handle.shared.link.network().0
    }
}

impl fmt::Debug for HlsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HlsSource").field("url", &self.handle.url()).finish_non_exhaustive()
    }
}
