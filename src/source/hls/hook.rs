//! How an application changes single requests of HLS. Files and stations use the same.

pub use crate::hook::{Hook, RequestHook, RequestKind};
