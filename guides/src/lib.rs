//! Compiles the programs of windway's guides: `cargo test` here. The guides that need no other crate are compiled by windway's own
//! documentation tests.

#[doc = include_str!("../../src/guide/audio_callback.md")]
pub mod audio_callback {}
#[doc = include_str!("../../src/guide/c_decoder.md")]
pub mod c_decoder {}
#[doc = include_str!("../../src/guide/hls_symphonia.md")]
pub mod hls_symphonia {}
#[doc = include_str!("../../src/guide/kira.md")]
pub mod kira {}
#[doc = include_str!("../../src/guide/rodio.md")]
pub mod rodio {}
#[doc = include_str!("../../src/guide/symphonia.md")]
pub mod symphonia {}
