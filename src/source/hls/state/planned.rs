//! What the state answers: to the downloader, and to readers.

use url::Url;

use super::needs::{Needs, ResourceKey};
use super::section::SectionInfo;
use crate::error::Error;
use crate::types::{ByteRange, Priority, RequestId};

/// What to fetch next.
#[derive(Debug)]
pub(crate) enum Planned {
    Playlist {
        variant: usize,
        url: Url,
    },
    Steering {
        url: Url,
    },
    /// A playlist that is stored, from the network.
    #[cfg(feature = "cache")]
    Confirm {
        url: Option<Url>,
    },
    /// A playlist that may be stored, from the cache.
    #[cfg(feature = "cache")]
    Stored {
        variant: usize,
        url: Url,
    },
    /// `list` is the playlist that names it, if that is known.
    Resource {
        key: ResourceKey,
        list: Option<Url>,
        priority: Priority,
    },
    Segment {
        id: u64,
        url: Url,
        range: Option<ByteRange>,
        needs: Box<Needs>,
        /// The playlist that names it.
        list: Url,
        priority: Priority,
    },
}

/// What to request in advance.
#[derive(Debug)]
pub(crate) enum Hinted {
    Map(ResourceKey),
    Part(Box<HintedPart>),
}

/// A part to request in advance.
#[derive(Debug)]
pub(crate) struct HintedPart {
    pub(crate) id: u64,
    pub(crate) url: Url,
    pub(crate) range: Option<ByteRange>,
    pub(crate) needs: Needs,
}

/// Result of a read.
#[derive(Debug)]
pub(crate) enum ReadResult {
    Bytes(usize),
    /// The end of the section.
    End,
    /// Nothing is there yet. This fetch, if any, should become urgent.
    Wait(Option<RequestId>),
    Failed(Error),
}

#[derive(Debug)]
pub(crate) enum SectionResult {
    Section(u64, SectionInfo),
    End,
    Wait(Option<RequestId>),
    Failed(Error),
}
