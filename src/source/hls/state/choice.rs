//! What chooses the level: windway, the application, or nothing.

use std::fmt;

use crate::abr::{Abr, Hybrid};
use crate::source::hls::config::Quality;

/// What chooses the level.
pub(super) struct Choice(pub(super) Option<Box<dyn Abr>>);

impl Choice {
    pub(super) fn new(quality: &Quality) -> Self {
        Self(match quality {
            Quality::Auto(config) => Some(Box::new(Hybrid::new(config.clone()))),
            Quality::Custom(make) => Some(make.make()),
            Quality::Fixed(_) => None,
        })
    }
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Auto" } else { "Fixed" })
    }
}
