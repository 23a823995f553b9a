//! Delivery directives: parameters in the query of a playlist request (section 6.2.5).

use url::Url;

use crate::source::hls::playlist::{MediaPlaylist, RenditionReport};

/// What to ask.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Directives {
    /// Answer once the playlist has this segment, and this part of it.
    pub(crate) wait_for: Option<(u64, Option<u64>)>,
    /// Leave out what the last version contains.
    pub(crate) skips: bool,
}

impl Directives {
    /// Section 6.3.8: the state of the playlist at `url`, from a rendition report. The server answers at once, with a version that
    /// is at least as new.
    pub(crate) fn of_report(current: &MediaPlaylist, base: &Url, url: &Url) -> Self {
        let is_same = |report: &&RenditionReport| {
            let reported = base.join(report.uri.expose());
            // Without the query, which may be a token.
            reported.is_ok_and(|reported| (reported.origin(), reported.path()) == (url.origin(), url.path()))
        };
        if !current.server_control.can_block_reload {
            return Self::default();
        }
        let report = current.rendition_reports.iter().find(is_same);
        // Section 4.4.5.4: without numbers they are those of the playlist that contains the report.
        let wait_for = report.map(|report| {
            let sequence = report.last_sequence.unwrap_or_else(|| current.end_sequence().saturating_sub(1));
            (sequence, report.last_part)
        });
        Self { wait_for, skips: false }
    }

    pub(crate) fn apply(self, url: &Url) -> Url {
        let mut url = url.clone();
        let mut query: Vec<String> = url.query().map(str::to_owned).into_iter().collect();
        // Sorted as UTF-8, whichever of them there are, so that caches see one URL.
        if let Some((sequence, part)) = self.wait_for {
            query.push(format!("_HLS_msn={sequence}"));
            query.extend(part.map(|part| format!("_HLS_part={part}")));
        }
        query.extend(self.skips.then(|| "_HLS_skip=YES".to_owned()));
        if !query.is_empty() {
            url.set_query(Some(&query.join("&")));
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::hls::playlist::Playlist;

    #[test]
    fn s6_2_5_directives_are_added_to_the_query() {
        let url = Url::parse("http://host/l.m3u8?token=1").unwrap();
        let apply = |wait_for: Option<(u64, Option<u64>)>, skips| {
            Directives { wait_for, skips }.apply(&url).to_string()
        };
        assert_eq!(apply(None, false), "http://host/l.m3u8?token=1");
        assert_eq!(apply(Some((7, None)), false), "http://host/l.m3u8?token=1&_HLS_msn=7");
        let all = "http://host/l.m3u8?token=1&_HLS_msn=7&_HLS_part=2&_HLS_skip=YES";
        assert_eq!(apply(Some((7, Some(2))), true), all);
    }

    #[test]
    fn s6_3_8_a_rendition_report_says_what_to_ask_the_other_playlist_for() {
        let text = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n#EXTINF:4,\na\n\
                    #EXT-X-RENDITION-REPORT:URI=\"../hi.m3u8?x=1\",LAST-MSN=12,LAST-PART=3\n#EXT-X-RENDITION-REPORT:URI=\"lo.m3u8\"\n";
        let base = Url::parse("http://host/a/lo.m3u8").unwrap();
        let Ok(Playlist::Media(list)) = Playlist::parse(text.as_bytes(), base.as_str()) else {
            panic!("a list")
        };
        let asked = |url: &str| {
            let url = Url::parse(url).unwrap();
            Directives::of_report(&list, &base, &url).apply(&url).to_string()
        };
        assert_eq!(asked("http://host/hi.m3u8?t=2"), "http://host/hi.m3u8?t=2&_HLS_msn=12&_HLS_part=3");
        assert_eq!(asked("http://host/a/lo.m3u8"), "http://host/a/lo.m3u8?_HLS_msn=0");
        assert_eq!(asked("http://host/other.m3u8"), "http://host/other.m3u8");
    }
}
