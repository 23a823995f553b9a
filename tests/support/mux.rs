//! A small muxer: frames with random contents, in every container that HLS has.

/// Samples per AAC frame.
pub const AAC: u64 = 1024;

/// A reproducible generator (Knuth's MMIX).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Raw AAC frames, number `first` and those behind it. Each begins with its number.
pub fn aac_frames(first: u64, count: u64) -> Vec<Vec<u8>> {
    let frame = |number: u64| {
        let mut random = Random(number + 1);
        let len = 150 + random.below(250);
        [&number.to_be_bytes()[..], &random.bytes(len)].concat()
    };
    (first..first + count).map(frame).collect()
}

/// With a header of LC, stereo; `rate` is an index: 3 for 48 kHz, 4 for 44.1 kHz.
pub fn adts(raw: &[u8], rate: u8) -> Vec<u8> {
    let len = raw.len() + 7;
    let head = [
        0xff,
        0xf1,
        0x40 | rate << 2,
        0x80 | (len >> 11) as u8,
        (len >> 3) as u8,
        (len << 5) as u8 | 0x1f,
        0xfc,
    ];
    [&head[..], raw].concat()
}

/// What a StreamMuxConfig of LATM says.
#[derive(Clone, Debug)]
pub struct LatmConfig {
    /// audioMuxVersion: 0 or 1.
    pub version: u32,
    /// Frames of an element.
    pub frames: u32,
    pub layers: u32,
    /// AudioSpecificConfig. Of version 0 all its bits have to belong to it.
    pub audio: Vec<u8>,
    pub other_bits: u32,
    pub has_checksum: bool,
}

impl LatmConfig {
    /// LC, 48 kHz, stereo.
    pub fn lc(version: u32) -> Self {
        Self { version, frames: 1, layers: 1, audio: vec![0x11, 0x90], other_bits: 0, has_checksum: false }
    }

    fn write(&self, bits: &mut BitWriter) {
        bits.put(self.version, 1);
        if self.version == 1 {
            // audioMuxVersionA, and taraBufferFullness in two bytes.
            bits.put(0, 1);
            bits.put(1, 2);
            bits.put(0xabc, 16);
        }
        bits.put(1, 1);
        bits.put(self.frames - 1, 6);
        bits.put(0, 4);
        bits.put(self.layers - 1, 3);
        if self.version == 1 {
            // With three bits to spare.
            bits.put(0, 2);
            bits.put(self.audio.len() as u32 * 8 + 3, 8);
        }
        self.audio.iter().for_each(|byte| bits.put(u32::from(*byte), 8));
        bits.put(0, if self.version == 1 { 3 } else { 0 });
        bits.put(0, 3);
        bits.put(0xff, 8);
        bits.put(u32::from(self.other_bits > 0), 1);
        if self.other_bits > 0 {
            // Two bytes, as LatmGetValue, or each with a flag that another one follows.
            let (high, low) = (self.other_bits >> 8, self.other_bits & 0xff);
            bits.put(1, if self.version == 1 { 2 } else { 1 });
            bits.put(high, 8);
            bits.put(0, if self.version == 1 { 0 } else { 1 });
            bits.put(low, 8);
        }
        bits.put(u32::from(self.has_checksum), 1);
        bits.put(0x5a, if self.has_checksum { 8 } else { 0 });
    }
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    used: u32,
}

impl BitWriter {
    fn put(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            if self.used % 8 == 0 {
                self.bytes.push(0);
            }
            let last = self.bytes.len() - 1;
            self.bytes[last] |= ((value >> bit & 1) as u8) << (7 - self.used % 8);
            self.used += 1;
        }
    }
}

/// An element of LATM in LOAS. Without a configuration it refers to the one before.
pub fn loas(config: Option<&LatmConfig>, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bits = BitWriter::default();
    bits.put(u32::from(config.is_none()), 1);
    if let Some(config) = config {
        config.write(&mut bits);
    }
    for frame in frames {
        (0..frame.len() / 255).for_each(|_| bits.put(255, 8));
        bits.put(frame.len() as u32 % 255, 8);
        frame.iter().for_each(|byte| bits.put(u32::from(*byte), 8));
    }
    (0..config.map_or(0, |config| config.other_bits)).for_each(|_| bits.put(1, 1));
    let len = bits.bytes.len() as u16;
    [&[0x56, 0xe0 | (len >> 8) as u8, len as u8][..], &bits.bytes].concat()
}

/// MP3 frames of 417 bytes: 128 kbit/s at 44.1 kHz.
pub fn mp3_frames(first: u64, count: u64) -> Vec<Vec<u8>> {
    let frame = |number: u64| {
        let mut random = Random(number + 1);
        [&[0xff, 0xfb, 0x90, 0x64][..], &[0; 36], &number.to_be_bytes(), &random.bytes(417 - 48)].concat()
    };
    (first..first + count).map(frame).collect()
}

/// AC-3 frames of 768 bytes: 192 kbit/s at 48 kHz, stereo.
pub fn ac3_frames(first: u64, count: u64) -> Vec<Vec<u8>> {
    let frame = |number: u64| {
        let mut random = Random(number + 1);
        [&[0x0b, 0x77, 0, 0, 0x14, 0x40, 0x43][..], &number.to_be_bytes(), &random.bytes(768 - 15)].concat()
    };
    (first..first + count).map(frame).collect()
}

/// An ID3 tag with a time in units of 90 kHz.
pub fn id3(ticks: u64) -> Vec<u8> {
    let owner = b"com.apple.streaming.transportStreamTimestamp\0";
    let body = [&owner[..], &ticks.to_be_bytes()].concat();
    let frame = [b"PRIV", &(body.len() as u32).to_be_bytes()[..], &[0, 0], &body].concat();
    [b"ID3\x04\0\0", &[0, 0, 0, frame.len() as u8][..], &frame].concat()
}

/// A multiplexer of MPEG-TS. Continuity counters start at 0.
#[derive(Debug)]
pub struct Ts {
    /// Type of the audio stream: 0x0f for AAC, 0x11 for LATM, 0x03 for MP3, 0x81 for AC-3.
    pub kind: u8,
    /// Frames in each PES packet.
    pub frames_per_pes: usize,
    /// Packets of a video stream between those of the audio.
    pub has_video: bool,
    pub audio_pid: u16,
    /// The tables apply at once.
    pub is_current: bool,
    counters: std::collections::HashMap<u16, u8>,
}

const MAP_PID: u16 = 0x1000;
pub const AUDIO_PID: u16 = 0x101;
const VIDEO_PID: u16 = 0x100;

impl Ts {
    pub fn new(kind: u8) -> Self {
        Self {
            kind,
            frames_per_pes: 4,
            has_video: false,
            audio_pid: AUDIO_PID,
            is_current: true,
            counters: Default::default(),
        }
    }

    /// A whole segment. The first frame has this time, in units of 90 kHz; each frame is so many units long.
    pub fn segment(&mut self, frames: &[Vec<u8>], time: u64, ticks_per_frame: f64) -> Vec<u8> {
        let mut out = self.tables();
        for (index, group) in frames.chunks(self.frames_per_pes).enumerate() {
            let ticks = ((index * self.frames_per_pes) as f64 * ticks_per_frame) as u64;
            out.extend(self.pes(self.audio_pid, 0xc0, &group.concat(), (time + ticks) % (1 << 33)));
            if self.has_video {
                let noise = Random(index as u64).bytes(500);
                out.extend(self.pes(VIDEO_PID, 0xe0, &noise, time % (1 << 33)));
            }
        }
        out
    }

    pub fn tables(&mut self) -> Vec<u8> {
        let association = [0, 1, 0xe0 | (MAP_PID >> 8) as u8, MAP_PID as u8];
        let stream = |kind: u8, pid: u16| [kind, 0xe0 | (pid >> 8) as u8, pid as u8, 0xf0, 0];
        let mut map = vec![0xe1, 0, 0xf0, 0];
        if self.has_video {
            map.extend(stream(0x1b, VIDEO_PID));
        }
        map.extend(stream(self.kind, self.audio_pid));
        let mut out = self.packets(0, &section(0, &association, true), None);
        out.extend(self.packets(MAP_PID, &section(2, &map, self.is_current), None));
        out
    }

    fn pes(&mut self, pid: u16, stream: u8, payload: &[u8], time: u64) -> Vec<u8> {
        let len = payload.len() + 8;
        let len = if pid == VIDEO_PID { 0 } else { len };
        let time = [
            0x21 | (time >> 29) as u8 & 0x0e,
            (time >> 22) as u8,
            (time >> 14) as u8 | 1,
            (time >> 7) as u8,
            (time << 1) as u8 | 1,
        ];
        let head = [0, 0, 1, stream, (len >> 8) as u8, len as u8, 0x80, 0x80, 5];
        self.packets(pid, &[&head[..], &time, payload].concat(), Some(0xff))
    }

    /// Cuts a payload into packets. Sections are padded behind, others by an adaptation field before.
    fn packets(&mut self, pid: u16, payload: &[u8], stuffing: Option<u8>) -> Vec<u8> {
        let mut out = Vec::new();
        for (index, part) in payload.chunks(184).enumerate() {
            let counter = self.counters.entry(pid).or_default();
            let start = if index == 0 { 0x40 } else { 0 };
            let missing = 184 - part.len();
            let field = if missing > 0 && stuffing.is_some() { 0x30 } else { 0x10 };
            out.extend([0x47, start | (pid >> 8) as u8, pid as u8, field | *counter]);
            *counter = (*counter + 1) & 15;
            if field == 0x30 {
                out.push(missing as u8 - 1);
                out.extend((0..missing - 1).map(|at| if at == 0 { 0 } else { 0xff }));
            }
            out.extend(part);
            out.resize(out.len().next_multiple_of(188), 0xff);
        }
        out
    }
}

fn section(table: u8, body: &[u8], is_current: bool) -> Vec<u8> {
    let len = body.len() + 9;
    let mut out = vec![0, table, 0xb0, len as u8, 0, 1, 0xc0 | u8::from(is_current), 0, 0];
    out.extend(body);
    let crc = out[1..].iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    });
    out.extend(crc.to_be_bytes());
    out
}

pub fn mp4_box(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat()
}

fn full_box(kind: &[u8; 4], version: u8, flags: u32, body: &[u8]) -> Vec<u8> {
    mp4_box(kind, &[&(u32::from(version) << 24 | flags).to_be_bytes()[..], body].concat())
}

/// The sample entry of a codec.
pub enum Entry {
    /// LC, stereo, with the rate index.
    Aac(u8),
    Flac,
    Opus,
    Alac,
    /// DTS, which is not supported.
    Dts,
}

/// STREAMINFO of 44.1 kHz, stereo, 16 bits.
pub fn streaminfo() -> Vec<u8> {
    let mut info = vec![0x10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0x0a, 0xc4, 0x42, 0xf0, 0, 0, 0x10, 0];
    info.extend([7; 16]);
    info
}

/// ALACSpecificConfig: 4096 samples a frame, 16 bits, stereo.
pub fn alac_cookie(rate: u32) -> Vec<u8> {
    let fixed = [0, 0, 0x10, 0, 0, 16, 40, 10, 14, 2, 0, 255, 0, 0, 0x40, 0, 0, 0x0a, 0xae, 0x60];
    [&fixed[..], &rate.to_be_bytes()].concat()
}

/// An initialization section with one audio track of this timescale; samples before `start` are encoder delay.
pub fn init(entry: &Entry, timescale: u32, start: i64) -> Vec<u8> {
    let (kind, channels_and_rate, extension) = match entry {
        Entry::Aac(rate) => {
            let config = [0x10 | rate >> 1, (rate & 1) << 7 | 0x10];
            let decoder =
                [&[0x04, 15 + 2 + 2, 0x40, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x05, 2][..], &config]
                    .concat();
            let esds = [&[0x03, decoder.len() as u8 + 3, 0, 0, 0][..], &decoder].concat();
            (b"mp4a", timescale, full_box(b"esds", 0, 0, &esds))
        }
        Entry::Flac => {
            (b"fLaC", timescale, full_box(b"dfLa", 0, 0, &[&[0x80, 0, 0, 34][..], &streaminfo()].concat()))
        }
        Entry::Alac => (b"alac", timescale, full_box(b"alac", 0, 0, &alac_cookie(timescale))),
        Entry::Dts => (b"dtsc", timescale, mp4_box(b"ddts", &[0; 20])),
        Entry::Opus => (b"Opus", 48_000, mp4_box(b"dOps", &[0, 2, 1, 0x38, 0, 0, 0xbb, 0x80, 0, 0, 0])),
    };
    let mut sample = vec![0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 16, 0, 0, 0, 0];
    sample.extend((channels_and_rate << 16).to_be_bytes());
    sample.extend(extension);
    let stsd = full_box(b"stsd", 0, 0, &[&[0, 0, 0, 1][..], &mp4_box(kind, &sample)].concat());
    let hdlr = full_box(b"hdlr", 0, 0, &[&[0; 4][..], b"soun", &[0; 13]].concat());
    let mdhd = full_box(b"mdhd", 0, 0, &[&[0; 8][..], &timescale.to_be_bytes(), &[0; 8]].concat());
    let minf = mp4_box(b"minf", &mp4_box(b"stbl", &stsd));
    let elst =
        full_box(b"elst", 1, 0, &[&[0, 0, 0, 1][..], &[0; 8], &start.to_be_bytes(), &[0, 1, 0, 0]].concat());
    let tkhd = full_box(b"tkhd", 0, 7, &[&[0; 8][..], &[0, 0, 0, 7], &[0; 68]].concat());
    let trak = [tkhd, mp4_box(b"edts", &elst), mp4_box(b"mdia", &[mdhd, hdlr, minf].concat())].concat();
    let trex = full_box(
        b"trex",
        0,
        0,
        &[&[0, 0, 0, 7, 0, 0, 0, 1][..], &(AAC as u32).to_be_bytes(), &[0; 8]].concat(),
    );
    let moov = [mp4_box(b"trak", &trak), mp4_box(b"mvex", &trex)].concat();
    [mp4_box(b"ftyp", b"iso5\0\0\0\0iso5"), mp4_box(b"moov", &moov)].concat()
}

/// A track fragment of track 7. Its samples begin `offset` bytes behind the start of the `moof`.
fn traf(samples: &[Vec<u8>], time: u64, offset: u32) -> Vec<u8> {
    let mut trun = (samples.len() as u32).to_be_bytes().to_vec();
    trun.extend(offset.to_be_bytes());
    samples.iter().for_each(|sample| trun.extend((sample.len() as u32).to_be_bytes()));
    let traf = [
        full_box(b"tfhd", 0, 0x2_0000, &[0, 0, 0, 7]),
        full_box(b"tfdt", 1, 0, &time.to_be_bytes()),
        full_box(b"trun", 0, 0x201, &trun),
    ];
    mp4_box(b"traf", &traf.concat())
}

/// A fragment with two track fragments of track 7, each with its time.
pub fn fragment_of_two(first: &[Vec<u8>], time: u64, second: &[Vec<u8>], second_time: u64) -> Vec<u8> {
    let moof = |offset: u32| {
        let mut offset = offset;
        let mut body = full_box(b"mfhd", 0, 0, &[0, 0, 0, 1]);
        for (samples, time) in [(first, time), (second, second_time)] {
            body.extend(traf(samples, time, offset));
            offset += samples.concat().len() as u32;
        }
        mp4_box(b"moof", &body)
    };
    let offset = moof(0).len() as u32 + 8;
    [moof(offset), mp4_box(b"mdat", &[first.concat(), second.concat()].concat())].concat()
}

/// A fragment of track 7 whose first sample is decoded at `time`.
pub fn fragment(samples: &[Vec<u8>], time: u64) -> Vec<u8> {
    let moof = |offset: u32| {
        let mfhd = full_box(b"mfhd", 0, 0, &[0, 0, 0, 1]);
        mp4_box(b"moof", &[mfhd, traf(samples, time, offset)].concat())
    };
    let offset = moof(0).len() as u32 + 8;
    [mp4_box(b"styp", b"msdh\0\0\0\0"), moof(offset), mp4_box(b"mdat", &samples.concat())].concat()
}
