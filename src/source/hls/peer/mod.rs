//! What runs the decisions of the state: requests, the sinks that take their answers, and the threads of a live stream.

pub(crate) mod fetches;
pub(crate) mod hint;
pub(crate) mod live;
pub(crate) mod requests;
mod segment_sink;
mod sinks;
