//! The server's unidirectional streams (RFC 9114, section 6.2): control stream, QPACK streams, and those that are ignored.

use super::code::{Code, Violation};
use super::frame::{self, Frame, FrameReader, Place, integer, put_frame, put_integer};

/// Stream types: RFC 9114, section 6.2 and RFC 9204, section 4.2.
pub(crate) const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const QPACK_ENCODER: u64 = 0x2;
const QPACK_DECODER: u64 = 0x3;

/// SETTINGS_MAX_FIELD_SECTION_SIZE.
const MAX_FIELD_SECTION_SIZE: u64 = 0x6;

/// Most settings of one frame. Nine are registered.
const MAX_SETTINGS: usize = 128;

/// The beginning of this client's control stream: its type and its SETTINGS. The table capacity and the number of blocked
/// streams are 0 by default (RFC 9204, section 5), and push is off until it is allowed (RFC 9114, section 7.2.7).
pub(crate) fn opening(max_head: usize) -> Vec<u8> {
    let (mut out, mut settings) = (Vec::new(), Vec::new());
    put_integer(&mut settings, MAX_FIELD_SECTION_SIZE);
    put_integer(&mut settings, max_head as u64);
    put_integer(&mut out, CONTROL);
    put_frame(&mut out, frame::SETTINGS, &settings);
    out
}

/// What the control stream says about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The server processes no requests on streams with this id or a higher one (RFC 9114, section 5.2).
    GoAway(u64),
    /// The rest of the stream is of no interest: stop reading it.
    Ignored,
}

/// State that the server's unidirectional streams share.
#[derive(Debug, Default)]
pub(crate) struct Control {
    has_control: bool,
    has_encoder: bool,
    has_decoder: bool,
    has_settings: bool,
    /// Id of the last GOAWAY. Only shrinks.
    goaway: Option<u64>,
}

/// One of the server's unidirectional streams.
#[derive(Debug)]
pub(crate) enum UniStream {
    /// Its type, as far as it has arrived.
    Unknown(Vec<u8>),
    Control(FrameReader),
    Encoder,
    /// True within the id of a cancelled stream.
    Decoder(bool),
    Ignored,
}

impl Default for UniStream {
    fn default() -> Self {
        Self::Unknown(Vec::new())
    }
}

impl Control {
    /// Reads `input` of `stream`, which continues its last input. All of it is used.
    pub(crate) fn handle_bytes(
        &mut self,
        stream: &mut UniStream,
        mut input: &[u8],
    ) -> Result<Option<Notice>, Violation> {
        let mut notice = None;
        while let UniStream::Unknown(kind) = stream {
            let Some((first, rest)) = input.split_first() else { return Ok(None) };
            kind.push(*first);
            input = rest;
            if let Some((kind, _)) = integer(kind) {
                *stream = self.begin(kind)?;
            }
        }
        match stream {
            UniStream::Control(frames) => loop {
                let (used, frame) = frames.next(input)?;
                input = &input[used..];
                match frame {
                    // Of several GOAWAY frames the last one counts: ids only shrink.
                    Some(frame) => notice = self.handle_frame(&frame)?.or(notice),
                    None => break,
                }
            },
            UniStream::Encoder => check_encoder(input)?,
            UniStream::Decoder(is_in_id) => check_decoder(is_in_id, input)?,
            UniStream::Ignored => notice = Some(Notice::Ignored),
            UniStream::Unknown(_) => {}
        }
        Ok(notice)
    }

    /// Records that `stream` has ended or was reset.
    pub(crate) fn handle_end(&self, stream: &UniStream) -> Result<(), Violation> {
        match stream {
            // RFC 9114, section 6.2.1, and RFC 9204, section 4.2: these stay open as long as the connection.
            UniStream::Control(_) | UniStream::Encoder | UniStream::Decoder(_) => Err(Violation::new(
                Code::CLOSED_CRITICAL_STREAM,
                "the server closed a stream that must stay open",
            )),
            UniStream::Unknown(_) | UniStream::Ignored => Ok(()),
        }
    }

    fn begin(&mut self, kind: u64) -> Result<UniStream, Violation> {
        let (is_second, stream) = match kind {
            CONTROL => (
                std::mem::replace(&mut self.has_control, true),
                UniStream::Control(FrameReader::new(Place::Control)),
            ),
            QPACK_ENCODER => (std::mem::replace(&mut self.has_encoder, true), UniStream::Encoder),
            QPACK_DECODER => (std::mem::replace(&mut self.has_decoder, true), UniStream::Decoder(false)),
            // RFC 9114, section 4.6: no push ID was allowed.
            PUSH => return Err(Violation::new(Code::ID_ERROR, "the server pushes, which was not allowed")),
            // RFC 9114, sections 6.2 and 9: unknown types are no error.
            _ => (false, UniStream::Ignored),
        };
        // RFC 9114, section 6.2.1, and RFC 9204, section 4.2: there is at most one of each kind.
        if is_second {
            return Err(Violation::new(
                Code::STREAM_CREATION_ERROR,
                "the server opened a second stream of a kind",
            ));
        }
        Ok(stream)
    }

    fn handle_frame(&mut self, frame: &Frame) -> Result<Option<Notice>, Violation> {
        match frame {
            // RFC 9114, section 7.2.4: SETTINGS is the first frame, and the only one.
            Frame::Settings(_) if self.has_settings => {
                Err(Violation::new(Code::FRAME_UNEXPECTED, "the server sent its settings twice"))
            }
            Frame::Settings(payload) => {
                check_settings(payload)?;
                self.has_settings = true;
                Ok(None)
            }
            _ if !self.has_settings => {
                Err(Violation::new(Code::MISSING_SETTINGS, "the server's first frame is not SETTINGS"))
            }
            Frame::GoAway(payload) => self.handle_goaway(payload).map(Some),
            // The reader of a control stream returns no others.
            Frame::Data(_) | Frame::Headers(_) => Ok(None),
        }
    }

    fn handle_goaway(&mut self, payload: &[u8]) -> Result<Notice, Violation> {
        let Some((id, _)) = integer(payload).filter(|(_, used)| *used == payload.len()) else {
            return Err(Violation::new(Code::FRAME_ERROR, "a GOAWAY frame has the wrong length"));
        };
        // RFC 9114, sections 5.2 and 7.2.6: the id is one of a request stream, and never grows. RFC 9000, section 2.1: the two lower
        // bits of such an id are 0.
        if id % 4 != 0 || self.goaway.is_some_and(|before| id > before) {
            return Err(Violation::new(Code::ID_ERROR, "a GOAWAY frame has an invalid stream id"));
        }
        self.goaway = Some(id);
        Ok(Notice::GoAway(id))
    }
}

/// Checks SETTINGS. None of the settings changes what this client sends: its heads are small, and it has no dynamic table.
fn check_settings(payload: &[u8]) -> Result<(), Violation> {
    let (mut rest, mut seen) = (payload, Vec::new());
    while !rest.is_empty() {
        let pair = integer(rest).and_then(|(id, used)| {
            let (_, len) = integer(&rest[used..])?;
            Some((id, used + len))
        });
        let Some((id, used)) = pair else {
            return Err(Violation::new(Code::FRAME_ERROR, "a SETTINGS frame ends in a setting"));
        };
        rest = &rest[used..];
        // RFC 9114, sections 7.2.4 and 7.2.4.1: no setting twice, and none of HTTP/2.
        if seen.contains(&id) || matches!(id, 0x0 | 0x2..=0x5) {
            return Err(Violation::new(Code::SETTINGS_ERROR, "a setting is reserved, or sent twice"));
        }
        if seen.len() == MAX_SETTINGS {
            return Err(Violation::new(Code::EXCESSIVE_LOAD, "the server sent too many settings"));
        }
        seen.push(id);
    }
    Ok(())
}

/// Checks encoder instructions (RFC 9204, section 4.3). With a capacity of 0 nothing can be inserted; only Set Dynamic Table
/// Capacity with 0 is allowed.
fn check_encoder(instructions: &[u8]) -> Result<(), Violation> {
    // RFC 9204, section 4.3.1: a table without capacity allows one instruction, which sets its capacity to 0.
    let is_fine = instructions.iter().all(|byte| *byte == 0b0010_0000);
    let why = "the server uses the dynamic table, which has no capacity";
    if is_fine { Ok(()) } else { Err(Violation::new(Code::QPACK_ENCODER_STREAM_ERROR, why)) }
}

/// Checks decoder instructions (RFC 9204, section 4.4). `is_in_id`: the input begins in the id of a cancelled stream.
fn check_decoder(is_in_id: &mut bool, instructions: &[u8]) -> Result<(), Violation> {
    for byte in instructions {
        *is_in_id = match (*is_in_id, byte) {
            (true, _) => byte & 0x80 != 0,
            // Section 4.4.2: Stream Cancellation, by the id of the stream. An id that does not fit into 6 bits leaves them all ones,
            // and goes on in the next bytes, of which the last one has no upper bit (RFC 7541, section 5.1).
            (false, 0b0100_0000..=0b0111_1111) => byte & 0x3f == 0x3f,
            // This client inserts nothing and refers to nothing, so the server can acknowledge nothing.
            _ => {
                let why = "the server acknowledges table entries that were never sent";
                return Err(Violation::new(Code::QPACK_DECODER_STREAM_ERROR, why));
            }
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(kind: u64, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_integer(&mut bytes, kind);
        bytes.extend(content);
        bytes
    }

    fn frames(frames: &[(u64, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frames.iter().for_each(|(kind, payload)| put_frame(&mut bytes, *kind, payload));
        stream(CONTROL, &bytes)
    }

    fn read(bytes: &[u8]) -> Result<Option<Notice>, Violation> {
        Control::default().handle_bytes(&mut UniStream::default(), bytes)
    }

    fn code(bytes: &[u8]) -> Option<Code> {
        read(bytes).err().map(|violation| violation.code)
    }

    #[test]
    fn what_this_client_sends_is_what_a_peer_may_send() {
        assert_eq!(read(&opening(65536)), Ok(None));
    }

    #[test]
    fn settings_come_first_and_once() {
        assert_eq!(code(&frames(&[(frame::GOAWAY, &[0])])), Some(Code::MISSING_SETTINGS));
        let twice = frames(&[(frame::SETTINGS, &[]), (frame::SETTINGS, &[])]);
        assert_eq!(code(&twice), Some(Code::FRAME_UNEXPECTED));
        // A frame of unknown type is not the first frame either; it is ignored (RFC 9114, section 9).
        assert_eq!(code(&frames(&[(0x21, &[1]), (frame::SETTINGS, &[])])), None);
    }

    #[test]
    fn wrong_settings_are_refused() {
        let code = |payload: &[u8]| code(&frames(&[(frame::SETTINGS, payload)]));
        assert_eq!(code(&[0x6, 0x1]), None);
        assert_eq!(code(&[0x6, 0x1, 0x6, 0x1]), Some(Code::SETTINGS_ERROR));
        assert_eq!(code(&[0x2, 0x0]), Some(Code::SETTINGS_ERROR));
        assert_eq!(code(&[0x6]), Some(Code::FRAME_ERROR));
    }

    #[test]
    fn a_goaway_never_takes_back_what_it_refused() {
        let of = |ids: &[u8]| {
            let mut all: Vec<(u64, &[u8])> = vec![(frame::SETTINGS, &[])];
            all.extend(ids.iter().map(|id| (frame::GOAWAY, std::slice::from_ref(id))));
            read(&frames(&all))
        };
        assert_eq!(of(&[8]), Ok(Some(Notice::GoAway(8))));
        assert_eq!(of(&[8, 4, 4]), Ok(Some(Notice::GoAway(4))));
        assert_eq!(of(&[4, 8]).unwrap_err().code, Code::ID_ERROR);
        assert_eq!(of(&[3]).unwrap_err().code, Code::ID_ERROR);
        let long = frames(&[(frame::SETTINGS, &[]), (frame::GOAWAY, &[0, 0])]);
        assert_eq!(code(&long), Some(Code::FRAME_ERROR));
    }

    #[test]
    fn each_critical_stream_is_there_once_and_stays_open() {
        for kind in [CONTROL, QPACK_ENCODER, QPACK_DECODER] {
            let mut control = Control::default();
            let mut first = UniStream::default();
            assert_eq!(control.handle_bytes(&mut first, &stream(kind, &[])), Ok(None));
            assert_eq!(control.handle_end(&first).unwrap_err().code, Code::CLOSED_CRITICAL_STREAM);
            let second = control.handle_bytes(&mut UniStream::default(), &stream(kind, &[]));
            assert_eq!(second.unwrap_err().code, Code::STREAM_CREATION_ERROR);
        }
        assert_eq!(code(&stream(PUSH, &[0])), Some(Code::ID_ERROR));
        assert_eq!(read(&stream(0x21, &[1, 2])), Ok(Some(Notice::Ignored)));
    }

    #[test]
    fn qpack_streams_carry_only_what_an_empty_table_allows() {
        assert_eq!(code(&stream(QPACK_ENCODER, &[0x20])), None);
        for instruction in [0x3f, 0xc0, 0x40, 0x00] {
            assert_eq!(code(&stream(QPACK_ENCODER, &[instruction])), Some(Code::QPACK_ENCODER_STREAM_ERROR));
        }
        assert_eq!(code(&stream(QPACK_DECODER, &[0x44, 0x7f, 0x80, 0x01, 0x40])), None);
        for instruction in [0x80, 0x01, 0x00] {
            let bytes = stream(QPACK_DECODER, &[instruction]);
            assert_eq!(code(&bytes), Some(Code::QPACK_DECODER_STREAM_ERROR));
        }
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter_and_nothing_panics(
            bytes in prop::collection::vec(prop_oneof![0..9u8, any::<u8>()], 0..60),
            size in 1..8usize,
        ) {
            let whole = read(&bytes).map(|_| ());
            let (mut control, mut stream) = (Control::default(), UniStream::default());
            let pieces = bytes.chunks(size).try_for_each(|piece| {
                control.handle_bytes(&mut stream, piece).map(|_| ())
            });
            prop_assert_eq!(whole, pieces);
        }
    }
}
