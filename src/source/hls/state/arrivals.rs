//! What segments bring.

use super::State;
use super::slot::SlotPhase;
use crate::error::{Error, ErrorKind};
use crate::source::hls::demux::Output;
use crate::types::RequestId;

/// A segment that has begun may fill the buffer by this factor: some playlists have one segment of an hour.
const OVERFLOW: usize = 4;

impl State {
    pub(crate) fn handle_accepted(&mut self, slot: u64, request: RequestId) {
        if let Some(slot) = self.slot(slot) {
            slot.request = Some(request);
        }
    }

    /// Takes frames of a segment. Leaves `output` empty.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Refusal`] if the segment is not needed any more; [`ErrorKind::TooLarge`] if it fills the memory.
    pub(crate) fn handle_frames(&mut self, slot: u64, output: &mut Output) -> Result<(), Error> {
        let is_full = self.buffered_bytes() > self.config.buffer_bytes.saturating_mul(OVERFLOW);
        let Some(slot) = self.slot(slot) else {
            output.clear();
            return Err(Error::new(ErrorKind::Refusal, "the segment is not needed any more"));
        };
        if is_full {
            output.clear();
            return Err(Error::new(ErrorKind::TooLarge, "the segment is longer than the buffer may be"));
        }
        slot.output.data.append(&mut output.data);
        slot.output.frames.append(&mut output.frames);
        slot.output.head.append(&mut output.head);
        slot.tail.append(&mut output.tail);
        output.clear();
        self.commit();
        Ok(())
    }

    /// All frames of a segment have arrived.
    pub(crate) fn handle_segment_complete(&mut self, slot: u64) {
        if self.replacements.is(slot) {
            self.finish_replacement();
            return;
        }
        self.is_starting = false;
        if let Some(slot) = self.slot(slot) {
            slot.phase = SlotPhase::Complete;
            let mirror = slot.mirror;
            self.level_cap.handle_arrived(self.ladder.mirrors[mirror].level);
        }
        (self.skipped, self.outages) = (0, 0);
        self.commit();
    }
}
