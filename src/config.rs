//! All options, with their defaults and effects.
//!
//! The options are plain structs. Each field has a setter of the same name, so one expression makes a configuration; the
//! fields can also be changed in place. Options are checked once, when they are first used, and the error names the wrong
//! field. Durations of more than one year are reduced to one year.
//!
//! ```
//! use std::time::Duration;
//! use windway::config::ReadAhead;
//! use windway::{ClientConfig, DownloaderConfig, FileConfig};
//!
//! let client = ClientConfig::new().user_agent("my-player/1.0").connect_timeout(Duration::from_secs(3));
//! let downloader = DownloaderConfig::new().client(client).max_concurrent(4);
//! let file = FileConfig::new().read_ahead(ReadAhead::Bytes(4 << 20)).read_timeout(None);
//! # assert_eq!((downloader.max_concurrent, file.read_timeout), (4, None));
//! ```

#[macro_use]
pub(crate) mod setters;

mod auth;
mod client;
mod client_certificate;
mod cookies;
mod downloader;
mod file;
mod hang_policy;
#[cfg(feature = "http3")]
mod http3;
mod limits;
mod radio;
mod read_ahead;
mod roots;
mod shown;
mod storage;

pub use crate::hook::{Hook, RequestHook, RequestKind};

pub use auth::Auth;
pub use client::ClientConfig;
pub(crate) use client::DEFAULT_USER_AGENT;
pub use client_certificate::ClientCertificate;
pub use cookies::{CookieJar, Cookies};
pub use downloader::DownloaderConfig;
pub use file::FileConfig;
pub use hang_policy::{HangPolicy, OnHang};
#[cfg(feature = "http3")]
pub use http3::{EarlyData, Http3};
pub use radio::{AfterPause, OnDiscontinuity, RadioConfig};
pub use read_ahead::ReadAhead;
pub use roots::Roots;
pub use storage::StorageConfig;
