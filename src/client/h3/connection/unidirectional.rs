//! Unidirectional streams: this client's control stream, and those of the server (RFC 9114, section 6.2).

use std::time::Instant;

use quinn_proto::{Dir, ReadError, StreamId};

use super::state::{State, varint};
use crate::client::h3::code::Code;
use crate::client::h3::control::{self, Notice};

impl State {
    /// Opens this client's control stream (RFC 9114, section 6.2.1), once the server allows a stream.
    pub(super) fn open_control(&mut self) {
        if self.has_control {
            return;
        }
        let Some(id) = self.quic.streams().open(Dir::Uni) else { return };
        self.has_control = true;
        // A dozen bytes: each server allows more (section 6.2). A smaller window makes them come late, which is harmless.
        if let Err(error) = self.quic.send_stream(id).write(&control::opening(self.max_head)) {
            log::debug!("the settings were not sent: {error}");
        }
    }

    pub(super) fn read_unidirectional(&mut self, id: StreamId, now: Instant) {
        let Some(mut stream) = self.unidirectional.remove(&id) else { return };
        let mut receiver = self.quic.recv_stream(id);
        let Ok(mut chunks) = receiver.read(true) else { return };
        let mut notices = Vec::new();
        let result = loop {
            match chunks.next(usize::MAX) {
                Ok(Some(chunk)) => match self.control.handle_bytes(&mut stream, &chunk.bytes) {
                    Ok(notice) => notices.extend(notice),
                    Err(violation) => break Err(violation),
                },
                Err(ReadError::Blocked) => break Ok(true),
                Ok(None) | Err(ReadError::Reset(_)) => {
                    break self.control.handle_end(&stream).map(|()| false);
                }
            }
        };
        // `pump` sends the credit that this gives.
        let _ = chunks.finalize();
        match result {
            Ok(true) if !notices.contains(&Notice::Ignored) => drop(self.unidirectional.insert(id, stream)),
            // The result does not matter: the stream may be complete already.
            Ok(true) => drop(receiver.stop(varint(Code::STREAM_CREATION_ERROR))),
            Ok(false) => {}
            Err(violation) => self.handle_violation(violation, now),
        }
        for notice in notices {
            if let Notice::GoAway(first) = notice {
                self.handle_goaway(first, now);
            }
        }
    }
}
