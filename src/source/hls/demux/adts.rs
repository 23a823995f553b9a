//! Raw AAC as MP4 has it, turned into ADTS: what every decoder takes from the middle of a stream.

use super::bits::Bits;
use super::frame::Format;
use super::headers::{AAC_RATES, aac_channels};
use crate::media::AudioCodec;

/// The configuration of a raw AAC stream (AudioSpecificConfig, ISO 14496-3, 1.6.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AacConfig {
    /// Object type of the core codec: 1 to 4.
    object_type: u8,
    rate_index: u8,
    channels: u8,
    /// Spectral band replication is signalled: the decoder's output may have twice the rate.
    is_high_efficiency: bool,
}

impl AacConfig {
    /// Reads a whole configuration. `None` for what ADTS can't express.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut bits = Bits::new(bytes);
        let mut config = Self::read(&mut bits)?;
        config.read_extension(&mut bits);
        Some(config)
    }

    /// Reads a configuration, without what may follow it. `None` for what ADTS can't express.
    pub(super) fn read(bits: &mut Bits<'_>) -> Option<Self> {
        let mut object_type = read_object_type(bits)?;
        let rate_index = read_rate_index(bits)?;
        let channels = bits.take(4)?;
        // ISO 14496-3, section 1.6.2.1: 5 and 29 announce SBR and PS. The rate here is that of the core codec, whose type
        // follows behind the rate of the extension.
        let is_high_efficiency = matches!(object_type, 5 | 29);
        if is_high_efficiency {
            read_rate_index(bits)?;
            object_type = read_object_type(bits)?;
        }
        // GASpecificConfig. Frames of 960 samples, and channels that are described in the frames, are not supported.
        let is_short = bits.flag()?;
        // dependsOnCoreCoder of GASpecificConfig (ISO 14496-3, section 4.4.1): a delay of 14 bits comes before the next
        // flag.
        if bits.flag()? {
            bits.skip(14)?;
        }
        // extensionFlag: of the object types that ADTS has only one more bit follows. What `read_extension` looks for comes
        // behind it.
        if bits.flag()? {
            bits.skip(1)?;
        }
        if !(1..=4).contains(&object_type) || is_short || !(1..=7).contains(&channels) {
            return None;
        }
        let (object_type, channels) = (object_type as u8, channels as u8);
        Some(Self { object_type, rate_index, channels, is_high_efficiency })
    }

    /// Reads what may follow a configuration: SBR that older decoders do not see (syncExtensionType 0x2b7).
    pub(super) fn read_extension(&mut self, bits: &mut Bits<'_>) {
        let has_sbr =
            bits.take(11) == Some(0x2b7) && read_object_type(bits) == Some(5) && bits.flag() == Some(true);
        self.is_high_efficiency |= has_sbr;
    }

    /// The object type that a configuration begins with. It says nothing of the core codec of HE-AAC.
    pub(super) fn object_type(bits: &Bits<'_>) -> Option<u32> {
        read_object_type(&mut bits.clone())
    }

    /// What frames with this configuration are.
    pub(super) fn format(self) -> Format {
        let codec = if self.is_high_efficiency { AudioCodec::HeAac } else { AudioCodec::Aac };
        Format { codec, sample_rate: self.sample_rate(), channels: aac_channels(self.channels), head: None }
    }

    fn sample_rate(self) -> u32 {
        AAC_RATES[usize::from(self.rate_index)]
    }

    /// The header of a frame with this many bytes of raw data. `None` if it is too long for ADTS.
    pub(super) fn header(self, raw: usize) -> Option<[u8; 7]> {
        let len = raw + 7;
        // aac_frame_length has 13 bits (ISO 14496-3, annex 1.A).
        if len >= 1 << 13 {
            return None;
        }
        let low = |value: usize| (value & 0xff) as u8;
        Some([
            0xff,
            // MPEG-4, layer 0, and no checksum.
            0xf1,
            // `profile` has two bits for the object type less one, so ADTS can name the types 1 to 4 only.
            (self.object_type - 1) << 6 | self.rate_index << 2 | self.channels >> 2,
            (self.channels & 3) << 6 | low(len >> 11),
            low(len >> 3),
            // An adts_buffer_fullness of 11 ones means a variable bit rate.
            low(len << 5) | 0x1f,
            // The rest of these ones, and the number of raw_data_blocks less one.
            0xfc,
        ])
    }
}

fn read_object_type(bits: &mut Bits<'_>) -> Option<u32> {
    match bits.take(5)? {
        // GetAudioObjectType (ISO 14496-3, 1.6.2.1): an escape to the types from 32 on.
        31 => Some(32 + bits.take(6)?),
        object_type => Some(object_type),
    }
}

fn read_rate_index(bits: &mut Bits<'_>) -> Option<u8> {
    match bits.take(4)? {
        // ISO 14496-3, section 1.6.2.1: an escape, behind which the rate itself stands. The header of ADTS can name only the
        // rates that have an index.
        15 => {
            let rate = bits.take(24)?;
            AAC_RATES.iter().position(|known| *known == rate).map(|index| index as u8)
        }
        index => Some(index as u8).filter(|index| usize::from(*index) < AAC_RATES.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::headers::Family;
    use super::*;

    #[test]
    fn a_header_says_what_the_configuration_says() {
        // LC, 44.1 kHz, stereo.
        let config = AacConfig::parse(&[0x12, 0x10]).unwrap();
        let header = config.header(364).unwrap();
        let parsed = Family::Adts.parse(&header).unwrap();
        assert_eq!((parsed.len, parsed.format.sample_rate, parsed.format.channels), (371, 44_100, 2));
        assert_eq!(config.header(8185), None);
    }

    #[test]
    fn high_efficiency_is_sent_as_its_core() {
        // SBR at 44.1 kHz over LC at 22.05 kHz, stereo.
        let config = AacConfig::parse(&[0x2b, 0x92, 0x08, 0x00]).unwrap();
        assert!(config.is_high_efficiency);
        assert_eq!((config.sample_rate(), config.format().channels), (22_050, 2));
        // The same, signalled in a way that decoders without SBR pass over; and with the flag off.
        let config = AacConfig::parse(&[0x13, 0x90, 0x56, 0xe5, 0xa0]).unwrap();
        assert_eq!((config.sample_rate(), config.is_high_efficiency), (22_050, true));
        assert!(!AacConfig::parse(&[0x13, 0x90, 0x56, 0xe5, 0x20]).unwrap().is_high_efficiency);
    }

    #[test]
    fn what_adts_has_no_words_for_is_refused() {
        // xHE-AAC; 960 samples; channels in the frames; nothing.
        for bytes in [&[0xf9, 0x46, 0x40][..], &[0x12, 0x14], &[0x12, 0x00], &[]] {
            assert_eq!(AacConfig::parse(bytes), None, "{bytes:x?}");
        }
    }
}
