//! Unidirectional streams: this client's control stream, and those of the server (RFC 9114, section 6.2).

use std::time::Instant;

use quinn_proto::{Dir, ReadError, StreamId, WriteError};

use super::state::{State, varint};
use crate::client::h3::code::Code;
use crate::client::h3::control::{self, Notice};

impl State {
    /// Opens this client's control stream (RFC 9114, section 6.2.1), once the server allows a stream.
    pub(super) fn open_control(&mut self) {
        if self.own_control.is_some() {
            return;
        }
        let Some(id) = self.quic.streams().open(Dir::Uni) else { return };
        self.own_control = Some((id, control::opening(self.max_head)));
        self.write_control();
    }

    /// Writes what is left of the client's control stream.
    pub(super) fn write_control(&mut self) {
        let Some((id, unwritten)) = &mut self.own_control else { return };
        while !unwritten.is_empty() {
            match self.quic.send_stream(*id).write(unwritten) {
                Ok(written) => drop(unwritten.drain(..written)),
                // RFC 9114, section 6.2: servers should allow a kilobyte at once.
                Err(WriteError::Blocked) => return,
                Err(error) => {
                    log::debug!("the settings were not sent: {error}");
                    unwritten.clear();
                }
            }
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
            // RFC 9114, section 6.2: reading a stream of unknown type is aborted with this code.
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
