//! What is known of a station: its headers, its content type, and the first bytes of its audio.

use super::icy::RadioInfo;
use crate::client::ResponseHead;
use crate::media::{FirstBytes, MediaInfo};
use crate::safe_url::SafeUrl;

/// What the current connection, or the last one, shows of the station.
#[derive(Debug, Default)]
pub(crate) struct Description {
    /// `None` before the first response.
    pub(crate) info: Option<RadioInfo>,
    content_type: Option<String>,
    /// Position of the connection's first byte of audio.
    begins_at: u64,
    first: FirstBytes,
    /// What the first bytes showed. They were dropped with the radio.
    closed: Option<MediaInfo>,
}

impl Description {
    /// Describes the connection whose audio begins at `position`, with `audio`.
    pub(crate) fn of(head: &ResponseHead, info: RadioInfo, position: u64, audio: &[u8]) -> Self {
        let mut first = FirstBytes::default();
        first.add(0, audio);
        Self {
            info: Some(info),
            content_type: head.content_type().map(str::to_owned),
            begins_at: position,
            first,
            ..Self::default()
        }
    }

    /// Looks at audio of this connection.
    pub(crate) fn handle_audio(&mut self, position: u64, audio: &[u8]) {
        self.first.add(position - self.begins_at, audio);
    }

    pub(crate) fn media_info(&self, url: &SafeUrl) -> MediaInfo {
        self.closed.clone().unwrap_or_else(|| {
            MediaInfo::detect(self.content_type.as_deref(), url.expose(), self.first.as_slice())
        })
    }

    /// Keeps what the first bytes show, and drops them.
    pub(crate) fn close(&mut self, url: &SafeUrl) {
        self.closed = Some(self.media_info(url));
        self.first = FirstBytes::default();
    }
}
