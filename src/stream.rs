//! Files, as values to read: [`Stream`] (`Read + Seek + Send + Sync`), and [`StreamHandle`] for use from other threads.
//!
//! Both are the same types for every [`Source`]: they keep the position and the result of the last read, and ask the
//! source for everything else.

mod cursor;
mod handle;
mod open;
mod open_source;
mod progress;
mod reading;
mod starvation;

pub use self::handle::StreamHandle;
pub use self::open::open;
pub use self::progress::{Progress, Watch};
pub use self::reading::Stream;
pub use self::starvation::Starving;
pub use crate::phase::Phase;
pub use crate::source::{Pending, Source, StreamStats, TryRead};
