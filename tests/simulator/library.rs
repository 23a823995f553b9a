//! The modules of the library that decide what is fetched, compiled into a test or bench. They are private, pure, and import
//! nothing but what is declared here. A root that declares this module has to import all of it (`use library::*`), because they name
//! each other from the root of their crate.

#[path = "../../src/source/file/alignment.rs"]
pub mod alignment;
#[path = "../../src/source/file/bisection.rs"]
pub mod bisection;
#[path = "../../src/source/file/network.rs"]
pub mod network;
#[path = "../../src/source/file/plan.rs"]
pub mod plan;
#[path = "../../src/source/prefetch.rs"]
pub mod prefetch;
#[path = "../../src/storage/ranges.rs"]
pub mod ranges;
#[path = "../../src/source/file/reader_view.rs"]
pub mod reader_view;

pub mod config {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum ReadAhead {
        Bytes(u64),
        Whole,
    }
}
pub mod source {
    pub(crate) use super::prefetch;
}
pub mod types {
    pub use windway::Priority;
}
pub mod storage {
    pub(crate) use super::ranges::RangeSet;
}
