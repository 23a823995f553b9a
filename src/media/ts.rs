//! MPEG transport streams: packets of 188 bytes, of which one kind names the codecs (ISO 13818-1, section 2.4).

use super::kinds::AudioCodec::{self, Aac, Mp3};

/// Length of a packet (ISO 13818-1, section 2.4.3.2).
const PACKET: usize = 188;

/// True for packets one after another.
pub(super) fn is_transport_stream(bytes: &[u8]) -> bool {
    // ISO 13818-1, section 2.4.3.2: each packet begins with the sync byte 0x47. Two at least, since one `G` is just a letter.
    bytes.len() > PACKET && bytes.iter().step_by(PACKET).take(5).all(|&byte| byte == 0x47)
}

/// The codec of the first stream with a sound that is known here.
pub(super) fn codec(bytes: &[u8]) -> Option<AudioCodec> {
    // Behind the section's header stand pairs of a program and the packets that describe it; program 0 is none.
    let programs = section(bytes, 0)?.get(8..)?;
    // ISO 13818-1, section 2.4.4.3: program 0 leads to the network's own table.
    let (_, map) = programs.chunks_exact(4).map(pair).find(|(program, _)| *program != 0)?;
    let section = section(bytes, map & 0x1fff)?;
    // ISO 13818-1, section 2.4.4.8: descriptors of the program come before the streams. Of the 16 bits of their length the
    // upper four are reserved.
    let skipped = usize::from(u16::from_be_bytes([*section.get(10)?, *section.get(11)?]) & 0xfff);
    let mut streams = section.get(12 + skipped..)?;
    while let [kind, _, _, high, low, rest @ ..] = streams {
        match kind {
            // Layers of MPEG audio are not distinguished here; the third is what is in use.
            0x03 | 0x04 => return Some(Mp3),
            // With ADTS headers, and with those of LATM.
            0x0f | 0x11 => return Some(Aac),
            _ => streams = rest.get(usize::from(u16::from_be_bytes([*high, *low]) & 0xfff)..)?,
        }
    }
    None
}

fn pair(four: &[u8]) -> (u16, u16) {
    (u16::from_be_bytes([four[0], four[1]]), u16::from_be_bytes([four[2], four[3]]))
}

/// The first section of the table in the packets of this identifier, without its checksum, as far as it is in one packet.
fn section(bytes: &[u8], identifier: u16) -> Option<&[u8]> {
    let is_start = |packet: &&[u8]| {
        u16::from_be_bytes([packet[1], packet[2]]) & 0x1fff == identifier && packet[1] & 0x40 != 0
    };
    let packet = bytes.chunks_exact(PACKET).find(is_start)?;
    // An adaptation field, whose first byte is its length, may come before the payload (ISO 13818-1, section 2.4.3.4).
    let adaptation = if packet[3] & 0x20 != 0 { 1 + usize::from(packet[4]) } else { 0 };
    let payload = packet.get(4 + adaptation..)?;
    // ISO 13818-1, section 2.4.4.1: the payload begins with the distance to its first section, since the end of another one
    // may come before it.
    let section = payload.get(1 + usize::from(*payload.first()?)..)?;
    let len = usize::from(u16::from_be_bytes([*section.get(1)?, *section.get(2)?]) & 0xfff);
    section.get(..(3 + len).checked_sub(4)?.min(section.len()))
}
