//! A low-latency stream of HLS that is produced in real time.

use std::time::{Duration, Instant};

use crate::mux::{self, Entry, aac_frames, fragment};
use crate::{Answer, Content, Request};

/// Parts of some frames, four of them in a segment. The last parts come at the end, and then the playlist is complete.
#[derive(Clone, Copy)]
pub struct LowLatency {
    pub began: Instant,
    /// Parts that are there at the beginning.
    pub first: u64,
    /// Parts of the whole stream.
    pub end: u64,
    /// AAC frames of a part.
    pub frames: u64,
    pub has_hints: bool,
    /// Time from a request to its answer.
    pub latency: Duration,
    /// Parts are ranges of their segment, and hints leave the end of theirs open.
    pub has_ranges: bool,
    /// Changes the text of a playlist of so many parts, before it is sent.
    pub edit: Edit,
}

pub type Edit = fn(String, u64) -> String;

impl LowLatency {
    pub fn new(first: u64, end: u64, frames: u64) -> Self {
        let (began, latency) = (Instant::now(), Duration::ZERO);
        Self { began, first, end, frames, has_hints: false, latency, has_ranges: false, edit: |text, _| text }
    }

    /// Seconds of a part.
    pub fn part(&self) -> f64 {
        self.frames as f64 * 1024.0 / 48_000.0
    }

    fn available(&self) -> u64 {
        let passed = (self.began.elapsed().as_secs_f64() / self.part()) as u64;
        (self.first + passed).min(self.end)
    }

    /// Time until so many parts are there.
    fn wait_for(&self, count: u64) -> Duration {
        let due = Duration::from_secs_f64(count.saturating_sub(self.first) as f64 * self.part());
        due.saturating_sub(self.began.elapsed()).max(self.latency)
    }

    fn bytes(&self, number: u64) -> Vec<u8> {
        fragment(&aac_frames(number * self.frames, self.frames), number * self.frames * 1024)
    }

    /// Offset of a part in its segment.
    fn offset(&self, number: u64) -> u64 {
        (number / 4 * 4..number).map(|before| self.bytes(before).len() as u64).sum()
    }

    /// Where a part is.
    fn place(&self, number: u64) -> String {
        let (segment, len, offset) = (number / 4, self.bytes(number).len(), self.offset(number));
        format!("URI=\"{segment}\",BYTERANGE=\"{len}@{offset}\"")
    }

    /// Seconds of audio that are produced by now, with the beginning of the part that is not complete yet.
    pub fn produced(&self) -> f64 {
        self.first as f64 * self.part() + self.began.elapsed().as_secs_f64()
    }

    pub fn answer(&self, request: &Request) -> Answer {
        let parameter = |name: &str| {
            let (_, query) = request.path.split_once('?')?;
            query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
        };
        if request.path.contains(".m3u8") {
            let wanted = parameter("_HLS_msn").map(|msn| msn * 4 + parameter("_HLS_part").unwrap_or(0) + 1);
            let count = self.available().max(wanted.unwrap_or(0)).min(self.end);
            let other = if request.path.starts_with("/live") { "other" } else { "live" };
            let text = self.playlist(count, request.path.contains("_HLS_skip=YES"), other);
            let text = (self.edit)(text, count);
            return Answer::whole(&Content::bytes(text.into_bytes())).latency(self.wait_for(count));
        }
        let path = request.path.trim_start_matches('/');
        let bytes = |number: u64| self.bytes(number);
        match path.strip_prefix('p').and_then(|number| number.parse().ok()) {
            Some(number) if number >= self.end => Answer::status(404),
            Some(number) => {
                Answer::file(request, &Content::bytes(bytes(number))).latency(self.wait_for(number + 1))
            }
            None if path == "init" => {
                Answer::file(request, &Content::bytes(mux::init(&Entry::Aac(3), 48_000, 0)))
                    .latency(self.latency)
            }
            None => {
                let number: u64 = path.parse().unwrap();
                let bytes: Vec<u8> = (0..4).flat_map(|index| bytes(number * 4 + index)).collect();
                if let Some((from, _)) = request.range() {
                    let first =
                        (number * 4..number * 4 + 4).rfind(|part| self.offset(*part) <= from).unwrap();
                    // It grows while it is sent.
                    return Answer::file(request, &Content::bytes(bytes))
                        .chunks_of(self.bytes(first).len() as u64, Duration::from_secs_f64(self.part()))
                        .latency(self.wait_for(first + 1));
                }
                Answer::file(request, &Content::bytes(bytes)).latency(self.latency)
            }
        }
    }

    fn playlist(&self, count: u64, skips: bool, other: &str) -> String {
        let length = self.part();
        let part = |number: u64| {
            let place = if self.has_ranges { self.place(number) } else { format!("URI=\"p{number}\"") };
            format!("#EXT-X-PART:DURATION={length:.6},{place}\n")
        };
        let target = (4.0 * length).ceil();
        let mut text = format!(
            "#EXTM3U\n#EXT-X-TARGETDURATION:{target}\n#EXT-X-PART-INF:PART-TARGET={length:.6}\n\
             #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={:.6},CAN-SKIP-UNTIL={}\n",
            3.0 * length,
            6.0 * target,
        );
        let segments = count / 4;
        let first = segments.saturating_sub(10);
        text.push_str(&format!("#EXT-X-MEDIA-SEQUENCE:{first}\n"));
        let kept = if skips { segments.saturating_sub(3) } else { first };
        match skips {
            true => text.push_str(&format!("#EXT-X-SKIP:SKIPPED-SEGMENTS={}\n", kept - first)),
            false => text.push_str("#EXT-X-MAP:URI=\"init\"\n"),
        }
        for segment in kept..segments {
            if segment + 2 >= segments {
                (0..4).for_each(|index| text.push_str(&part(segment * 4 + index)));
            }
            text.push_str(&format!("#EXTINF:{:.6},\n{segment}\n", 4.0 * length));
        }
        (segments * 4..count).for_each(|number| text.push_str(&part(number)));
        if count == self.end {
            text.push_str("#EXT-X-ENDLIST\n");
        } else if self.has_hints {
            let start = self.offset(count);
            match self.has_ranges {
                true => text.push_str(&format!(
                    "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{}\",BYTERANGE-START={start}\n",
                    count / 4
                )),
                false => text.push_str(&format!("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"p{count}\"\n")),
            }
        }
        let last = count - 1;
        text.push_str(&format!(
            "#EXT-X-RENDITION-REPORT:URI=\"{other}.m3u8\",LAST-MSN={},LAST-PART={}\n",
            last / 4,
            last % 4
        ));
        text
    }
}
