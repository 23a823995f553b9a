//! The ICY protocol of SHOUTcast and Icecast: a station's headers, and the metadata between its audio.
//!
//! A server may answer a request with `Icy-MetaData: 1` by `icy-metaint: N`. Its body is then
//!
//! ```text
//! N bytes of audio | length / 16 | block | N bytes of audio | length / 16 | block | ..
//! ```
//!
//! where the length is one byte, mostly 0, and the block is text, padded with NULs:
//! `StreamTitle='Artist - Title';StreamUrl='';`. There is no specification; this parser accepts what servers send.
//! It does no I/O and does not know when the audio is heard.

use std::num::NonZeroUsize;

use crate::media;
use crate::safe_url::SafeUrl;

/// The length byte of a block counts units of this many bytes.
const BLOCK_UNIT: usize = 16;
/// Larger intervals are ignored. Servers use 8 to 64 KiB; at 16 MiB a title would arrive after 17 minutes at 128 kbit/s.
const LONGEST_INTERVAL: usize = 16 << 20;

/// Separates the metadata from the audio of one connection. Each connection begins with audio and needs a new splitter.
#[derive(Debug)]
pub(crate) struct IcySplitter {
    /// Audio bytes between two blocks; `u64::MAX` if there are no blocks.
    interval: u64,
    /// The part that the next byte belongs to.
    inside: Inside,
    /// The received part of the current block. Empty outside a block, and at most 255 units.
    block: Vec<u8>,
    /// Audio bytes returned so far.
    position: u64,
}

#[derive(Clone, Copy, Debug)]
enum Inside {
    /// This many bytes of audio are left, at least one.
    Audio(u64),
    Length,
    /// This many bytes of the block are missing, at least one.
    Block(usize),
}

/// A part of the body. Parts are returned in the order of the body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum IcyPart<'a> {
    /// Never empty.
    Audio(&'a [u8]),
    /// A complete block, for [`IcyMetadata::parse`]. It applies from the audio byte at `position` on, counted from the
    /// start of the connection. That byte follows the block.
    Metadata { position: u64, block: Vec<u8> },
}

impl IcySplitter {
    /// For a body with a block after every `interval` bytes of audio (see [`RadioInfo::metadata_interval`]), or without
    /// blocks.
    pub(crate) fn new(interval: Option<NonZeroUsize>) -> Self {
        let interval = interval.map_or(u64::MAX, |interval| interval.get() as u64);
        Self { interval, inside: Inside::Audio(interval), block: Vec::new(), position: 0 }
    }

    /// The next part, taken from the front of `input`. `None` when `input` is empty: call again with the next bytes.
    pub(crate) fn next_part<'a>(&mut self, input: &mut &'a [u8]) -> Option<IcyPart<'a>> {
        while !input.is_empty() {
            match self.inside {
                Inside::Audio(left) => return Some(IcyPart::Audio(self.take_audio(left, input))),
                Inside::Length => self.take_length(input),
                Inside::Block(missing) => {
                    if let Some(block) = self.take_block(missing, input) {
                        return Some(IcyPart::Metadata { position: self.position, block });
                    }
                }
            }
        }
        None
    }

    fn take_audio<'a>(&mut self, left: u64, input: &mut &'a [u8]) -> &'a [u8] {
        // `u64::MAX` stands for a body without blocks, and may not fit into a `usize`. `take` never takes more than there is.
        let len = usize::try_from(left).unwrap_or(usize::MAX);
        let audio = take(input, len);
        let taken = audio.len() as u64;
        self.position += taken;
        // A length byte follows each interval, also where no title has changed: then it is 0.
        self.inside = if taken < left { Inside::Audio(left - taken) } else { Inside::Length };
        audio
    }

    fn take_length(&mut self, input: &mut &[u8]) {
        let &[units] = take(input, 1) else { return };
        self.inside = match usize::from(units) * BLOCK_UNIT {
            0 => Inside::Audio(self.interval),
            len => Inside::Block(len),
        };
    }

    fn take_block(&mut self, missing: usize, input: &mut &[u8]) -> Option<Vec<u8>> {
        let part = take(input, missing);
        self.block.extend_from_slice(part);
        if part.len() < missing {
            self.inside = Inside::Block(missing - part.len());
            return None;
        }
        self.inside = Inside::Audio(self.interval);
        Some(std::mem::take(&mut self.block))
    }
}

/// Up to `len` bytes from the front of `input`.
fn take<'a>(input: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(len.min(input.len()));
    *input = rest;
    taken
}

/// The content of a metadata block. A field that is present but empty is `Some("")`: the station cleared it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IcyMetadata {
    /// `StreamTitle`, by custom "Artist - Title".
    pub(crate) title: Option<String>,
    /// The same as it was sent.
    pub(crate) title_bytes: Option<Vec<u8>>,
    /// `StreamUrl`: a URL of the station or the cover, or any text.
    pub(crate) url: Option<SafeUrl>,
    /// The fields with other names, in the order of the block.
    pub(crate) others: Vec<(String, String)>,
}

impl IcyMetadata {
    /// Parses leniently: text that is not a field is skipped, and a value without an end reaches to the end of the block.
    /// The last of several fields with the same name applies.
    pub(crate) fn parse(block: &[u8]) -> Self {
        // Padding begins at the first NUL. Some servers leave an older title in it.
        let mut rest = block.split(|&byte| byte == 0).next().unwrap_or_default();
        let mut metadata = Self::default();
        while let Some((key, value)) = next_field(&mut rest) {
            metadata.set(key, value);
        }
        metadata
    }

    fn set(&mut self, key: &[u8], bytes: &[u8]) {
        let value = text(bytes);
        if key.eq_ignore_ascii_case(b"StreamTitle") {
            (self.title, self.title_bytes) = (Some(value), Some(bytes.to_owned()));
        } else if key.eq_ignore_ascii_case(b"StreamUrl") {
            self.url = Some(value.into());
        } else {
            self.others.push((text(key), value));
        }
    }
}

/// Takes the next `key='value';` from the front of `rest`, with the text before it.
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    loop {
        let (before, after) = split_once(rest, b"='")?;
        // What stands before the key belongs to no field, such as the rest of a title that has `';` in it.
        let key = &before[before.len() - before.iter().rev().take_while(is_key).count()..];
        // `='` inside of a title, for example `Mix ='98'`, is not a field.
        if key.is_empty() {
            *rest = after;
            continue;
        }
        let (value, next) = split_value(after);
        *rest = next;
        return Some((key, value));
    }
}

/// The value at the front, and the text after its end.
fn split_value(bytes: &[u8]) -> (&[u8], &[u8]) {
    // Titles are not escaped, so the first `';` may be a part of the title.
    let ends = bytes.windows(2).enumerate().filter(|(_, pair)| pair == b"';").map(|(at, _)| at);
    for end in ends {
        let next = &bytes[end + 2..];
        if begins_field(next) {
            return (&bytes[..end], next);
        }
    }
    // Some servers omit the last semicolon.
    (bytes.strip_suffix(b"'").unwrap_or(bytes), &[])
}

/// True if a field begins here, also if the block cuts it short, and at the end of the block.
fn begins_field(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii_start();
    let key_len = bytes.iter().take_while(is_key).count();
    let rest = &bytes[key_len..];
    rest.is_empty() || (key_len > 0 && (rest.starts_with(b"='") || rest == b"="))
}

fn is_key(byte: &&u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn split_once<'a>(bytes: &'a [u8], separator: &[u8; 2]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(2).position(|pair| pair == separator)?;
    Some((&bytes[..at], &bytes[at + 2..]))
}

/// Decodes UTF-8, and Windows-1252 if it is not valid UTF-8.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        // SHOUTcast 1 sends the encoding of the station's computer, mostly this one.
        Err(_) => bytes.iter().copied().map(media::windows_1252).collect(),
    }
}

/// True for header fields that only stations send: those of SHOUTcast and of Icecast.
pub(crate) fn is_station_header(name: &str) -> bool {
    name.starts_with("icy-") || name.starts_with("ice-")
}

/// A radio station's description of itself, from its response headers. Missing and empty fields are `None`.
///
/// ```no_run
/// # let radio = windway::Downloader::global()?.open_radio("http://example.com:8000/", Default::default())?;
/// if let Some(info) = radio.handle().info() {
///     println!("{} ({} kbit/s)", info.name.unwrap_or_default(), info.bitrate.unwrap_or(0));
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RadioInfo {
    /// The station's name (`icy-name`).
    pub name: Option<String>,
    /// The station's description (`icy-description`).
    pub description: Option<String>,
    /// Its genre, or several in one text (`icy-genre`).
    pub genre: Option<String>,
    /// The station's home page (`icy-url`). It may be text that is not a URL.
    pub url: Option<SafeUrl>,
    /// The announced bit rate in kbit/s (`icy-br`, otherwise from `ice-audio-info`). The audio may have a different
    /// one.
    pub bitrate: Option<u32>,
    /// True if directories may list the station (`icy-pub`).
    pub public: Option<bool>,
    /// Audio bytes between two metadata blocks (`icy-metaint`), 16 MiB at most; `None` if there are no blocks.
    pub metadata_interval: Option<NonZeroUsize>,
}

impl RadioInfo {
    /// Reads the headers of a response. Names are compared without case. The first valid one of several headers with the
    /// same name applies.
    pub(crate) fn from_headers<'a>(headers: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut info = Self::default();
        let mut audio_info_bitrate = None;
        for (name, value) in headers {
            let value = text(value);
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "icy-name" => keep_first(&mut info.name, not_empty(value)),
                "icy-description" => keep_first(&mut info.description, not_empty(value)),
                "icy-genre" => keep_first(&mut info.genre, not_empty(value)),
                "icy-url" => keep_first(&mut info.url, not_empty(value).map(SafeUrl::from)),
                "icy-br" => keep_first(&mut info.bitrate, parse_bitrate(value)),
                "ice-audio-info" => keep_first(&mut audio_info_bitrate, parse_audio_info(value)),
                "icy-pub" => keep_first(&mut info.public, parse_public(value)),
                "icy-metaint" => keep_first(&mut info.metadata_interval, parse_interval(value)),
                _ => {}
            }
        }
        // `icy-br` first: `ice-audio-info` is what the encoder was configured to, and the mount may transcode.
        info.bitrate = info.bitrate.or(audio_info_bitrate);
        info
    }

    /// The audio of the first bytes of a body: what follows the first interval is metadata.
    pub(crate) fn audio_of<'a>(&self, first: &'a [u8]) -> &'a [u8] {
        let len = self.metadata_interval.map_or(first.len(), |interval| first.len().min(interval.get()));
        &first[..len]
    }
}

fn keep_first<T>(field: &mut Option<T>, found: Option<T>) {
    *field = field.take().or(found);
}

fn not_empty(value: &str) -> Option<String> {
    (!value.is_empty()).then(|| value.to_owned())
}

/// The first bit rate.
fn parse_bitrate(value: &str) -> Option<u32> {
    // Icecast joins the values of the source and of the mount: "128,128".
    let digits = value.split(|char: char| !char.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|&bitrate| bitrate > 0)
}

/// The bit rate in `bitrate=128;samplerate=44100` or `ice-bitrate=128;ice-channels=2`.
fn parse_audio_info(value: &str) -> Option<u32> {
    value.split(';').find_map(|field| {
        let (key, value) = field.split_once('=')?;
        let key = key.trim().to_ascii_lowercase();
        matches!(key.as_str(), "bitrate" | "ice-bitrate").then(|| parse_bitrate(value.trim()))?
    })
}

fn parse_public(value: &str) -> Option<bool> {
    match value {
        "1" => Some(true),
        "0" => Some(false),
        _ => None,
    }
}

fn parse_interval(value: &str) -> Option<NonZeroUsize> {
    // No interval of 0 either, which `NonZeroUsize` does not parse: there would be no audio between two blocks.
    value.parse().ok().filter(|interval: &NonZeroUsize| interval.get() <= LONGEST_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// The parts that a splitter returned, joined.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Output {
        audio: Vec<u8>,
        blocks: Vec<(u64, Vec<u8>)>,
    }

    impl Output {
        fn titles(&self) -> Vec<(u64, String)> {
            let title = |block: &[u8]| IcyMetadata::parse(block).title.unwrap();
            self.blocks.iter().map(|(position, block)| (*position, title(block))).collect()
        }
    }

    /// Passes `bytes` to a new splitter in reads of the given lengths, repeated.
    fn split(interval: usize, bytes: &[u8], reads: &[usize]) -> Output {
        let mut splitter = IcySplitter::new(NonZeroUsize::new(interval));
        let mut output = Output::default();
        let mut rest = bytes;
        let mut reads = reads.iter().cycle();
        while !rest.is_empty() {
            let mut input = take(&mut rest, *reads.next().unwrap());
            while let Some(part) = splitter.next_part(&mut input) {
                match part {
                    IcyPart::Audio(audio) => output.audio.extend_from_slice(audio),
                    IcyPart::Metadata { position, block } => output.blocks.push((position, block)),
                }
            }
            assert!(splitter.block.len() < 255 * BLOCK_UNIT);
        }
        output
    }

    /// `text` padded with NULs.
    fn padded(text: &[u8]) -> Vec<u8> {
        let mut block = text.to_vec();
        block.resize(text.len().next_multiple_of(BLOCK_UNIT), 0);
        block
    }

    /// The body that a server sends: the blocks in order, then empty ones.
    fn encode(audio: &[u8], interval: usize, blocks: &[Vec<u8>]) -> Vec<u8> {
        let mut blocks = blocks.iter();
        let mut bytes = Vec::new();
        for chunk in audio.chunks(interval) {
            bytes.extend_from_slice(chunk);
            if chunk.len() == interval {
                let block = blocks.next().map_or(&[][..], Vec::as_slice);
                bytes.push(u8::try_from(block.len() / BLOCK_UNIT).unwrap());
                bytes.extend_from_slice(block);
            }
        }
        bytes
    }

    /// The whole body at once, by index; also how many bytes are not audio.
    fn split_by_index(interval: usize, bytes: &[u8]) -> (Output, usize) {
        let mut output = Output::default();
        let mut metadata = 0;
        let mut at = 0;
        while at < bytes.len() {
            let audio = &bytes[at..bytes.len().min(at + interval)];
            output.audio.extend_from_slice(audio);
            at += audio.len();
            let Some(&units) = bytes.get(at) else { break };
            let (from, to) = (at + 1, at + 1 + usize::from(units) * BLOCK_UNIT);
            if units > 0 && to <= bytes.len() {
                output.blocks.push((output.audio.len() as u64, bytes[from..to].to_vec()));
            }
            metadata += bytes.len().min(to) - at;
            at = to;
        }
        (output, metadata)
    }

    fn title(block: &[u8]) -> Option<String> {
        IcyMetadata::parse(block).title
    }

    fn headers(headers: &[(&str, &[u8])]) -> RadioInfo {
        RadioInfo::from_headers(headers.iter().copied())
    }

    #[test]
    fn a_block_holds_from_the_audio_byte_after_it() {
        let bytes = b"abcd\x01StreamTitle='x';efgh\0ij";
        let block = b"StreamTitle='x';".to_vec();
        let expected = Output { audio: b"abcdefghij".to_vec(), blocks: vec![(4, block)] };
        for read in 1..=bytes.len() {
            assert_eq!(split(4, bytes, &[read]), expected, "reads of {read}");
        }
    }

    #[test]
    fn audio_is_lent_and_not_copied() {
        let bytes = b"abcdefgh";
        let mut input = &bytes[..];
        let mut splitter = IcySplitter::new(None);
        let Some(IcyPart::Audio(audio)) = splitter.next_part(&mut input) else { panic!("no audio") };
        assert!(std::ptr::eq(audio, &bytes[..]));
        assert_eq!(splitter.next_part(&mut input), None);
    }

    #[test]
    fn without_an_interval_everything_is_audio() {
        let bytes = b"abcd\x01StreamTitle='x';efgh";
        assert_eq!(split(0, bytes, &[3]), Output { audio: bytes.to_vec(), blocks: Vec::new() });
    }

    #[test]
    fn empty_blocks_leave_no_trace() {
        let expected = Output { audio: b"abcdef".to_vec(), blocks: Vec::new() };
        assert_eq!(split(2, b"ab\0cd\0ef\0", &[1]), expected);
    }

    #[test]
    fn the_longest_block_comes_whole() {
        let block = vec![b'x'; 255 * BLOCK_UNIT];
        let bytes = encode(b"ab", 1, &[block.clone(), block.clone()]);
        let expected = Output { audio: b"ab".to_vec(), blocks: vec![(1, block.clone()), (2, block)] };
        assert_eq!(split(1, &bytes, &[7]), expected);
    }

    #[test]
    fn a_new_connection_begins_with_audio_though_the_last_one_broke_inside_a_block() {
        let bytes = b"abcd\x01StreamTitle='x';";
        for cut in 4..bytes.len() {
            let expected = Output { audio: b"abcd".to_vec(), blocks: Vec::new() };
            assert_eq!(split(4, &bytes[..cut], &[3]), expected, "cut at {cut}");
        }
        assert_eq!(split(4, bytes, &[3]).titles(), [(4, "x".to_owned())]);
    }

    #[test]
    fn a_block_has_a_title_a_url_and_others() {
        let block = padded(b"StreamTitle='A - B';StreamUrl='http://host/?a=b;c';adw_ad='true';x-y='';");
        let others = [("adw_ad", "true"), ("x-y", "")];
        let expected = IcyMetadata {
            title: Some("A - B".to_owned()),
            title_bytes: Some(b"A - B".to_vec()),
            url: Some("http://host/?a=b;c".into()),
            others: others.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
        };
        assert_eq!(IcyMetadata::parse(&block), expected);
    }

    #[test]
    fn quotes_and_semicolons_live_in_titles() {
        let titles = [
            "It's; a 'test'",
            "It's; a 'test';",
            "'",
            "';",
            "';';",
            "Rock 'n' Roll; or 'Soul'; or both",
            "a=b; c='d'",
            "text=\"Song\" url='x' id=\"1\"",
            "",
        ];
        for expected in titles {
            for next in ["", "StreamUrl='http://host/';", " StreamUrl='';", "\r\n"] {
                let block = format!("StreamTitle='{expected}';{next}");
                assert_eq!(title(&padded(block.as_bytes())).as_deref(), Some(expected), "{block}");
            }
        }
    }

    #[test]
    fn names_of_fields_have_no_case() {
        assert_eq!(title(b"streamtitle='x';").as_deref(), Some("x"));
    }

    #[test]
    fn text_is_utf8_or_else_windows_1252_value_by_value() {
        let block = b"StreamTitle='Beyonc\xE9 \x96 Don\x92t \x80\x9F';StreamUrl='caf\xC3\xA9';";
        let metadata = IcyMetadata::parse(block);
        assert_eq!(metadata.title.as_deref(), Some("Beyoncé – Don’t €Ÿ"));
        assert_eq!(metadata.title_bytes.as_deref(), Some(&b"Beyonc\xE9 \x96 Don\x92t \x80\x9F"[..]));
        assert_eq!(metadata.url, Some("café".into()));
    }

    #[test]
    fn a_title_without_an_end_goes_to_the_end_of_the_block() {
        for (block, expected) in [
            (&b"StreamTitle='It's; a te"[..], "It's; a te"),
            (b"StreamTitle='A - B\0\0\0", "A - B"),
            (b"StreamTitle='A - B'\0\0\0", "A - B"),
            (b"StreamTitle='", ""),
        ] {
            assert_eq!(title(block).as_deref(), Some(expected), "{block:?}");
        }
    }

    #[test]
    fn a_cut_field_does_not_spoil_the_one_before() {
        for cut in ["S", "StreamUrl", "StreamUrl=", "StreamUrl='", "StreamUrl='htt"] {
            let block = format!("StreamTitle='x';{cut}");
            assert_eq!(title(block.as_bytes()).as_deref(), Some("x"), "{block}");
        }
    }

    #[test]
    fn what_is_no_field_is_passed_over() {
        assert_eq!(IcyMetadata::parse(b""), IcyMetadata::default());
        assert_eq!(IcyMetadata::parse(&[0; 32]), IcyMetadata::default());
        assert_eq!(IcyMetadata::parse(b"garbage; ='; \xFF\xFE"), IcyMetadata::default());
        assert_eq!(title(b"\xFF\xFE; ='?;StreamTitle='x';").as_deref(), Some("x"));
        assert_eq!(title(b"StreamTitle='new';\0StreamTitle='old';").as_deref(), Some("new"));
    }

    #[test]
    fn a_station_introduces_itself() {
        let info = headers(&[
            ("content-type", b"audio/mpeg"),
            ("icy-name", b" Radio \xC3\x96 "),
            ("ICY-Description", b"Caf\xE9"),
            ("Icy-Genre", b"Jazz"),
            ("icy-url", b"http://host/"),
            ("icy-br", b"128,128"),
            ("icy-pub", b"1"),
            ("Icy-MetaInt", b"16000"),
        ]);
        let expected = RadioInfo {
            name: Some("Radio Ö".to_owned()),
            description: Some("Café".to_owned()),
            genre: Some("Jazz".to_owned()),
            url: Some("http://host/".into()),
            bitrate: Some(128),
            public: Some(true),
            metadata_interval: NonZeroUsize::new(16_000),
        };
        assert_eq!(info, expected);
    }

    #[test]
    fn a_header_that_makes_no_sense_is_missing() {
        for (name, value) in [
            ("icy-name", &b" "[..]),
            ("icy-br", b"Quality 6"),
            ("icy-br", b"0"),
            ("icy-br", b"99999999999"),
            ("ice-audio-info", b"samplerate=44100;bitrate"),
            ("icy-pub", b"maybe"),
        ] {
            assert_eq!(headers(&[(name, value)]), RadioInfo::default(), "{name}: {value:?}");
        }
    }

    #[test]
    fn an_absurd_interval_is_none() {
        for value in ["", "0", "-1", "16777217", "99999999999999999999", "8k", "16000,16000"] {
            let info = headers(&[("icy-metaint", value.as_bytes())]);
            assert_eq!(info.metadata_interval, None, "{value}");
        }
        let longest = headers(&[("icy-metaint", b"16777216")]);
        assert_eq!(longest.metadata_interval, NonZeroUsize::new(LONGEST_INTERVAL));
    }

    #[test]
    fn the_bit_rate_is_the_stations_own_or_else_that_of_the_audio() {
        for value in [&b"bitrate=192;samplerate=44100"[..], b"ice-samplerate=44100; Ice-BitRate = 192"] {
            assert_eq!(headers(&[("ice-audio-info", value)]).bitrate, Some(192));
            assert_eq!(headers(&[("ice-audio-info", value), ("icy-br", b"128")]).bitrate, Some(128));
            assert_eq!(headers(&[("icy-br", b""), ("ice-audio-info", value)]).bitrate, Some(192));
        }
    }

    #[test]
    fn of_headers_with_one_name_the_first_that_makes_sense_counts() {
        let info = headers(&[("icy-br", b""), ("icy-br", b"64"), ("icy-br", b"128"), ("icy-pub", b"0")]);
        assert_eq!((info.bitrate, info.public), (Some(64), Some(false)));
    }

    fn block() -> impl Strategy<Value = Vec<u8>> {
        vec(any::<u8>(), 1..100).prop_map(|bytes| padded(&bytes))
    }

    fn reads() -> impl Strategy<Value = Vec<usize>> {
        vec(1..60_usize, 1..8)
    }

    /// Without `=`, so that no part of a title looks like a field.
    const TITLE: &str = "[a-zäß音 ';:\\-]{0,30}";

    proptest! {
        #[test]
        fn any_body_in_any_reads_is_audio_and_blocks(
            audio in vec(any::<u8>(), 0..400),
            interval in 1..80_usize,
            blocks in vec(block(), 0..10),
            reads in reads(),
        ) {
            let bytes = encode(&audio, interval, &blocks);
            let positions = (1..=audio.len() / interval).map(|count| (count * interval) as u64);
            let blocks = positions.zip(blocks).collect();
            prop_assert_eq!(split(interval, &bytes, &reads), Output { audio, blocks });
        }

        #[test]
        fn every_title_has_its_audio_position(
            titles in vec(TITLE, 1..6),
            interval in 1..80_usize,
            reads in reads(),
        ) {
            let audio = vec![b'\''; interval * titles.len()];
            let block = |title: &String| padded(format!("StreamTitle='{title}';StreamUrl='';").as_bytes());
            let blocks: Vec<_> = titles.iter().map(block).collect();
            let output = split(interval, &encode(&audio, interval, &blocks), &reads);
            let positions = (1..=titles.len()).map(|count| (count * interval) as u64);
            prop_assert_eq!(output.titles(), positions.zip(titles).collect::<Vec<_>>());
        }

        #[test]
        fn every_byte_of_garbage_is_audio_or_metadata(
            bytes in vec(prop_oneof![0..4_u8, any::<u8>()], 0..2000),
            interval in 1..80_usize,
            reads in reads(),
        ) {
            let output = split(interval, &bytes, &reads);
            let (expected, metadata) = split_by_index(interval, &bytes);
            prop_assert_eq!(output.audio.len() + metadata, bytes.len());
            prop_assert_eq!(output, expected);
        }

        #[test]
        fn no_block_makes_the_parser_panic(
            pieces in vec(prop_oneof![
                vec(any::<u8>(), 0..8),
                "[a-z]{0,3}='|';|'|;|=|\0|StreamTitle='".prop_map(String::into_bytes),
            ], 0..40),
        ) {
            IcyMetadata::parse(&pieces.concat());
        }

        #[test]
        fn what_is_written_is_read_back(title in TITLE, url in TITLE) {
            let block = padded(format!("StreamTitle='{title}';StreamUrl='{url}';").as_bytes());
            let title_bytes = Some(title.clone().into_bytes());
            let (title, url) = (Some(title), Some(url.into()));
            let expected = IcyMetadata { title, title_bytes, url, others: Vec::new() };
            prop_assert_eq!(IcyMetadata::parse(&block), expected);
        }

        #[test]
        fn no_header_makes_the_parser_panic(
            name in "(icy-(name|br|pub|metaint)|ice-audio-info)",
            value in prop_oneof![vec(any::<u8>(), 0..40), "[0-9a-z=;,+-]{0,40}".prop_map(String::into_bytes)],
        ) {
            headers(&[(&name, &value)]);
        }
    }
}
