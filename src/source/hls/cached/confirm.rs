//! Takes a playlist that confirms a stored one, or not.

use std::sync::Arc;

use url::Url;

use super::super::playlist::{Context, Playlist};
use super::super::shared::Shared;
use super::super::state::Confirmation;
use super::store::Kept;
use crate::client::ResponseHead;
use crate::client::representation::changed;
use crate::downloader::{Flow, Outcome, Sink};
use crate::error::Error;
use crate::source::hls::ladder::levels::Ladder;
use crate::source::hls::peer::requests::{MOST_PLAYLIST, collect, final_url, gunzip, outcome_error, policy};
use crate::source::stored::SentRequest;

/// Takes a playlist that confirms a stored one, or not.
pub(crate) struct ConfirmSink {
    shared: Arc<Shared>,
    url: Url,
    sent: SentRequest,
    head: Option<(ResponseHead, Url)>,
    bytes: Vec<u8>,
}

impl ConfirmSink {
    pub(crate) fn new(shared: Arc<Shared>, url: Url) -> Self {
        Self { shared, url, sent: SentRequest::default(), head: None, bytes: Vec::new() }
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn set_sent_request(&mut self, sent: SentRequest) {
        self.sent = sent;
    }

    pub(crate) fn fail(&self, error: Error) {
        self.shared.change(|state| state.handle_unconfirmed(error));
    }

    /// What the playlist means for the presentation.
    fn look(&mut self) -> Result<Confirmation, Error> {
        let text = gunzip(std::mem::take(&mut self.bytes))?;
        let Some(((head, from), store)) = self.head.as_ref().zip(self.shared.store.as_ref()) else {
            return Err(Error::cancelled(crate::cancel::CancelReason::Peer));
        };
        // A stored playlist has no sender: what this one names is held to the address that it came from.
        self.shared.note_peer(head.peer());
        // First: a network may show its login page in place of a playlist, which says nothing of the presentation.
        let context = Context { url: from, variables: self.shared.variables(), previous: None };
        let list = Playlist::parse_in(&text, context)?;
        if store.keep_list((&self.url, from), &text, head, &self.sent) == Kept::Changed {
            return Ok(Confirmation::Changed(changed(head, "playlist")));
        }
        Ok(match list {
            Playlist::Media(list) => Confirmation::Media(Box::new(list), from.clone()),
            Playlist::Multivariant(list) => {
                let language = self.shared.config.language.as_deref();
                Confirmation::Multivariant(Ladder::new(&list, from, policy(&self.shared), language)?)
            }
        })
    }
}

impl Sink for ConfirmSink {
    fn head(&mut self, head: &ResponseHead) -> Result<Flow, Error> {
        self.head = Some((head.clone(), final_url(&self.shared, head, &self.url)?));
        Ok(Flow::Stream)
    }

    fn write(&mut self, _: u64, bytes: &[u8]) -> Result<(), Error> {
        collect(&mut self.bytes, bytes, MOST_PLAYLIST)
    }

    fn finish(mut self: Box<Self>, outcome: Outcome) {
        match outcome_error(outcome).map_or_else(|| self.look(), Err) {
            Ok(confirmation) => drop(self.shared.change(|state| state.handle_confirmation(confirmation))),
            Err(error) => self.fail(error),
        }
    }
}
