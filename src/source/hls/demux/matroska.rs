//! Matroska for ALAC (RFC 9559): its packets have no framing of their own, and no length that a decoder could find.
//!
//! Not CAF: its packet table has the sizes of all packets, which a stream knows at its end only, and readers of CAF need it
//! before they play. Clusters of Matroska need nothing of what follows.

use std::time::Duration;

use super::frame::Format;
use crate::media::AudioCodec;

/// Bytes of ALACSpecificConfig, the part of the magic cookie that all streams have (ALACMagicCookieDescription.txt).
const CONFIG: usize = 24;

/// Nanoseconds of a tick. The usual millisecond would round the times of frames.
const TICK: u32 = 1000;

/// What the box `alac` in a sample entry says: a header of four bytes, then the magic cookie. `None` if it is damaged.
pub(super) fn alac_format(alac: &[u8]) -> Option<Format> {
    let mut cookie = cookie(alac.get(4..)?).to_vec();
    let config: &mut [u8; CONFIG] = cookie.first_chunk_mut()?;
    let number = |at: usize| u32::from_be_bytes([config[at], config[at + 1], config[at + 2], config[at + 3]]);
    let (frame_length, sample_rate) = (number(0), number(20));
    let (version, depth, channels) = (config[4], config[5], config[9]);
    // compatibleVersion: a decoder must not read a later one. The depths and the number of channels are those that ALAC has.
    let is_known = version == 0 && matches!(depth, 16 | 20 | 24 | 32) && (1..=8).contains(&channels);
    if !is_known || frame_length == 0 || sample_rate == 0 {
        return None;
    }
    // The longest frame and the average rate differ between encodings that one decoder can play. 0 is unknown.
    config[12..20].fill(0);
    let head = head(&cookie, frame_length, sample_rate, channels, depth);
    let head = Some(head.into());
    Some(Format { codec: AudioCodec::Alac, sample_rate, channels: u16::from(channels), head })
}

/// The config, and the layout of the channels if that follows. Decoders refuse a cookie with anything else behind it.
fn cookie(bytes: &[u8]) -> &[u8] {
    let has_layout = bytes.get(CONFIG..CONFIG + 8) == Some(b"\0\0\0\x18chan");
    let len = if has_layout { 2 * CONFIG } else { CONFIG };
    &bytes[..len.min(bytes.len())]
}

/// What precedes the clusters: the EBML header, and a Segment of unknown size with Info and Tracks.
fn head(cookie: &[u8], frame_length: u32, sample_rate: u32, channels: u8, depth: u8) -> Vec<u8> {
    let frame = u64::from(frame_length) * 1_000_000_000 / u64::from(sample_rate);
    let audio = [
        // RFC 9559, section 5.1.4.1.29: SamplingFrequency, Channels, BitDepth.
        element(&[0xb5], &f64::from(sample_rate).to_be_bytes()),
        element(&[0x9f], &[channels]),
        element(&[0x62, 0x64], &[depth]),
    ];
    // RFC 9559, section 5.1.4: TrackNumber, TrackUID, TrackType (2 is audio), FlagLacing, CodecID, CodecPrivate, DefaultDuration
    // and Audio, in this order.
    let track = [
        element(&[0xd7], &[1]),
        element(&[0x73, 0xc5], &[1]),
        element(&[0x83], &[2]),
        // A block is one frame then, and needs no table of lengths.
        element(&[0x9c], &[0]),
        element(&[0x86], b"A_ALAC"),
        element(&[0x63, 0xa2], cookie),
        element(&[0x23, 0xe3, 0x83], &frame.to_be_bytes()),
        element(&[0xe1], &audio.concat()),
    ];
    // RFC 9559, section 5.1.2: TimestampScale, and MuxingApp and WritingApp, which every file must have.
    let info = [
        element(&[0x2a, 0xd7, 0xb1], &TICK.to_be_bytes()),
        element(&[0x4d, 0x80], b"windway"),
        element(&[0x57, 0x41], b"windway"),
    ];
    // EBMLMaxIDLength, EBMLMaxSizeLength, DocType, DocTypeVersion, DocTypeReadVersion (RFC 8794, section 11.2).
    let ebml = [
        element(&[0x42, 0xf2], &[4]),
        element(&[0x42, 0xf3], &[8]),
        element(&[0x42, 0x82], b"matroska"),
        element(&[0x42, 0x87], &[4]),
        // SimpleBlock came with version 2.
        element(&[0x42, 0x85], &[2]),
    ];
    [
        element(&[0x1a, 0x45, 0xdf, 0xa3], &ebml.concat()),
        // RFC 8794, section 6.2: a size of ones is unknown.
        vec![0x18, 0x53, 0x80, 0x67, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        element(&[0x15, 0x49, 0xa9, 0x66], &info.concat()),
        element(&[0x16, 0x54, 0xae, 0x6b], &element(&[0xae], &track.concat())),
    ]
    .concat()
}

/// Makes a Cluster of each frame of a section.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clusters {
    /// Where the next frame begins, counted from the first one of the section.
    time: Duration,
}

impl Clusters {
    /// A Cluster with this frame.
    pub(super) fn cluster(&mut self, frame: &[u8], duration: Duration) -> Vec<u8> {
        let ticks = self.next_ticks(duration);
        // A SimpleBlock: of track 1, at the time of the Cluster, a key frame without lacing (RFC 9559, section 10.2).
        let block = [&[0x81, 0, 0, 0x80][..], frame].concat();
        let inside = [element(&[0xe7], &ticks.to_be_bytes()), element(&[0xa3], &block)];
        element(&[0x1f, 0x43, 0xb6, 0x75], &inside.concat())
    }

    /// Makes a Cluster of another section the next one of this.
    pub(super) fn number_again(&mut self, cluster: &mut [u8], duration: Duration) {
        let ticks = self.next_ticks(duration);
        // Its ID, its size, the ID of the time, and the size of that.
        let before = cluster.get(4).map(|size| 4 + size.leading_zeros() as usize + 1 + 2);
        let time = before.and_then(|before| cluster.get_mut(before..before + 8));
        time.into_iter().for_each(|time| time.copy_from_slice(&ticks.to_be_bytes()));
    }

    fn next_ticks(&mut self, duration: Duration) -> u64 {
        let ticks = (self.time.as_nanos() / u128::from(TICK)) as u64;
        self.time = self.time.saturating_add(duration);
        ticks
    }
}

/// An element. Its size is a number whose highest bit says how many bytes it has, and which is not all ones (RFC 8794, section 6).
fn element(id: &[u8], body: &[u8]) -> Vec<u8> {
    let len = body.len() as u64;
    let width = (1..8).find(|width| len < (1 << (7 * width)) - 1).unwrap_or(8);
    let size = (1 << (7 * width) | len).to_be_bytes();
    [id, &size[8 - width..], body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{ContainerFormat, MediaInfo};

    /// Frames of 4096 samples, 16 bits, stereo, 44.1 kHz, up to 1234 bytes, 700 kbit/s.
    fn alac_box() -> Vec<u8> {
        let mut alac = vec![0, 0, 0, 0, 0, 0, 0x10, 0, 0, 16, 40, 10, 14, 2, 0, 255];
        alac.extend(1234_u32.to_be_bytes());
        alac.extend(700_000_u32.to_be_bytes());
        alac.extend(44_100_u32.to_be_bytes());
        alac
    }

    #[test]
    fn the_head_has_what_a_decoder_needs_and_nothing_of_one_encoding() {
        let format = alac_format(&alac_box()).unwrap();
        assert_eq!((format.codec, format.sample_rate, format.channels), (AudioCodec::Alac, 44_100, 2));
        let head = format.head.clone().unwrap();
        let info = MediaInfo::detect(None, "", &head);
        assert_eq!(info.container.map(|(container, _)| container), Some(ContainerFormat::Matroska));
        assert_eq!(info.codec.map(|(codec, _)| codec), Some(AudioCodec::Alac));
        let mut other = alac_box();
        other[16..24].fill(9);
        assert_eq!(alac_format(&other), Some(format.clone()), "another encoding of the same kind");
        other[9] = 24;
        assert_ne!(alac_format(&other).unwrap().head, format.head, "24 bits");
    }

    #[test]
    fn what_follows_the_cookie_is_left_out() {
        let plain = alac_format(&alac_box());
        // A terminator, as QuickTime has it.
        let padded = [alac_box(), vec![0, 0, 0, 8, 0, 0, 0, 0]].concat();
        assert_eq!(alac_format(&padded), plain);
        let layout = [&[0, 0, 0, 24][..], b"chan", &[0; 16]].concat();
        let with_layout = alac_format(&[alac_box(), layout, vec![7; 1 << 20]].concat()).unwrap();
        let len = |format: &Format| format.head.as_ref().unwrap().len();
        assert_eq!(len(&with_layout), len(plain.as_ref().unwrap()) + 24);
    }

    #[test]
    fn a_damaged_box_has_no_format() {
        let alac = alac_box();
        assert!((0..alac.len()).all(|len| alac_format(&alac[..len]).is_none()));
        for (at, value) in [(6, 0), (8, 1), (9, 17), (13, 0), (13, 9)] {
            let mut damaged = alac.clone();
            damaged[at] = value;
            assert_eq!(alac_format(&damaged), None, "byte {at}");
        }
        assert_eq!(alac_format(&[0; 28]), None);
    }

    #[test]
    fn clusters_follow_each_other() {
        let mut clusters = Clusters::default();
        let first = clusters.cluster(b"one", Duration::from_nanos(92_879_818));
        let second = clusters.cluster(b"two", Duration::ZERO);
        assert_eq!(first, b"\x1f\x43\xb6\x75\x93\xe7\x88\0\0\0\0\0\0\0\0\xa3\x87\x81\0\0\x80one");
        assert_eq!(second, b"\x1f\x43\xb6\x75\x93\xe7\x88\0\0\0\0\0\x01\x6a\xcf\xa3\x87\x81\0\0\x80two");
    }

    #[test]
    fn a_cluster_of_another_section_is_numbered_as_if_it_were_of_this_one() {
        let frames: Vec<Vec<u8>> = [1, 100, 200, 20_000].map(|len| vec![7; len]).into();
        let duration = Duration::from_nanos(92_879_818);
        let mut clusters = Clusters::default();
        let framed: Vec<_> = frames.iter().map(|frame| clusters.cluster(frame, duration)).collect();
        let (mut again, mut anew) = (Clusters::default(), Clusters::default());
        for (mut cluster, frame) in framed.into_iter().zip(frames).skip(1) {
            again.number_again(&mut cluster, duration);
            assert_eq!(cluster, anew.cluster(&frame, duration));
        }
    }

    #[test]
    fn sizes_are_as_short_as_they_can_be() {
        for (len, size) in [(126, &[0xfe][..]), (127, &[0x40, 127]), (0x3fff, &[0x20, 0x3f, 0xff])] {
            let element = element(&[0xa3], &vec![0; len]);
            assert_eq!(&element[1..element.len() - len], size, "{len} bytes");
        }
    }
}
