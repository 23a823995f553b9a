//! Where playback should start (section 4.4.2.2).

use std::time::Duration;

use super::attributes::Attributes;
use super::error::PlaylistProblem;
use super::values::parse_signed_seconds;
use super::variables::Variables;

/// Where playback should start (`EXT-X-START`, section 4.4.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Start {
    /// Distance from the beginning, or from the end of the last segment.
    pub offset: Duration,
    /// The offset counts backwards from the end.
    pub is_from_end: bool,
    /// Samples of the segment before the offset should not be played.
    pub is_precise: bool,
}

pub(super) fn parse_start(text: &str, variables: &mut Variables) -> Result<Start, PlaylistProblem> {
    let attributes = Attributes::parse(text, variables)?;
    let (offset, is_from_end) = parse_signed_seconds(attributes.required("TIME-OFFSET")?)
        .ok_or(PlaylistProblem::InvalidValue("TIME-OFFSET"))?;
    Ok(Start { offset, is_from_end, is_precise: attributes.is_yes("PRECISE") })
}
