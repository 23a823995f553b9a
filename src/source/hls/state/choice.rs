//! What chooses the level: windway, the application, or nothing.

use std::fmt;

use crate::abr::{Abr, Hybrid};
use crate::foreign::Foreign;
use crate::source::hls::config::Quality;

/// What chooses the level. `None` if nothing does: the level is fixed, or the rule of the application has panicked.
pub(super) struct Choice(Option<Foreign<Box<dyn Abr>>>);

impl Choice {
    pub(super) fn new(quality: &Quality) -> Self {
        Self(match quality {
            Quality::Auto(config) => Some(Foreign::new(Box::new(Hybrid::new(config.clone())))),
            // A panic is logged.
            Quality::Custom(make) => {
                Foreign::new(make).call("MakeAbr", |make| make.make()).ok().map(Foreign::new)
            }
            Quality::Fixed(_) => None,
        })
    }

    pub(super) fn has_rule(&self) -> bool {
        self.0.is_some()
    }

    /// Asks the rule. `None` if there is none. One that panics is not asked again, because its state may be broken: the level
    /// stays as it is.
    pub(super) fn ask<T>(&mut self, name: &str, ask: impl FnOnce(&mut dyn Abr) -> T) -> Option<T> {
        let answer = self.0.as_mut()?.call(name, |rule| ask(rule.as_mut()));
        if answer.is_err() {
            self.0 = None;
        }
        answer.ok()
    }
}

impl fmt::Debug for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.has_rule() { "Auto" } else { "Fixed" })
    }
}
