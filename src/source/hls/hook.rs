//! What an application may say about single requests of HLS. Files and stations use the same.

pub use crate::hook::{Hook, RequestHook, RequestKind};
