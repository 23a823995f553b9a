//! One HTTP exchange. Knows nothing of scheduling.

mod range;

pub use range::ByteRange;
