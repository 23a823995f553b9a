//! `MediaSource` of symphonia, in its versions 0.6 and 0.5, for everything that windway lets decoders read.

use crate::{Radio, Stream};

/// The trait has had the same methods in all versions.
macro_rules! impl_media_source {
    ($symphonia_core:ident, $feature:literal) => {
        #[cfg(feature = $feature)]
        impl $symphonia_core::io::MediaSource for Stream {
            fn is_seekable(&self) -> bool {
                Stream::is_seekable(self)
            }

            fn byte_len(&self) -> Option<u64> {
                self.len()
            }
        }

        #[cfg(feature = $feature)]
        impl $symphonia_core::io::MediaSource for Radio {
            fn is_seekable(&self) -> bool {
                false
            }

            fn byte_len(&self) -> Option<u64> {
                None
            }
        }

        /// Lets a decoder borrow the radio up to the next discontinuity: see
        /// [`OnDiscontinuity`](crate::config::OnDiscontinuity).
        #[cfg(feature = $feature)]
        impl $symphonia_core::io::MediaSource for &mut Radio {
            fn is_seekable(&self) -> bool {
                false
            }

            fn byte_len(&self) -> Option<u64> {
                None
            }
        }

        #[cfg(all(feature = $feature, feature = "hls"))]
        impl $symphonia_core::io::MediaSource for crate::hls::Section {
            fn is_seekable(&self) -> bool {
                false
            }

            fn byte_len(&self) -> Option<u64> {
                None
            }
        }
    };
}

impl_media_source!(symphonia_core, "symphonia");
impl_media_source!(symphonia_core_0_5, "symphonia-0_5");

/// symphonia requires `Seek` of every source. A section of HLS is read in one direction only; to seek, call
/// [`HlsHandle::seek`](crate::hls::HlsHandle::seek).
#[cfg(feature = "hls")]
impl std::io::Seek for crate::hls::Section {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        match to {
            std::io::SeekFrom::Current(0) => Ok(self.position()),
            _ => Err(std::io::Error::new(
                std::io::ErrorKind::Unsupported,
                "a section of HLS is read in one direction",
            )),
        }
    }
}
