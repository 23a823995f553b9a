//! Ogg pages for Opus (RFC 3533, RFC 7845): the packets of MP4 have no framing of their own.

/// All pages of a section belong to one logical stream.
const SERIAL: u32 = 1;

/// Bytes of a packet that fits into one page: 255 segments of 255 bytes, of which the last one must be shorter.
const LONGEST: usize = 255 * 255 - 1;

/// What a `dOps` box says (Encapsulation of Opus in ISO Base Media File Format, section 4.3.2).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OpusHead {
    pub(super) channels: u16,
    /// Encoder delay, in samples at 48 kHz.
    pub(super) pre_skip: u16,
    /// The two header pages.
    pub(super) pages: Vec<u8>,
}

/// Reads a `dOps` box. `None` if it is damaged.
pub(super) fn head(dops: &[u8]) -> Option<OpusHead> {
    let (fixed, mapping) = dops.split_at_checked(11)?;
    let (version, channels) = (fixed[0], fixed[1]);
    let is_whole = fixed[10] == 0 || mapping.len() >= 2 + usize::from(channels);
    if version != 0 || channels == 0 || !is_whole {
        return None;
    }
    let mut identification = b"OpusHead\x01".to_vec();
    identification.push(channels);
    // A pre-skip of 0: a section may begin anywhere. How much to drop at the start of the presentation is reported as for other codecs.
    identification.extend([0, 0]);
    // RFC 7845, section 5.1, has the same fields in little endian.
    for field in [&fixed[4..8], &fixed[8..10]] {
        identification.extend(field.iter().rev());
    }
    identification.push(fixed[10]);
    if fixed[10] != 0 {
        identification.extend(&mapping[..2 + usize::from(channels)]);
    }
    // RFC 7845, section 5.2: the vendor with its length, and no comments. A stream without this packet is refused.
    let comment = b"OpusTags\x07\0\0\0windway\0\0\0\0";
    // RFC 3533, section 6: 2 marks the first page of a logical stream. RFC 7845, section 3: both headers have pages of their own.
    let mut pages = page(0, 0, 2, &identification)?;
    pages.extend(page(1, 0, 0, comment)?);
    let pre_skip = u16::from_be_bytes([fixed[2], fixed[3]]);
    Some(OpusHead { channels: u16::from(channels), pre_skip, pages })
}

/// Makes pages of the packets of a section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OggPages {
    next: u32,
    /// Samples at 48 kHz up to the end of the last packet.
    granule: u64,
}

impl Default for OggPages {
    /// Continues behind the two header pages.
    fn default() -> Self {
        Self { next: 2, granule: 0 }
    }
}

impl OggPages {
    /// A page with this packet. `None` if that is too long or no packet of Opus.
    pub(super) fn page(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let granule = self.granule + u64::from(samples(packet)?);
        let page = page(self.next, granule, 0, packet)?;
        (self.next, self.granule) = (self.next.wrapping_add(1), granule);
        Some(page)
    }

    /// Makes a page of another section the next one of this.
    pub(super) fn number_again(&mut self, page: &mut [u8]) {
        let packet = page.get(26).and_then(|segments| page.get(27 + usize::from(*segments)..));
        let Some(samples) = packet.and_then(samples) else { return };
        self.granule += u64::from(samples);
        page[6..14].copy_from_slice(&self.granule.to_le_bytes());
        page[18..22].copy_from_slice(&self.next.to_le_bytes());
        self.next = self.next.wrapping_add(1);
        set_checksum(page);
    }
}

/// Samples of a packet at 48 kHz, by its first byte (RFC 6716, section 3.1), and if that says so by its second one.
pub(super) fn samples(packet: &[u8]) -> Option<u32> {
    let toc = *packet.first()?;
    let of_frame = match toc >> 3 {
        config @ 0..=11 => [480, 960, 1920, 2880][usize::from(config & 3)],
        config @ 12..=15 => [480, 960][usize::from(config & 1)],
        config => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 0x3f),
    };
    // RFC 6716, section 3.2.5: a packet has at least one frame, and 120 ms at most.
    Some(of_frame * count).filter(|samples| (1..=5760).contains(samples))
}

fn page(number: u32, granule: u64, flags: u8, packet: &[u8]) -> Option<Vec<u8>> {
    if packet.len() > LONGEST {
        return None;
    }
    let mut page = b"OggS\0".to_vec();
    page.push(flags);
    page.extend(granule.to_le_bytes());
    page.extend(SERIAL.to_le_bytes());
    page.extend(number.to_le_bytes());
    page.extend([0; 4]);
    // Lacing (RFC 3533, section 5): a packet ends with a segment that is shorter than 255 bytes.
    let full = packet.len() / 255;
    page.push(full as u8 + 1);
    page.resize(page.len() + full, 255);
    page.push((packet.len() % 255) as u8);
    page.extend(packet);
    set_checksum(&mut page);
    Some(page)
}

fn set_checksum(page: &mut [u8]) {
    // RFC 3533, section 6: it is computed with zeros in its own place.
    page[22..26].fill(0);
    let checksum = checksum(page).to_le_bytes();
    page[22..26].copy_from_slice(&checksum);
}

/// CRC-32 of Ogg: not reflected, and not inverted.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |sum, byte| sum << 8 ^ TABLE[usize::from((sum >> 24) as u8 ^ byte)])
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut sum = (index as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 << 31 == 0 { sum << 1 } else { sum << 1 ^ 0x04c1_1db7 };
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// `dOps` of stereo with a pre-skip of 312 samples at 48 kHz.
    const DOPS: [u8; 11] = [0, 2, 1, 0x38, 0, 0, 0xbb, 0x80, 0, 0, 0];

    #[test]
    fn the_head_is_that_of_rfc_7845() {
        let OpusHead { channels, pre_skip, pages } = head(&DOPS).unwrap();
        assert_eq!((channels, pre_skip), (2, 312));
        assert_eq!(&pages[..6], b"OggS\0\x02");
        assert_eq!(&pages[28..47], b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\0");
        assert_eq!(super::head(&DOPS[..10]), None);
        assert_eq!(super::head(&[0; 11]), None);
        assert_eq!(super::head(&[0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]), None);
    }

    #[test]
    fn the_checksum_is_that_of_ogg() {
        // The page of an empty packet, as libogg writes it.
        assert_eq!(checksum(b""), 0);
        assert_eq!(checksum(b"123456789"), 0x89a1_897f);
    }

    #[test]
    fn packets_are_laced_and_counted() {
        let mut pages = OggPages::default();
        // Two frames of 20 ms.
        let page = pages.page(&[&[31 << 3 | 1][..], &[7; 299]].concat()).unwrap();
        assert_eq!(page[6..14], 1920_u64.to_le_bytes());
        assert_eq!((page[18], &page[26..29]), (2, &[2, 255, 45][..]));
        assert_eq!(pages.page(&[31 << 3; 255]).unwrap()[6..14], 2880_u64.to_le_bytes());
        assert_eq!(pages.page(&[]), None);
        // 63 frames of 20 ms are longer than a packet may be.
        assert_eq!(pages.page(&[31 << 3 | 3, 63]), None);
    }

    #[test]
    fn a_page_of_another_section_is_numbered_as_if_it_were_of_this_one() {
        let packets: Vec<Vec<u8>> = (0..5).map(|len| vec![31 << 3; 100 + 200 * len]).collect();
        let mut pages = OggPages::default();
        let framed: Vec<_> = packets.iter().map(|packet| pages.page(packet).unwrap()).collect();
        let (mut again, mut anew) = (OggPages::default(), OggPages::default());
        for (mut page, packet) in framed.into_iter().zip(packets).skip(2) {
            again.number_again(&mut page);
            assert_eq!(Some(page), anew.page(&packet));
        }
    }

    #[test]
    fn a_packet_without_frames_is_none() {
        assert_eq!(samples(&[0x03, 0x00]), None);
        assert_eq!(samples(&[0x03, 0x01]), Some(480));
    }
}
