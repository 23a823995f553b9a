//! What segments bring.

use std::time::Duration;

use super::State;
use super::slot::SlotPhase;
use crate::source::hls::demux::Output;
use crate::types::RequestId;

impl State {
    pub(in super::super) fn handle_accepted(&mut self, slot: u64, request: RequestId) {
        if let Some(slot) = self.slot(slot) {
            slot.request = Some(request);
        }
    }

    /// Takes frames of a segment. Leaves `output` empty. False if the segment is not needed any more.
    pub(in super::super) fn handle_frames(&mut self, slot: u64, output: &mut Output) -> bool {
        let slot = self.slot(slot);
        let is_needed = slot.is_some();
        if let Some(slot) = slot {
            slot.output.data.append(&mut output.data);
            slot.output.frames.append(&mut output.frames);
            slot.output.head.append(&mut output.head);
            slot.tail.append(&mut output.tail);
        }
        output.clear();
        self.commit();
        is_needed
    }

    /// All frames of a segment have come.
    pub(in super::super) fn handle_segment_complete(&mut self, slot: u64) {
        if let Some(slot) = self.slot(slot) {
            slot.phase = SlotPhase::Complete;
        }
        (self.skipped, self.outages) = (0, 0);
        self.commit();
    }

    /// A transfer has ended.
    pub(in super::super) fn handle_transfer(&mut self, bytes: u64, duration: Duration, ttfb: Duration) {
        self.estimator.handle_transfer(bytes, duration, ttfb);
    }
}
