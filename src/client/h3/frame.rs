//! Frames of HTTP/3 (RFC 9114, section 7) and the integers in them (RFC 9000, section 16). Takes bytes in pieces of any size.

use std::ops::Range;

use super::code::{Code, Violation};

/// Largest payload of SETTINGS and GOAWAY that is accepted, in bytes. A hundred settings fit in.
const MAX_CONTROL: usize = 2048;

/// Largest integer that can be sent (RFC 9000, section 16).
pub(crate) const MAX_INTEGER: u64 = (1 << 62) - 1;

/// Appends `value`, which is at most [`MAX_INTEGER`], as a variable-length integer.
pub(crate) fn put_integer(out: &mut Vec<u8>, value: u64) {
    // RFC 9000, section 16: the upper two bits of the first byte give the length, 1, 2, 4 or 8 bytes.
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend((value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend((value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend((value.min(MAX_INTEGER) | (0b11 << 62)).to_be_bytes()),
    }
}

/// The variable-length integer at the beginning of `bytes`, and its length. `None` if it is not complete.
pub(crate) fn integer(bytes: &[u8]) -> Option<(u64, usize)> {
    let len = 1 << (bytes.first()? >> 6);
    let mut value = u64::from(bytes[0] & 0x3f);
    for byte in bytes.get(1..len)? {
        value = value << 8 | u64::from(*byte);
    }
    Some((value, len))
}

/// Appends a frame.
pub(crate) fn put_frame(out: &mut Vec<u8>, kind: u64, payload: &[u8]) {
    put_integer(out, kind);
    put_integer(out, payload.len() as u64);
    out.extend(payload);
}

pub(crate) const DATA: u64 = 0x0;
pub(crate) const HEADERS: u64 = 0x1;
const CANCEL_PUSH: u64 = 0x3;
pub(crate) const SETTINGS: u64 = 0x4;
const PUSH_PROMISE: u64 = 0x5;
pub(crate) const GOAWAY: u64 = 0x7;
const MAX_PUSH_ID: u64 = 0xd;

/// Which stream frames are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A request stream. A HEADERS frame may have at most this many bytes.
    Request(usize),
    /// The control stream of the server.
    Control,
}

/// A frame that a client may receive, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A piece of a DATA frame: this range of the input.
    Data(Range<usize>),
    Headers(Vec<u8>),
    Settings(Vec<u8>),
    GoAway(Vec<u8>),
}

impl Frame {
    fn of(kind: u64, payload: Vec<u8>) -> Self {
        match kind {
            HEADERS => Self::Headers(payload),
            SETTINGS => Self::Settings(payload),
            _ => Self::GoAway(payload),
        }
    }
}

/// Finds the frames of one stream.
#[derive(Debug)]
pub(crate) struct FrameReader {
    place: Place,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Type and length of the next frame, as far as they have arrived.
    Header(Vec<u8>),
    /// Number of bytes of DATA that are missing.
    Data(u64),
    /// A frame of this type that is returned in one piece.
    Collect { kind: u64, len: usize, payload: Vec<u8> },
    /// Number of bytes that are missing of a frame of unknown type.
    Skip(u64),
}

impl FrameReader {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, state: State::Header(Vec::new()) }
    }

    /// Reads from `input`, which continues the input of the last call. Returns how many bytes it has used, and the frame that
    /// they complete. Without a frame all of `input` is used.
    pub(crate) fn next(&mut self, input: &[u8]) -> Result<(usize, Option<Frame>), Violation> {
        let mut used = 0;
        loop {
            match &mut self.state {
                State::Header(header) => {
                    let Some(byte) = input.get(used) else { return Ok((used, None)) };
                    header.push(*byte);
                    used += 1;
                    if let Some((kind, len)) = kind_and_len(header) {
                        self.state = self.begin(kind, len)?;
                    }
                }
                State::Data(0) | State::Skip(0) => self.state = State::Header(Vec::new()),
                State::Data(left) => {
                    let len = shorter(*left, input.len() - used);
                    *left -= len as u64;
                    let data = (len > 0).then_some(Frame::Data(used..used + len));
                    return Ok((used + len, data));
                }
                State::Skip(left) => {
                    let len = shorter(*left, input.len() - used);
                    *left -= len as u64;
                    used += len;
                    if len == 0 {
                        return Ok((used, None));
                    }
                }
                State::Collect { kind, len, payload } => {
                    let more = (*len - payload.len()).min(input.len() - used);
                    payload.extend(&input[used..used + more]);
                    used += more;
                    let is_complete = payload.len() == *len;
                    let frame = is_complete.then(|| Frame::of(*kind, std::mem::take(payload)));
                    if is_complete {
                        self.state = State::Header(Vec::new());
                    }
                    return Ok((used, frame));
                }
            }
        }
    }

    /// Checks that the stream may end here. RFC 9114, section 7.1: not in a frame.
    pub(crate) fn finish(&self) -> Result<(), Violation> {
        match &self.state {
            State::Header(header) if header.is_empty() => Ok(()),
            State::Data(0) | State::Skip(0) => Ok(()),
            _ => Err(Violation::new(Code::FRAME_ERROR, "the stream ended in a frame")),
        }
    }

    /// What follows the type and the length of a frame.
    fn begin(&self, kind: u64, len: u64) -> Result<State, Violation> {
        let unexpected = Violation::new(Code::FRAME_UNEXPECTED, "the frame is not allowed on this stream");
        let most = match (self.place, kind) {
            (Place::Request(_), DATA) => return Ok(State::Data(len)),
            (Place::Request(most), HEADERS) => most,
            (Place::Control, SETTINGS | GOAWAY) => MAX_CONTROL,
            // RFC 9114, sections 7.2.3 and 7.2.5: this client allows no push, so no push ID is valid.
            (Place::Control, CANCEL_PUSH) | (Place::Request(_), PUSH_PROMISE) => {
                return Err(Violation::new(Code::ID_ERROR, "the server pushes, which was not allowed"));
            }
            // RFC 9114, section 7.2: each known type belongs to certain streams, and MAX_PUSH_ID to those of a client. Section 7.2.8:
            // 0x2, 0x6, 0x8 and 0x9 are types of HTTP/2 that HTTP/3 does not have.
            (_, DATA | HEADERS | CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID)
            | (_, 0x2 | 0x6 | 0x8 | 0x9) => return Err(unexpected),
            // RFC 9114, section 9: unknown types are ignored.
            _ => return Ok(State::Skip(len)),
        };
        match usize::try_from(len) {
            Ok(len) if len <= most => Ok(State::Collect { kind, len, payload: Vec::new() }),
            _ => Err(Violation::new(Code::EXCESSIVE_LOAD, "a frame is larger than this client accepts")),
        }
    }
}

fn kind_and_len(header: &[u8]) -> Option<(u64, u64)> {
    let (kind, used) = integer(header)?;
    let (len, _) = integer(&header[used..])?;
    Some((kind, len))
}

fn shorter(left: u64, available: usize) -> usize {
    usize::try_from(left).map_or(available, |left| left.min(available))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All frames of `bytes`, delivered in pieces that end at `cuts`. Data is joined.
    fn read(place: Place, bytes: &[u8], cuts: &[usize]) -> Result<(Vec<Frame>, Vec<u8>), Violation> {
        let mut reader = FrameReader::new(place);
        let (mut frames, mut data) = (Vec::new(), Vec::new());
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        let mut at = 0;
        for end in ends {
            let mut input = &bytes[at..end];
            loop {
                let (used, frame) = reader.next(input)?;
                match frame {
                    Some(Frame::Data(range)) => data.extend(&input[range]),
                    Some(frame) => frames.push(frame),
                    None => {
                        assert_eq!(used, input.len());
                        break;
                    }
                }
                input = &input[used..];
            }
            at = end;
        }
        reader.finish().map(|()| (frames, data))
    }

    #[test]
    fn integers_are_those_of_rfc_9000_appendix_a() {
        for (bytes, value) in [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ] {
            assert_eq!(integer(bytes), Some((value, bytes.len())));
            assert_eq!(integer(&bytes[..bytes.len() - 1]), None);
            let mut out = Vec::new();
            put_integer(&mut out, value);
            assert_eq!(out, bytes);
        }
        // Not the shortest form, and valid.
        assert_eq!(integer(&[0x40, 0x25]), Some((37, 2)));
    }

    #[test]
    fn each_stream_has_its_frames() {
        let code = |place, kind| {
            let mut bytes = Vec::new();
            put_frame(&mut bytes, kind, &[0]);
            read(place, &bytes, &[]).err().map(|violation| violation.code)
        };
        let request = Place::Request(100);
        for kind in [DATA, HEADERS, 0x21, 0x4444] {
            assert_eq!(code(request, kind), None);
        }
        for kind in [SETTINGS, GOAWAY, CANCEL_PUSH, MAX_PUSH_ID, 0x2, 0x6, 0x8, 0x9] {
            assert_eq!(code(request, kind), Some(Code::FRAME_UNEXPECTED), "{kind}");
        }
        assert_eq!(code(request, PUSH_PROMISE), Some(Code::ID_ERROR));
        for kind in [SETTINGS, GOAWAY, 0x21] {
            assert_eq!(code(Place::Control, kind), None);
        }
        for kind in [DATA, HEADERS, PUSH_PROMISE, MAX_PUSH_ID, 0x2] {
            assert_eq!(code(Place::Control, kind), Some(Code::FRAME_UNEXPECTED), "{kind}");
        }
        assert_eq!(code(Place::Control, CANCEL_PUSH), Some(Code::ID_ERROR));
    }

    #[test]
    fn a_stream_must_not_end_in_a_frame() {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, DATA, b"abc");
        for end in 1..bytes.len() {
            assert_eq!(read(Place::Request(9), &bytes[..end], &[]).unwrap_err().code, Code::FRAME_ERROR);
        }
        assert_eq!(read(Place::Request(9), &bytes, &[]).unwrap(), (vec![], b"abc".to_vec()));
    }

    #[test]
    fn a_head_above_the_limit_is_refused_before_it_is_stored() {
        let mut bytes = Vec::new();
        put_integer(&mut bytes, HEADERS);
        put_integer(&mut bytes, MAX_INTEGER);
        assert_eq!(read(Place::Request(100), &bytes, &[]).unwrap_err().code, Code::EXCESSIVE_LOAD);
    }

    proptest! {
        #[test]
        fn integers_survive(value in 0..=MAX_INTEGER, shift in 0..62u32) {
            let mut out = Vec::new();
            put_integer(&mut out, value >> shift);
            prop_assert_eq!(integer(&out), Some((value >> shift, out.len())));
        }

        #[test]
        fn pieces_do_not_matter(
            frames in prop::collection::vec((0..3usize, prop::collection::vec(any::<u8>(), 0..80)), 0..8),
            cuts in prop::collection::vec(any::<usize>(), 0..40),
        ) {
            let (mut bytes, mut heads, mut data) = (Vec::new(), Vec::new(), Vec::new());
            for (kind, payload) in &frames {
                put_frame(&mut bytes, [DATA, HEADERS, 0x21][*kind], payload);
                match kind {
                    0 => data.extend(payload),
                    1 => heads.push(Frame::Headers(payload.clone())),
                    _ => {}
                }
            }
            prop_assert_eq!(read(Place::Request(100), &bytes, &cuts).unwrap(), (heads, data));
        }

        #[test]
        fn mutated_frames_end_in_frames_or_a_violation(
            bytes in prop::collection::vec(prop_oneof![0..12u8, any::<u8>()], 0..200),
            cuts in prop::collection::vec(any::<usize>(), 0..10),
            is_control in any::<bool>(),
        ) {
            let place = if is_control { Place::Control } else { Place::Request(64) };
            let whole = read(place, &bytes, &[]);
            prop_assert_eq!(whole, read(place, &bytes, &cuts));
        }
    }
}
