//! The name of one reader of a file.

use crate::source::wait::WaitReader;

/// Names one reader of a file, from `State::add_reader` to `State::remove_reader`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReaderId {
    /// Key of what the plan sees of it.
    pub(super) view: usize,
    /// Its interrupts.
    pub(super) waits: WaitReader,
}
