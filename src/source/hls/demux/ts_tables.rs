//! Tables of a transport stream: which PIDs carry audio (ISO 13818-1, 2.4.4).

use super::headers::Family;

/// Bytes of a section of these tables, at most (2.4.4). Private sections may be longer.
const LONGEST: usize = 1024;

/// Puts the sections of one PID together.
#[derive(Debug, Default)]
pub(super) struct SectionReader {
    buffer: Vec<u8>,
    is_started: bool,
}

impl SectionReader {
    /// Takes the payload of a packet, and passes each complete section with a right checksum to `take`.
    pub(super) fn push(&mut self, payload: &[u8], is_start: bool, mut take: impl FnMut(&[u8])) {
        let mut payload = payload;
        if is_start {
            let Some((pointer, rest)) = payload.split_first() else { return };
            // 2.4.4.2: the bytes before the one that the pointer shows are the end of the section before.
            let (before, begin) = rest.split_at(usize::from(*pointer).min(rest.len()));
            if self.is_started {
                self.buffer.extend_from_slice(before);
                self.take_all(&mut take);
            }
            self.buffer.clear();
            self.is_started = true;
            payload = begin;
        }
        if self.is_started {
            self.buffer.extend_from_slice(payload);
            self.take_all(&mut take);
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.buffer.len()
    }

    fn take_all(&mut self, take: &mut impl FnMut(&[u8])) {
        // A table id of 0xff is stuffing.
        while self.buffer.len() >= 3 && self.buffer[0] != 0xff {
            let len = 3 + (usize::from(self.buffer[1] & 0x0f) << 8 | usize::from(self.buffer[2]));
            // It is another table, or damaged: reading goes on at the next start of a section.
            if len > LONGEST {
                self.is_started = false;
                self.buffer.clear();
                return;
            }
            if self.buffer.len() < len {
                return;
            }
            if checksum(&self.buffer[..len]) == 0 {
                take(&self.buffer[..len]);
            }
            self.buffer.drain(..len);
        }
        if self.buffer.first() == Some(&0xff) {
            self.is_started = false;
            self.buffer.clear();
        }
    }
}

/// CRC-32 of MPEG (ISO 13818-1, annex A). 0 over a section with its own checksum.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    })
}

/// PIDs of the program maps in a program association section (2.4.4.3).
pub(super) fn program_maps(section: &[u8]) -> Vec<u16> {
    // Table 0 (2.4.4.4). Eight bytes of header precede the programs, and a checksum of four follows them.
    if section.len() < 12 || section[0] != 0 || !is_current(section) {
        return Vec::new();
    }
    let programs = section[8..section.len() - 4].chunks_exact(4);
    // Program 0 is the network information.
    programs.filter(|program| program[..2] != [0, 0]).map(|program| pid(&program[2..])).collect()
}

/// current_next_indicator: without it the table is sent in advance.
fn is_current(section: &[u8]) -> bool {
    section[5] & 1 == 1
}

fn pid(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0] & 0x1f, bytes[1]])
}

/// One stream of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Audio {
        pid: u16,
        family: Family,
        is_sample_encrypted: bool,
    },
    /// Audio of a codec that is not supported.
    OtherAudio(&'static str),
}

/// Audio streams of a program map section (2.4.4.8).
pub(super) fn audio_streams(section: &[u8]) -> Vec<Stream> {
    // Table 2 (2.4.4.4). Twelve bytes precede the descriptors of the program, and a checksum of four follows the streams.
    if section.len() < 16 || section[0] != 2 || !is_current(section) {
        return Vec::new();
    }
    let info = usize::from(section[10] & 0x0f) << 8 | usize::from(section[11]);
    let mut rest = section[..section.len() - 4].get(12 + info..).unwrap_or_default();
    let mut streams = Vec::new();
    while let Some((head, more)) = rest.split_at_checked(5) {
        let len = usize::from(head[3] & 0x0f) << 8 | usize::from(head[4]);
        let Some((descriptors, more)) = more.split_at_checked(len) else { break };
        streams.extend(audio_stream(head[0], pid(&head[1..]), descriptors));
        rest = more;
    }
    streams
}

fn audio_stream(kind: u8, pid: u16, descriptors: &[u8]) -> Option<Stream> {
    let audio = |family| Some(Stream::Audio { pid, family, is_sample_encrypted: false });
    let encrypted = |family| Some(Stream::Audio { pid, family, is_sample_encrypted: true });
    match kind {
        // stream_type (2.4.4.9, table 2-34): audio of MPEG-1 and MPEG-2, and AAC as ADTS. 0x11 is AAC as LATM.
        0x03 | 0x04 => audio(Family::Mpeg),
        0x0f => audio(Family::Adts),
        // From 0x80 on the numbers are for private use. The ATSC has assigned these to AC-3 and E-AC-3.
        0x81 | 0x87 => audio(Family::Ac3),
        // Apple, "MPEG-2 Stream Encryption Format for HTTP Live Streaming", 3.0, "Transport Stream Signaling".
        0xcf => encrypted(Family::Adts),
        0xc1 | 0xc2 => encrypted(Family::Ac3),
        0x11 => audio(Family::Loas),
        // Private data: its descriptors name the codec.
        0x06 => match private_codec(descriptors)? {
            "AC-3" => audio(Family::Ac3),
            other => Some(Stream::OtherAudio(other)),
        },
        _ => None,
    }
}

fn private_codec(descriptors: &[u8]) -> Option<&'static str> {
    let mut rest = descriptors;
    while let [tag, len, more @ ..] = rest {
        let body = more.get(..usize::from(*len))?;
        match (tag, body) {
            // The descriptors 0x6a and 0x7a mark AC-3 and E-AC-3 in private data (ETSI EN 300 468, annex D).
            (0x6a | 0x7a, _) | (0x05, [b'A', b'C', b'-', b'3', ..] | [b'E', b'A', b'C', b'3', ..]) => {
                return Some("AC-3");
            }
            (0x05, [b'O', b'p', b'u', b's', ..]) => return Some("Opus"),
            _ => rest = &more[body.len()..],
        }
    }
    None
}
