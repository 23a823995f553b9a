//! MPEG transport streams (ISO 13818-1): the payload of the first audio stream, and its times.

use std::collections::BTreeMap;

use super::frame::{MediaTime, Output};
use super::packed::ticks_to_time;
use super::sniff::PACKET;
use super::splitter::Splitter;
use super::ts_tables::{SectionReader, Stream, audio_streams, program_maps};
use crate::error::{Error, ErrorKind};

/// Times have 33 bits (ISO 13818-1, 2.4.3.7) and start again every 26.5 hours.
const TIME_BITS: u32 = 33;

/// Program maps that are followed. A segment has one program (section 3.1.1); a stream of a broadcast has a dozen.
const MOST_PROGRAMS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct TsDemuxer {
    /// The beginning of a packet whose rest has not arrived yet, or bytes in which no packet was found yet.
    partial: Vec<u8>,
    is_synchronised: bool,
    association: SectionReader,
    maps: BTreeMap<u16, SectionReader>,
    audio: Option<Audio>,
    unsupported: Option<&'static str>,
}

#[derive(Debug)]
struct Audio {
    /// The description in its table.
    stream: Stream,
    pid: u16,
    /// PID of that table.
    map: u16,
    is_sample_encrypted: bool,
    /// Continuity counter of the last packet.
    counter: Option<u8>,
    pes: Pes,
    splitter: Splitter,
    /// Time of the last packet with one, unwrapped, to unwrap the next one by.
    last_ticks: Option<u64>,
}

/// A packetised elementary stream packet (2.4.3.6).
#[derive(Debug)]
enum Pes {
    /// None has begun, or packets were lost.
    Nothing,
    Header(Vec<u8>),
    /// Bytes of the payload that are left. `None` if the length is 0, which means unknown (ISO/IEC 13818-1, section 2.4.3.7).
    Payload(Option<usize>),
}

impl TsDemuxer {
    pub(super) fn has_tables(&self) -> bool {
        self.audio.is_some()
    }

    /// The stream type is one of those of encrypted frames.
    pub(super) fn is_sample_encrypted(&self) -> bool {
        self.audio.as_ref().is_some_and(|audio| audio.is_sample_encrypted)
    }

    pub(super) fn push(&mut self, bytes: &[u8], output: &mut Output) -> Result<(), Error> {
        self.partial.extend_from_slice(bytes);
        self.take_packets(false, output)
    }

    /// Takes the tables of an initialization section.
    pub(super) fn push_tables(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.partial.extend_from_slice(bytes);
        // Read as at the end: no packet follows that would prove the last one.
        self.take_packets(true, &mut Output::default())
    }

    fn take_packets(&mut self, is_end: bool, output: &mut Output) -> Result<(), Error> {
        // Taken out because its packets are borrowed while `self` changes. It is put back so that its memory is used again.
        let buffer = std::mem::take(&mut self.partial);
        let mut rest = buffer.as_slice();
        while let Some((skip, packet)) = self.next_packet(rest, is_end) {
            rest = &rest[skip..];
            let Some(packet) = packet else { break };
            self.handle_packet(packet, output)?;
            rest = &rest[PACKET..];
        }
        let at = buffer.len() - rest.len();
        self.partial = buffer;
        self.partial.drain(..at);
        Ok(())
    }

    pub(super) fn finish(&mut self, output: &mut Output) -> Result<(), Error> {
        self.take_packets(true, output)?;
        match (&mut self.audio, self.unsupported) {
            (Some(audio), _) => {
                audio.splitter.finish(output);
                if let Some(refusal) = audio.splitter.refusal() {
                    return Err(Error::new(ErrorKind::Unsupported, refusal.to_string()));
                }
            }
            (None, Some(codec)) => {
                let why = format!("{codec} in MPEG-TS is not supported");
                return Err(Error::new(ErrorKind::Unsupported, why));
            }
            (None, None) => {
                return Err(Error::new(ErrorKind::Unsupported, "the transport stream has no audio"));
            }
        }
        Ok(())
    }

    /// Bytes to skip, and the packet behind them. Without a packet those bytes are junk. `None` if there is nothing to do.
    fn next_packet<'a>(&mut self, rest: &'a [u8], is_end: bool) -> Option<(usize, Option<&'a [u8]>)> {
        // One byte more: the next packet proves this one.
        let needed = if is_end { PACKET } else { PACKET + 1 };
        let is_packet = |bytes: &[u8]| bytes[0] == 0x47 && bytes.get(PACKET).is_none_or(|next| *next == 0x47);
        if rest.len() < needed {
            return None;
        }
        if is_packet(rest) {
            self.is_synchronised = true;
            return Some((0, Some(&rest[..PACKET])));
        }
        if std::mem::take(&mut self.is_synchronised) {
            // The packet before was whole. If its successor is not, bytes are missing.
            if let Some(audio) = &mut self.audio {
                audio.pes = Pes::Nothing;
            }
        }
        let found = (1..=rest.len() - needed).find(|at| is_packet(&rest[*at..]));
        match found {
            Some(at) => Some((at, Some(&rest[at..at + PACKET]))),
            None => Some((rest.len() - needed + 1, None)),
        }
    }

    fn handle_packet(&mut self, packet: &[u8], output: &mut Output) -> Result<(), Error> {
        let has_error = packet[1] & 0x80 != 0;
        let is_scrambled = packet[3] & 0xc0 != 0;
        // Nothing of it is used, its counter neither: the next packet shows that one is missing.
        if has_error || is_scrambled {
            return Ok(());
        }
        let is_start = packet[1] & 0x40 != 0;
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        // The adaptation field, whose discontinuity_indicator allows any counter (2.4.3.5). Splicers send it without a payload, too.
        let is_discontinuous = packet[3] & 0x20 != 0 && packet[4] > 0 && packet[5] & 0x80 != 0;
        if let Some(audio) = self.audio.as_mut().filter(|audio| is_discontinuous && audio.pid == pid) {
            audio.counter = None;
        }
        // 2.4.3.3, adaptation_field_control: 1 is a payload alone, 3 is one behind an adaptation field, whose first byte is its
        // length. 2 has no payload, and does not count as a packet for the counter.
        let payload = match packet[3] >> 4 & 3 {
            1 => &packet[4..],
            3 => packet.get(5 + usize::from(packet[4])..).unwrap_or_default(),
            _ => return Ok(()),
        };
        if let Some(audio) = self.audio.as_mut().filter(|audio| audio.pid == pid) {
            return audio.handle_packet(packet[3] & 15, is_start, payload, output);
        }
        // PID 0 is that of the program association table (table 2-3).
        if pid == 0 {
            let mut found = Vec::new();
            self.association.push(payload, is_start, |section| found.extend(program_maps(section)));
            for pid in found.into_iter().take(MOST_PROGRAMS) {
                self.maps.entry(pid).or_default();
            }
        } else if let Some(map) = self.maps.get_mut(&pid) {
            let mut streams = Vec::new();
            map.push(payload, is_start, |section| streams.extend(audio_streams(section)));
            self.choose(pid, &streams, output);
        }
        Ok(())
    }

    /// Chooses the first audio stream that is supported. It stays chosen as long as its program has it.
    fn choose(&mut self, map: u16, streams: &[Stream], output: &mut Output) {
        for stream in streams {
            if let Stream::OtherAudio(codec) = stream {
                self.unsupported = Some(codec);
            }
        }
        let is_kept = |audio: &Audio| audio.map != map || streams.contains(&audio.stream);
        if self.audio.as_ref().is_some_and(is_kept) {
            return;
        }
        let supported = streams.iter().find_map(|stream| Audio::new(*stream, map));
        let Some(mut audio) = supported else { return };
        if let Some(mut before) = self.audio.take() {
            before.splitter.lose(output);
            // The clock is that of the program, and not of the stream: its 33 bits count on.
            audio.last_ticks = before.last_ticks;
        }
        self.audio = Some(audio);
    }
}

impl Audio {
    /// `None` if the stream is not supported.
    fn new(stream: Stream, map: u16) -> Option<Self> {
        let Stream::Audio { pid, family, is_sample_encrypted } = stream else { return None };
        Some(Self {
            stream,
            pid,
            map,
            is_sample_encrypted,
            counter: None,
            pes: Pes::Nothing,
            splitter: Splitter::new(family),
            last_ticks: None,
        })
    }

    fn handle_packet(
        &mut self,
        counter: u8,
        is_start: bool,
        payload: &[u8],
        output: &mut Output,
    ) -> Result<(), Error> {
        match self.counter.replace(counter) {
            // 2.4.3.3: a packet may be sent twice.
            Some(last) if last == counter => return Ok(()),
            Some(last) if (last + 1) & 15 != counter => {
                self.pes = Pes::Nothing;
                self.splitter.lose(output);
            }
            _ => {}
        }
        if is_start {
            self.pes = Pes::Header(Vec::new());
        }
        match &mut self.pes {
            Pes::Nothing => {}
            Pes::Payload(left) => {
                let len = left.map_or(payload.len(), |left| left.min(payload.len()));
                if let Some(left) = left {
                    *left -= len;
                }
                self.splitter.push(&payload[..len], None, output);
            }
            Pes::Header(header) => {
                header.extend_from_slice(payload);
                let header = std::mem::take(header);
                self.handle_header(header, output);
            }
        }
        Ok(())
    }

    /// Begins the payload once the header is complete.
    fn handle_header(&mut self, header: Vec<u8>, output: &mut Output) {
        // The last one of nine bytes is the length of the rest of the header (2.4.3.6).
        if header.len() < 9 {
            self.pes = Pes::Header(header);
            return;
        }
        // 2.4.3.6: the start code, and the bits 10 that begin the header of audio and video.
        if header[..3] != [0, 0, 1] || header[6] & 0xc0 != 0x80 {
            self.pes = Pes::Nothing;
            return;
        }
        let begin = 9 + usize::from(header[8]);
        if header.len() < begin {
            self.pes = Pes::Header(header);
            return;
        }
        let time = if header[7] & 0x80 != 0 { header.get(9..14).and_then(read_time) } else { None };
        let time = time.map(|ticks| self.unwrap(ticks));
        // The length counts from behind its own field. 0 is unknown, as video has it.
        let announced = usize::from(header[4]) << 8 | usize::from(header[5]);
        let left = (announced > 0).then(|| (announced + 6).saturating_sub(begin));
        let payload = &header[begin..];
        let len = left.map_or(payload.len(), |left| left.min(payload.len()));
        self.pes = Pes::Payload(left.map(|left| left - len));
        self.splitter.push(&payload[..len], time, output);
    }

    /// Continues the time over its rollover: the nearest value to the last one.
    fn unwrap(&mut self, ticks: u64) -> MediaTime {
        let span = 1_u64 << TIME_BITS;
        let ticks = match self.last_ticks {
            Some(last) => {
                let ahead = ticks.wrapping_sub(last) & (span - 1);
                // Saturating: behind the first time of a segment, one from before the rollover would be negative.
                if ahead < span / 2 { last + ahead } else { (last + ahead).saturating_sub(span) }
            }
            None => ticks,
        };
        self.last_ticks = Some(ticks);
        ticks_to_time(ticks)
    }
}

/// A time of 33 bits with its marker bits.
fn read_time(bytes: &[u8]) -> Option<u64> {
    let [a, b, c, d, e] = *bytes else { return None };
    let (a, b, c, d, e) = (u64::from(a), u64::from(b), u64::from(c), u64::from(d), u64::from(e));
    Some((a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1)
}
