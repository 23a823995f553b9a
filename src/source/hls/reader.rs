//! Reads the audio of one section.

use std::fmt;
use std::io::{self, Read};
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::shared::Shared;
use super::state::section::{SectionBuffer, SectionInfo};

/// The audio for one decoder, as elementary frames: ADTS, MP3, AC-3, or FLAC with its head. Opus comes in pages of Ogg, and ALAC in
/// Matroska.
///
/// `read` blocks until at least one byte is there. It returns 0 at the end of the section, and after a seek.
///
/// If it is dropped before its end, [`next_section`](super::Hls::next_section) returns the rest as a section of its own, from the first
/// frame on of which nothing was read: a decoder that has failed is replaced by another one. Nothing is fetched again. If
/// nothing was read of it, or if the section behind it was handed out before, the rest is skipped.
///
/// ```no_run
/// use windway::Downloader;
/// use windway::hls::{Discontinuity, HlsConfig};
///
/// let mut hls = Downloader::global()?.open_hls("https://example.com/main.m3u8", HlsConfig::default())?;
/// while let Some(mut section) = hls.next_section()? {
///     let info = section.info();
///     if let Discontinuity::Gap(missing) | Discontinuity::Behind(missing) = info.discontinuity {
///         println!("{missing:?} of audio are missing");
///     }
///     println!("{:?}, {} Hz, from {:?} on", info.codec, info.sample_rate, info.start);
///     std::io::copy(&mut section, &mut std::io::sink())?; // in place of a decoder
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Section {
    pub(super) shared: Arc<Shared>,
    pub(super) id: u64,
    pub(super) info: SectionInfo,
    /// Something was read.
    pub(super) is_begun: bool,
    /// Shows handles that the section was not dropped: the rest of a dropped one is handed out under the same number.
    pub(super) alive: Arc<()>,
}

impl Section {
    /// What the section is. Until something was read, its first segment may be replaced by one of a higher
    /// [`level`](SectionInfo::level).
    pub fn info(&self) -> &SectionInfo {
        &self.info
    }

    /// Number of bytes that were read.
    pub fn position(&self) -> u64 {
        self.look(|section| section.position()).unwrap_or_default()
    }

    /// Presentation time of the frame that the byte at `offset` of the section belongs to. `None` if that byte has not
    /// arrived yet, if it was read more than a minute ago, and after a seek.
    pub fn time_of(&self, offset: u64) -> Option<Duration> {
        self.look(|section| section.time_of(offset)).flatten()
    }

    /// How much to drop from the end of the decoded audio, because the encoder has added it to fill its last frame. `None` until the
    /// end of the section has arrived, at the latest when `read` returns 0; and after a seek.
    ///
    /// Fragmented MP4 gives it, by a shorter last sample as ffmpeg writes it or by an edit list, and so do the table at the
    /// beginning of an MP3 and the comment `iTunSMPB` of AAC, if they count as many frames as the section has. In other
    /// segments, such as those of MPEG-TS, nothing does, and it is zero. `iTunSMPB` is not used of HE-AAC, where encoders count
    /// different samples, nor below 24 kHz, where AAC may be the core of HE-AAC.
    pub fn padding(&self) -> Option<Duration> {
        self.look(|section| section.padding()).flatten()
    }

    /// Says what the samples of a decoder are that owns the section: take it before the section is moved there.
    pub fn handle(&self) -> SectionHandle {
        let delay = self.look(|section| section.delay()).unwrap_or_default();
        SectionHandle {
            shared: Arc::clone(&self.shared),
            id: self.id,
            info: self.info.clone(),
            delay,
            alive: Arc::downgrade(&self.alive),
        }
    }

    /// Number of bytes that were fetched and not read yet.
    pub(super) fn buffered(&self) -> u64 {
        self.look(|section| section.len() as u64).unwrap_or_default()
    }

    fn look<T>(&self, look: impl FnOnce(&SectionBuffer) -> T) -> Option<T> {
        look_at(&self.shared, self.id, look)
    }
}

fn look_at<T>(shared: &Shared, id: u64, look: impl FnOnce(&SectionBuffer) -> T) -> Option<T> {
    shared.with(|state| state.section(id).map(look)).flatten()
}

/// Maps what a decoder returns of a [`Section`] to presentation times. From [`Section::handle`], and cheap to clone. No call blocks.
///
/// ```no_run
/// use std::time::Duration;
///
/// use windway::Downloader;
/// use windway::hls::{HlsConfig, Section};
///
/// /// In place of a decoder, which owns the section. Returns the frames that it has decoded.
/// fn decode(section: Section) -> u64 {
///     0
/// }
///
/// let mut hls = Downloader::global()?.open_hls("https://example.com/main.m3u8", HlsConfig::default())?;
/// while let Some(section) = hls.next_section()? {
///     let handle = section.handle();
///     let decoded = decode(section) as f64 / f64::from(handle.info().sample_rate);
///     println!("up to {:?}", handle.time_at(Duration::from_secs_f64(decoded)));
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct SectionHandle {
    shared: Arc<Shared>,
    id: u64,
    info: SectionInfo,
    /// Decoded audio before the presentation time `info.start`.
    delay: Duration,
    alive: Weak<()>,
}

impl SectionHandle {
    /// What the section was when the handle was made.
    pub fn info(&self) -> &SectionInfo {
        &self.info
    }

    /// Presentation time of the decoded audio that lies `decoded` behind the first sample of the section: the number of decoded frames by
    /// their rate, with what [`skip`](SectionInfo::skip) drops. It is right for as long as the decoder leaves out nothing by itself. Works
    /// also after the section has ended.
    pub fn time_at(&self, decoded: Duration) -> Duration {
        self.info.start.saturating_add(decoded).saturating_sub(self.delay).max(self.info.start)
    }

    /// True once a seek or the selection of another rendition has ended the section, or its drop. Not at its own end, nor after a cancel:
    /// then what the decoder has read is still to be played. A decoder reads ahead, so after a seek it returns audio of the old place
    /// until it reads again. To leave that out, ask for each packet; a call costs a short lock.
    pub fn is_over(&self) -> bool {
        self.alive.strong_count() == 0 || look_at(&self.shared, self.id, |_| ()).is_none()
    }

    /// As [`Section::time_of`]. `None` also once the section was dropped.
    pub fn time_of(&self, offset: u64) -> Option<Duration> {
        look_at(&self.shared, self.id, |section| section.time_of(offset)).flatten()
    }

    /// As [`Section::padding`]. `None` also once the section was dropped: ask for it before the decoder is.
    pub fn padding(&self) -> Option<Duration> {
        look_at(&self.shared, self.id, |section| section.padding()).flatten()
    }
}

impl fmt::Debug for SectionHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SectionHandle")
            .field("id", &self.id)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}

impl Read for Section {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let got = self.shared.read(self.id, buf)?;
        if !std::mem::replace(&mut self.is_begun, true) {
            self.info.level = self.look(|section| section.info.level).unwrap_or(self.info.level);
        }
        Ok(got)
    }
}

impl Drop for Section {
    fn drop(&mut self) {
        self.shared.store(|state| state.drop_section(self.id));
    }
}

impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Section").field("id", &self.id).field("info", &self.info).finish_non_exhaustive()
    }
}
