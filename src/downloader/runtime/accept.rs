//! A fetch is accepted: it gets its id, its token and its record, and becomes a job.

use std::sync::Arc;
use std::time::Instant;

use super::control::Control;
use super::core::Core;
use super::job::{Job, Target};
use super::message::Message;
use super::record::Record;
use super::retry_state::RetryState;
use crate::cancel::{CancelReason, CancelStage, CancelToken};
use crate::client::Request;
use crate::downloader::epoch::Epoch;
use crate::downloader::fetch::Fetch;
use crate::downloader::rules::Rules;
use crate::downloader::stats::PeerStats;
use crate::event::Event;
use crate::types::Priority;

impl Core {
    /// Accepts `fetch` of the peer that `peer_token` and `stats` are of. The caller passes the job on: to the peer's channel, or to
    /// the machine.
    pub(crate) fn accept(
        self: &Arc<Self>,
        peer_token: &CancelToken,
        stats: &Arc<PeerStats>,
        fetch: Fetch,
        target: Target,
    ) -> Box<Job> {
        let Fetch { request, priority, epoch, rules, handoff, is_still_urgent } = fetch;
        // An epoch of another peer is refused by `check_epoch`, with an error that the job passes on.
        let epoch = epoch.as_ref().filter(|epoch| epoch.is_of(peer_token)).map(Epoch::token);
        let token = epoch.unwrap_or(peer_token).child(CancelReason::Fetch);
        let (record, retry_state) = self.begin(stats, request, priority, rules);
        let (id, weak) = (record.id, Arc::downgrade(self));
        let on_cancel = token.on_cancel(CancelStage::Report, move |_| {
            if let Some(core) = weak.upgrade() {
                core.post(Message::Cancelled(id));
            }
        });
        let control = Arc::clone(&record.control);
        Box::new(Job {
            token,
            record,
            control,
            retry_state,
            target,
            handoff,
            is_still_urgent,
            body: None,
            pause: None,
            _on_cancel: on_cancel,
        })
    }

    /// Gives a fetch its id, and publishes that it is enqueued.
    pub(crate) fn begin(
        &self,
        stats: &Arc<PeerStats>,
        request: Request,
        priority: Priority,
        rules: Rules,
    ) -> (Record, RetryState) {
        let (now, all_stats) = (Instant::now(), [Arc::clone(stats), Arc::clone(&self.stats)]);
        let control = Control::new(self.next_request(), priority, rules.measured, all_stats, now);
        let record = Record::new(Arc::new(control), now);
        record.publish(|| {
            let (url, range) = (request.url().into(), request.byte_range());
            Event::Enqueued { request: record.id, url, range, priority }
        });
        let retry_state = RetryState::new(self.client.clone(), request, rules, self.config.max_retries);
        (record, retry_state)
    }
}
