//! What segments bring.

use super::State;
use super::queued_segment::SegmentPhase;
use crate::error::{Error, ErrorKind};
use crate::source::hls::demux::Output;
use crate::types::RequestId;

/// A segment that has begun may fill the buffer by this factor: some playlists have one segment of an hour.
const OVERFLOW: usize = 4;

impl State {
    pub(crate) fn handle_accepted(&mut self, id: u64, request: RequestId) {
        if let Some(queued) = self.queued(id) {
            queued.request = Some(request);
        }
    }

    /// Takes frames of a segment. Leaves `output` empty.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refusal`] if the segment is not needed any more; [`ErrorKind::TooLarge`] if it fills the memory.
    pub(crate) fn handle_frames(&mut self, id: u64, output: &mut Output) -> Result<(), Error> {
        let is_full = self.buffered_bytes() > self.config.buffer_bytes.saturating_mul(OVERFLOW);
        let Some(queued) = self.queued(id) else {
            output.clear();
            return Err(Error::new(ErrorKind::Refusal, "the segment is not needed any more"));
        };
        if is_full {
            output.clear();
            return Err(Error::new(ErrorKind::TooLarge, "the segment is longer than the buffer may be"));
        }
        queued.take(output);
        #[cfg(feature = "cache")]
        {
            let variant = queued.variant;
            self.note_taken(variant);
        }
        // From the cache no other bytes come.
        self.note_arrival(false);
        self.commit();
        self.limit_kept();
        Ok(())
    }

    /// All frames of a segment have arrived.
    pub(crate) fn handle_segment_complete(&mut self, id: u64) {
        self.handle_size(id);
        self.keep_segment(id);
        if self.replacements.is(id) {
            self.finish_replacement();
            return;
        }
        self.is_starting = false;
        if let Some(queued) = self.queued(id) {
            queued.phase = SegmentPhase::Complete;
            let variant = queued.variant;
            self.level_cap.handle_arrived(self.ladder.variants[variant].level);
        }
        // A segment that arrives shows that the network and the server work.
        (self.recovery.skipped, self.recovery.is_out) = (0, false);
        (self.recovery.last_skip, self.recovery.error) = (None, None);
        self.lift_exclusions();
        self.commit();
        self.limit_kept();
    }
}
