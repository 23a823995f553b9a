//! HTTP Live Streaming (draft-pantos-hls-rfc8216bis-22).

pub(crate) mod demux;
pub(crate) mod playlist;
