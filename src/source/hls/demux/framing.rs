//! Framing for frames that have none of their own: a section contains them in pages of Ogg or in clusters of Matroska.

use std::time::Duration;

use super::matroska::Clusters;
use super::ogg::OggPages;
use crate::media::AudioCodec;

/// Adds to each frame of a section what a decoder needs to find it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Framing {
    Ogg(OggPages),
    Matroska(Clusters),
}

impl Framing {
    /// `None` if the frames follow each other as they are.
    pub(crate) fn of(codec: AudioCodec) -> Option<Self> {
        match codec {
            AudioCodec::Opus => Some(Self::Ogg(OggPages::default())),
            AudioCodec::Alac => Some(Self::Matroska(Clusters::default())),
            _ => None,
        }
    }

    /// The frame with its framing. `None` if no decoder could play it.
    pub(crate) fn frame(&mut self, frame: &[u8], duration: Duration) -> Option<Vec<u8>> {
        match self {
            Self::Ogg(pages) => pages.page(frame),
            Self::Matroska(clusters) => Some(clusters.cluster(frame, duration)),
        }
    }
    /// Numbers a framed frame as the next one. Its length stays the same.
    pub(crate) fn number_again(&mut self, framed: &mut [u8], duration: Duration) {
        match self {
            Self::Ogg(pages) => pages.number_again(framed),
            Self::Matroska(clusters) => clusters.number_again(framed, duration),
        }
    }
}
