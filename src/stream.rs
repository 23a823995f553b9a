//! Files, as values to read: [`Stream`] (`Read + Seek + Send + Sync`), and [`StreamHandle`] for use from other threads.
//!
//! Both are the same types for every [`Source`]: they keep the position and the result of the last read, and ask the
//! source for everything else.

mod cursor;
mod handle;
mod open;
mod open_source;
mod reading;
mod starvation;

pub use self::handle::StreamHandle;
pub use self::open::open;
pub use self::reading::Stream;
pub use crate::phase::Phase;
pub use crate::source::progress::{Progress, Starving};
pub use crate::source::{Pending, Source, StreamStats, TryRead};
pub use crate::watch::Watch;
