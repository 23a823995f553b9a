//! How a file is read, by what its responses have shown of its server, and which resource it is.
//!
//! ```text
//!   Opening ── 206 ──▶ Ranged ── changed, and no validator distinguishes its bytes ──▶ Unusable
//!      │  │              │  │ the whole, again and again
//!      │  └── refused ─▶ TriesWhole ── the whole ──▶ Sequential
//!      └── 200 ──────────────────────────────────────▲
//! ```

use super::pool::ServerPool;
use crate::client::ResponseHead;
use crate::client::representation::{Likeness, Representation};
use crate::safe_url::SafeUrl;

#[derive(Debug, Default)]
pub(crate) enum Mode {
    /// No response was accepted yet.
    #[default]
    Opening,
    /// It is fetched in pieces, anywhere.
    Ranged(Info),
    /// A range was refused with a status that may be about the range. A request for the whole is sent next, and decides.
    /// `None` if no response was accepted yet.
    TriesWhole(Option<Info>),
    /// It is fetched in one body from its start, because the server has no ranges.
    Sequential(Info),
    /// The file changed, and nothing distinguishes its old bytes from its new ones: no more are fetched. What is known of the
    /// server stays: a decoder that still reads stored bytes must not find that it can seek now, or can't any more.
    Unusable { info: Info, was_ranged: bool },
}

/// What the accepted responses have shown of the file.
#[derive(Clone, Debug)]
pub(crate) struct Info {
    /// Bytes in the file. Of a body without an announced length it is known once the body has ended.
    pub(crate) len: Option<u64>,
    /// The file has at least this many bytes: responses have promised them.
    pub(crate) promised: u64,
    /// Where redirects led last, unless a request there has failed since. Pieces are requested there first.
    pub(crate) target: Option<SafeUrl>,
    pub(crate) content_type: Option<String>,
    /// What all its bytes are of.
    pub(crate) representation: Representation,
    /// A range that does not begin at 0 was served. A refusal of another one is hardly about ranges then.
    pub(crate) has_served_range: bool,
    /// Every response so far has repeated the same strong validator: it alone proves that a piece belongs to the
    /// others. Else bytes have to be compared.
    pub(crate) has_validator: bool,
}

impl Mode {
    /// Takes in the first response.
    pub(crate) fn open(&mut self, head: &ResponseHead) {
        let info = Info::of(head);
        *self = match self {
            // RFC 9110, section 14.2: a server may ignore `Range`, and answers with the whole then.
            _ if !head.is_partial() => Self::Sequential(info),
            Self::TriesWhole(_) => Self::TriesWhole(Some(info)),
            _ => Self::Ranged(info),
        };
    }

    /// Forgets a response that was no media: the next one may be.
    pub(crate) fn reopen(&mut self) {
        *self = if self.tries_whole() { Self::TriesWhole(None) } else { Self::Opening };
    }

    /// A range was refused: the whole is requested next.
    pub(crate) fn try_whole(&mut self) {
        *self = match std::mem::take(self) {
            Self::Opening => Self::TriesWhole(None),
            Self::Ranged(info) => Self::TriesWhole(Some(info)),
            other => other,
        };
    }

    /// The whole was refused too, or a range was served.
    pub(crate) fn leave_whole(&mut self) {
        *self = match std::mem::take(self) {
            Self::TriesWhole(None) => Self::Opening,
            Self::TriesWhole(Some(info)) => Self::Ranged(info),
            other => other,
        };
    }

    /// The server sends the whole only.
    pub(crate) fn make_sequential(&mut self) {
        *self = match std::mem::take(self) {
            Self::Ranged(info) | Self::TriesWhole(Some(info)) => Self::Sequential(info),
            other => other,
        };
    }

    pub(crate) fn make_unusable(&mut self) {
        let was_ranged = self.is_ranged();
        *self = match std::mem::take(self) {
            Self::Ranged(info) | Self::TriesWhole(Some(info)) | Self::Sequential(info) => {
                Self::Unusable { info, was_ranged }
            }
            other => other,
        };
    }

    /// True if no response was accepted yet.
    pub(crate) fn is_opening(&self) -> bool {
        matches!(self, Self::Opening | Self::TriesWhole(None))
    }

    /// True if the server has served ranges, and has not stopped to.
    pub(crate) fn is_ranged(&self) -> bool {
        matches!(self, Self::Ranged(_) | Self::TriesWhole(Some(_)) | Self::Unusable { was_ranged: true, .. })
    }

    pub(crate) fn tries_whole(&self) -> bool {
        matches!(self, Self::TriesWhole(_))
    }

    pub(crate) fn is_sequential(&self) -> bool {
        matches!(self, Self::Sequential(_))
    }

    pub(crate) fn info(&self) -> Option<&Info> {
        match self {
            Self::Opening | Self::TriesWhole(None) => None,
            Self::Ranged(info)
            | Self::TriesWhole(Some(info))
            | Self::Sequential(info)
            | Self::Unusable { info, .. } => Some(info),
        }
    }

    pub(crate) fn info_mut(&mut self) -> Option<&mut Info> {
        match self {
            Self::Opening | Self::TriesWhole(None) => None,
            Self::Ranged(info)
            | Self::TriesWhole(Some(info))
            | Self::Sequential(info)
            | Self::Unusable { info, .. } => Some(info),
        }
    }

    pub(crate) fn len(&self) -> Option<u64> {
        self.info()?.len
    }
}

impl Info {
    pub(super) fn of(head: &ResponseHead) -> Self {
        let representation = Representation::of(head);
        Self {
            len: head.total(),
            promised: 0,
            target: None,
            has_served_range: false,
            content_type: head.content_type().map(str::to_owned),
            has_validator: representation.strong_validator().is_some(),
            representation,
        }
    }

    /// True if an answer beside the opening is of the same version of the file. Changes nothing: what the opening shows
    /// counts.
    pub(crate) fn is_of_same(&self, head: &ResponseHead, servers: &ServerPool) -> bool {
        let has_same_len = self.len.is_none() || self.len == head.total();
        has_same_len
            && match self.representation.compare(head) {
                Likeness::Confirmed => true,
                // No response has a validator. Then equal lengths are all there is to compare.
                Likeness::Unconfirmed => !self.has_validator,
                Likeness::OtherTag(tag) => servers.is_cleared(&tag),
                Likeness::Changed(_) | Likeness::HtmlPage => false,
            }
    }

    /// Takes in the length that a later response of the same representation contains.
    pub(crate) fn learn_total(&mut self, head: &ResponseHead) {
        self.representation.learn_total(head);
        self.len = self.len.or(head.total());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changed_is_as_seekable_as_it_was_before() {
        for (status, is_ranged) in [(206, true), (200, false)] {
            let mut mode = Mode::default();
            mode.open(&ResponseHead::for_tests(status, 0..100, Some(100)));
            mode.make_unusable();
            assert_eq!(mode.is_ranged(), is_ranged, "{status}");
        }
    }
}
