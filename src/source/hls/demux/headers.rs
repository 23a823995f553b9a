//! Headers of audio frames: ADTS (ISO 14496-3, annex 1.A), MPEG audio (ISO 11172-3, 2.4.1.3), AC-3 and E-AC-3 (ETSI TS
//! 102 366, 4.3 and 4.4, annex E).

use super::frame::Format;
use crate::media::AudioCodec;

/// Frames that share a synchronisation word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Adts,
    Mpeg,
    Ac3,
    /// Elements of LATM, which contain AAC. Only their contents say what it is.
    Loas,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes of the frame, header included.
    pub(super) len: usize,
    /// Samples per channel. 0 for a frame that adds channels to the one before.
    pub(super) samples: u32,
    pub(super) format: Format,
}

/// Bytes in front of an element of LATM: 11 bits of synchronisation and 13 of length.
pub(super) const LOAS_HEADER: usize = 3;

/// Sample rates by their index in ADTS and in AudioSpecificConfig (samplingFrequencyIndex, ISO 14496-3).
pub(super) const AAC_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350];

/// Channels by channelConfiguration (ISO 14496-3, 1.6.3.5): 7 has 8 channels, the others as many as their number. With 0 only the
/// frames contain the number.
pub(super) fn aac_channels(configuration: u8) -> u16 {
    u16::from(if configuration == 7 { 8 } else { configuration })
}

impl Family {
    /// Bytes that [`parse`](Self::parse) needs.
    pub(super) const fn header_len(self) -> usize {
        match self {
            Self::Adts => 7,
            Self::Mpeg => 4,
            Self::Ac3 => 7,
            Self::Loas => LOAS_HEADER,
        }
    }

    /// The first byte of a header.
    pub(super) const fn first_byte(self) -> u8 {
        match self {
            Self::Adts | Self::Mpeg => 0xff,
            Self::Ac3 => 0x0b,
            Self::Loas => 0x56,
        }
    }

    /// `None` if `bytes` do not begin with a valid header.
    pub(super) fn parse(self, bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..self.header_len())?;
        match self {
            Self::Adts => parse_adts(bytes),
            Self::Mpeg => parse_mpeg(bytes),
            Self::Ac3 => parse_ac3(bytes),
            Self::Loas => parse_loas(bytes),
        }
    }
}

fn header(codec: AudioCodec, len: usize, samples: u32, sample_rate: u32, channels: u16) -> Option<Header> {
    Some(Header { len, samples, format: Format { codec, sample_rate, channels, head: None } })
}

fn parse_adts(bytes: &[u8]) -> Option<Header> {
    // The layer is always 0, which distinguishes ADTS from MPEG audio.
    if bytes[0] != 0xff || bytes[1] & 0xf6 != 0xf0 {
        return None;
    }
    let has_checksum = bytes[1] & 1 == 0;
    let rate = *AAC_RATES.get(usize::from(bytes[2] >> 2 & 15))?;
    let channels = aac_channels((bytes[2] & 1) << 2 | bytes[3] >> 6);
    let len = usize::from(bytes[3] & 3) << 11 | usize::from(bytes[4]) << 3 | usize::from(bytes[5] >> 5);
    // A frame without data plays nothing, and one that is shorter than its header would keep the cursor where it is.
    if len <= if has_checksum { 9 } else { 7 } {
        return None;
    }
    // number_of_raw_data_blocks_in_frame is one less than there are. Each has 1024 samples.
    let blocks = u32::from(bytes[6] & 3) + 1;
    header(AudioCodec::Aac, len, 1024 * blocks, rate, channels)
}

/// AudioSyncStream (ISO/IEC 14496-3): 11 bits of synchronisation, and 13 of the length behind them.
fn parse_loas(bytes: &[u8]) -> Option<Header> {
    let len = usize::from(bytes[1] & 0x1f) << 8 | usize::from(bytes[2]);
    if bytes[0] != 0x56 || bytes[1] & 0xe0 != 0xe0 || len == 0 {
        return None;
    }
    // What is in it shows once its configuration was read: see `latm.rs`.
    header(AudioCodec::Aac, LOAS_HEADER + len, 0, 0, 0)
}

/// Kilobits per second by version and layer (ISO 11172-3 and ISO 13818-3, 2.4.2.3): MPEG-1 layers 1, 2, 3, then MPEG-2 layer 1,
/// layers 2 and 3.
const BITRATES: [[u16; 15]; 5] = [
    [0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

fn parse_mpeg(bytes: &[u8]) -> Option<Header> {
    if bytes[0] != 0xff || bytes[1] & 0xe0 != 0xe0 {
        return None;
    }
    let (version, layer) = (bytes[1] >> 3 & 3, 4 - (bytes[1] >> 1 & 3));
    // Version 1 and layer 4 are reserved.
    if version == 1 || layer == 4 {
        return None;
    }
    let is_mpeg1 = version == 3;
    let table = match (is_mpeg1, layer) {
        (true, layer) => usize::from(layer) - 1,
        (false, 1) => 3,
        (false, _) => 4,
    };
    // Index 0 is a free rate, whose frames have no known length. It is not used for streams.
    let rate =
        usize::from(*BITRATES[table].get(usize::from(bytes[2] >> 4)).filter(|rate| **rate > 0)?) * 1000;
    let base = *[44_100_u32, 48_000, 32_000].get(usize::from(bytes[2] >> 2 & 3))?;
    let sample_rate = match version {
        3 => base,
        2 => base / 2,
        // MPEG-2.5, which is in no standard: an extension by Fraunhofer.
        _ => base / 4,
    };
    let samples = match (layer, is_mpeg1) {
        (1, _) => 384,
        // Layer 3 of MPEG-2 has one granule in a frame, and not two (ISO 13818-3).
        (3, false) => 576,
        _ => 1152,
    };
    let padding = usize::from(bytes[2] >> 1 & 1);
    let len = match layer {
        // Layer 1 counts in slots of four bytes (ISO 11172-3, 2.4.3.1).
        1 => (12 * rate / sample_rate as usize + padding) * 4,
        _ => samples as usize / 8 * rate / sample_rate as usize + padding,
    };
    let channels = if bytes[3] >> 6 == 3 { 1 } else { 2 };
    let codec = if layer == 3 { AudioCodec::Mp3 } else { AudioCodec::Mp2 };
    header(codec, len, samples, sample_rate, channels)
}

/// Kilobits per second by the upper bits of `frmsizecod` (4.4.1.4). A frame has 1536 samples. At 48 kHz these are 32 ms, so it has
/// two words of 16 bits for each kilobit per second.
const AC3_RATES: [u16; 19] =
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640];

/// Channels by `acmod`, without the low-frequency channel (4.4.2.3).
const AC3_CHANNELS: [u16; 8] = [2, 1, 2, 3, 3, 4, 4, 5];

fn parse_ac3(bytes: &[u8]) -> Option<Header> {
    if bytes[..2] != [0x0b, 0x77] {
        return None;
    }
    // `bsid`, the version of the syntax: up to 10 it is that of AC-3, from 11 to 16 that of annex E.
    match bytes[5] >> 3 {
        0..=10 => parse_plain_ac3(bytes),
        11..=16 => parse_eac3(bytes),
        _ => None,
    }
}

fn parse_plain_ac3(bytes: &[u8]) -> Option<Header> {
    let (rate, size) = (bytes[4] >> 6, bytes[4] & 63);
    let kilobits = usize::from(*AC3_RATES.get(usize::from(size >> 1))?);
    let (sample_rate, words) = match rate {
        0 => (48_000, kilobits * 2),
        // The only rate at which a frame is no whole number of words: some have one more, to keep the rate.
        1 => (44_100, kilobits * 96_000 / 44_100 + usize::from(size & 1)),
        2 => (32_000, kilobits * 3),
        _ => return None,
    };
    // Above 8, the last version of ETSI TS 102 366, `bsid` stands for rates that are halved once and twice; frames stay as long.
    // Encoders wrote that before E-AC-3 had half rates, and decoders (liba52, ffmpeg) read it.
    let halved = (bytes[5] >> 3).saturating_sub(8);
    let mode = bytes[6] >> 5;
    // Between `acmod` and `lfeon` lie up to two fields of two bits.
    let skipped =
        2 * u8::from(mode & 1 != 0 && mode != 1) + 2 * u8::from(mode & 4 != 0) + 2 * u8::from(mode == 2);
    let low = u16::from(bytes[6] >> (4 - skipped) & 1);
    let channels = AC3_CHANNELS[usize::from(mode)] + low;
    header(AudioCodec::Ac3, words * 2, 1536, sample_rate >> halved, channels)
}

fn parse_eac3(bytes: &[u8]) -> Option<Header> {
    // `strmtyp`: 3 is reserved.
    let kind = bytes[2] >> 6;
    if kind == 3 {
        return None;
    }
    // `frmsiz`: words of 16 bits, less one.
    let len = (usize::from(bytes[2] & 7) << 8 | usize::from(bytes[3])) * 2 + 2;
    let (rate, blocks) = (bytes[4] >> 6, bytes[4] >> 4 & 3);
    let (sample_rate, blocks) = match rate {
        // Half of the usual rates; always six blocks.
        3 => (*[24_000, 22_050, 16_000].get(usize::from(blocks))?, 6),
        rate => ([48_000, 44_100, 32_000][usize::from(rate)], [1, 2, 3, 6][usize::from(blocks)]),
    };
    let channels = AC3_CHANNELS[usize::from(bytes[4] >> 1 & 7)] + u16::from(bytes[4] & 1);
    // A dependent substream adds channels to the frame before it, at the same time; so do substreams other than the first.
    let is_own_time = kind != 1 && bytes[2] >> 3 & 7 == 0;
    header(AudioCodec::Eac3, len, if is_own_time { 256 * blocks } else { 0 }, sample_rate, channels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_each_kind_are_read() {
        type Fields = (AudioCodec, usize, u32, u32, u16);
        let cases: [(Family, &[u8], Fields); 7] = [
            (
                Family::Adts,
                &[0xff, 0xf1, 0x50, 0x80, 0x2e, 0x7f, 0xfc],
                (AudioCodec::Aac, 371, 1024, 44_100, 2),
            ),
            (
                Family::Adts,
                &[0xff, 0xf1, 0x51, 0xc0, 0x2e, 0x7f, 0xfc],
                (AudioCodec::Aac, 371, 1024, 44_100, 8),
            ),
            (Family::Mpeg, &[0xff, 0xfb, 0x90, 0x64], (AudioCodec::Mp3, 417, 1152, 44_100, 2)),
            (Family::Mpeg, &[0xff, 0xf3, 0x44, 0xc0], (AudioCodec::Mp3, 96, 576, 24_000, 1)),
            (Family::Mpeg, &[0xff, 0xfd, 0x84, 0x00], (AudioCodec::Mp2, 384, 1152, 48_000, 2)),
            (Family::Ac3, &[0x0b, 0x77, 0, 0, 0x14, 0x40, 0x43], (AudioCodec::Ac3, 768, 1536, 48_000, 2)),
            (
                Family::Ac3,
                &[0x0b, 0x77, 0x01, 0x7f, 0x35, 0x80, 0x00],
                (AudioCodec::Eac3, 768, 1536, 48_000, 3),
            ),
        ];
        for (family, bytes, wanted) in cases {
            let header = family.parse(bytes).unwrap();
            let format = header.format;
            let got = (format.codec, header.len, header.samples, format.sample_rate, format.channels);
            assert_eq!(got, wanted, "{bytes:x?}");
        }
    }

    #[test]
    fn ac3_of_half_and_quarter_rates_has_frames_of_the_same_length() {
        for (version, rate) in [(6, 48_000), (8, 48_000), (9, 24_000), (10, 12_000)] {
            let header = Family::Ac3.parse(&[0x0b, 0x77, 0, 0, 0x14, version << 3, 0x43]).unwrap();
            assert_eq!((header.len, header.format.sample_rate), (768, rate), "bsid {version}");
        }
    }

    #[test]
    fn the_low_frequency_channel_of_ac3_is_behind_the_levels_of_each_mode() {
        // `acmod`, and the bit of `lfeon` behind its mix levels (ETSI TS 102 366, 4.3.2).
        for (mode, bit, channels) in
            [(0, 4, 2), (1, 4, 1), (2, 2, 2), (3, 2, 3), (4, 2, 3), (5, 0, 4), (6, 2, 4), (7, 0, 5)]
        {
            for (low, byte) in [(0, mode << 5), (1, mode << 5 | 1 << bit)] {
                let header = Family::Ac3.parse(&[0x0b, 0x77, 0, 0, 0x14, 0x40, byte]).unwrap();
                assert_eq!(header.format.channels, channels + low, "acmod {mode}");
            }
        }
    }

    #[test]
    fn reserved_values_are_no_headers() {
        for bytes in [
            &[0xff, 0xeb, 0x90, 0x64],
            &[0xff, 0xf9, 0x90, 0x64],
            &[0xff, 0xfb, 0xf0, 0x64],
            &[0xff, 0xfb, 0x9c, 0x64],
        ] {
            assert_eq!(Family::Mpeg.parse(bytes), None, "{bytes:x?}");
        }
        assert_eq!(Family::Adts.parse(&[0xff, 0xf1, 0x7c, 0x80, 0x2e, 0x7f, 0xfc]), None);
        assert_eq!(Family::Adts.parse(&[0xff, 0xf1, 0x50, 0x80, 0, 0x1f, 0xfc]), None);
        assert_eq!(Family::Ac3.parse(&[0x0b, 0x77, 0, 0, 0xd4, 0x40, 0x43]), None);
    }
}
