//! Sends a request to other places of its resource if one fails.
//!
//! ```text
//!  request ─▶ place that answered last ─▶ refused: a fresh URL of the hook, once ─▶ fails ─▶ the other places, in order
//! ```

use super::alternates::{Alternates, Place};
use super::head::ResponseHead;
use super::redirect;
use super::request::Request;
use crate::error::{Error, ErrorKind};
use crate::safe_url::HttpUrl;

/// What a response has to offer for the comparison.
pub(super) trait HasHead {
    fn head(&self) -> &ResponseHead;
}

/// Sends `request` to one of `alternates` after the other, by `send`, until one answers. Returns the error that may pass, if
/// there is one, and else the first.
pub(super) fn open<R: HasHead>(
    alternates: &Alternates,
    request: &Request,
    send: impl Fn(&Request, &HttpUrl) -> Result<Option<R>, Error>,
) -> Result<Option<R>, Error> {
    let mut failed: Option<Error> = None;
    for place in alternates.order() {
        let mut request = request.clone();
        if failed.is_some() {
            // A remembered redirect target is one of the place that has failed.
            request.forget_target();
        }
        match open_at(alternates, place, request, &send) {
            Err(error) if is_places_own(&error) => {
                log::debug!("{} failed: {error}", alternates.place(place).url);
                let is_better = |old: &Error| error.is_retryable() && !old.is_retryable();
                if failed.as_ref().is_none_or(is_better) {
                    failed = Some(error);
                }
            }
            Err(error) => return Err(error),
            Ok(response) => {
                alternates.handle_answer(place);
                return Ok(response);
            }
        }
    }
    Err(failed.unwrap_or_else(|| unreachable!("there is at least one place")))
}

/// Sends `request` to one place. If it is refused, goes on with a fresh URL, once.
fn open_at<R: HasHead>(
    alternates: &Alternates,
    place: usize,
    mut request: Request,
    send: impl Fn(&Request, &HttpUrl) -> Result<Option<R>, Error>,
) -> Result<Option<R>, Error> {
    let renewed = alternates.renew(place);
    if renewed.is_some() {
        // What the old URL redirected to expires with it.
        request.forget_target();
    }
    let at = renewed.unwrap_or_else(|| alternates.place(place));
    let error = match send_to(alternates, (place, &at), &request, &send) {
        Err(error) => error,
        result => return result,
    };
    let Some(fresh) = alternates.refresh(place, &at.url, &error) else { return Err(error) };
    request.forget_target();
    send_to(alternates, (place, &fresh), &request, send)
}

fn send_to<R: HasHead>(
    alternates: &Alternates,
    (number, place): (usize, &Place),
    request: &Request,
    send: impl Fn(&Request, &HttpUrl) -> Result<Option<R>, Error>,
) -> Result<Option<R>, Error> {
    let mut request = request.clone();
    // The hook gave these headers for this place. A redirect to another origin must not carry them.
    request.set_scoped(place.url.origin(), alternates.headers(place)?);
    let response = send(&request, &place.url)?;
    if let Some(response) = &response {
        alternates.check(number, &place.url, response.head())?;
    }
    Ok(response)
}

/// True if another place may answer although this one has failed with `error`.
fn is_places_own(error: &Error) -> bool {
    match error.kind() {
        // Only this server asks to wait.
        ErrorKind::Status(408 | 425 | 429) => true,
        // What this place sends is not the resource. Another place may have it.
        ErrorKind::Changed | ErrorKind::NotMedia | ErrorKind::Empty | ErrorKind::RangeIgnored => true,
        _ => redirect::is_targets_own(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hook::{Hook, RequestHook, RequestKind};
    use parking_lot::Mutex;
    use std::cell::RefCell;

    struct Answer(ResponseHead);

    impl HasHead for Answer {
        fn head(&self) -> &ResponseHead {
            &self.0
        }
    }

    fn url(text: &str) -> HttpUrl {
        HttpUrl::parse(text).unwrap()
    }

    fn alternates(hook: Option<Hook>) -> Alternates {
        let mirrors = vec![url("http://b/"), url("http://c/")];
        Alternates::new(&url("http://a/"), RequestKind::File, hook, mirrors).unwrap()
    }

    fn untagged(total: u64) -> Answer {
        Answer(ResponseHead::for_tests(206, 0..10, Some(total)))
    }

    fn head(total: u64) -> Answer {
        Answer(untagged(total).0.with_header("etag", "\"a\""))
    }

    fn status(status: u16) -> Error {
        Error::new(ErrorKind::Status(status), "refused")
    }

    /// Opens once, with `answer` for each URL. Returns the URLs that were requested, and the error.
    fn open(
        alternates: &Alternates,
        answer: impl Fn(&str) -> Result<Answer, Error>,
    ) -> (Vec<String>, Option<ErrorKind>) {
        let requested = RefCell::new(Vec::new());
        let request = Request::get("http://a/").unwrap();
        let result = super::open(alternates, &request, |_, url| {
            requested.borrow_mut().push(url.expose().to_string());
            answer(url.expose().as_str()).map(Some)
        });
        (requested.into_inner(), result.err().map(|error| error.kind()))
    }

    #[test]
    fn the_place_that_answered_last_is_tried_first() {
        let alternates = alternates(None);
        let b_only = |url: &str| if url == "http://b/" { Ok(head(100)) } else { Err(status(404)) };
        assert_eq!(open(&alternates, b_only).0, ["http://a/", "http://b/"]);
        assert_eq!(open(&alternates, b_only).0, ["http://b/"]);
        let a_only = |url: &str| if url == "http://a/" { Ok(head(100)) } else { Err(status(503)) };
        assert_eq!(open(&alternates, a_only).0, ["http://b/", "http://a/"]);
        let all = ["http://a/", "http://b/", "http://c/"].map(String::from).to_vec();
        // An error that may pass is worth more than one that does not.
        let down = |url: &str| Err(status(if url == "http://c/" { 503 } else { 404 }));
        assert_eq!(open(&alternates, down), (all, Some(ErrorKind::Status(503))));
    }

    #[test]
    fn a_place_with_another_representation_is_passed_over() {
        let alternates = alternates(None);
        assert_eq!(open(&alternates, |_| Ok(head(100))).0, ["http://a/"]);
        let lengths = |url: &str| match url {
            "http://a/" => Err(status(404)),
            "http://b/" => Ok(head(99)),
            _ => Ok(head(100)),
        };
        assert_eq!(
            open(&alternates, lengths),
            (vec!["http://a/".into(), "http://b/".into(), "http://c/".into()], None)
        );
        let changed = |_: &str| Ok(head(99));
        let (requested, error) = open(&alternates, changed);
        assert_eq!(
            (requested.len(), error),
            (2, None),
            "a file may change at its first URL: others find that out"
        );
    }

    #[test]
    fn a_mirror_has_to_show_that_it_has_the_same_representation() {
        let dated = |total: u64| {
            Answer(untagged(total).0.with_header("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"))
        };
        for (is_dated, error) in [(true, None), (false, Some(ErrorKind::Status(404)))] {
            let alternates = alternates(None);
            let answer = |total: u64| if is_dated { dated(total) } else { untagged(total) };
            assert_eq!(open(&alternates, |_| Ok(answer(100))).1, None);
            // At the same URL the second response need not show that it has the same representation.
            assert_eq!(open(&alternates, |_| Ok(answer(100))).1, None);
            let mirrors = |url: &str| if url == "http://a/" { Err(status(404)) } else { Ok(answer(100)) };
            assert_eq!(open(&alternates, mirrors).1, error, "{is_dated}");
        }
    }

    #[test]
    fn an_error_that_is_not_of_a_place_ends_the_search() {
        let alternates = alternates(None);
        // A 304 is an answer.
        for kind in [ErrorKind::Interrupted, ErrorKind::Status(304), ErrorKind::Status(416)] {
            let (requested, error) = open(&alternates, |_| Err(Error::new(kind, "no")));
            assert_eq!((requested.len(), error), (1, Some(kind)));
        }
    }

    #[derive(Default)]
    struct Counting(Mutex<u32>);

    impl RequestHook for Counting {
        fn fresh_url(&self, _: RequestKind, url: &str, _: u16) -> Option<String> {
            *self.0.lock() += 1;
            Some(format!("{}?{}", url.split('?').next().unwrap(), self.0.lock()))
        }
    }

    #[test]
    fn a_refused_url_is_replaced_by_a_fresh_one_once_a_request() {
        let alternates = alternates(Some(Hook::new(Counting::default())));
        let second = |url: &str| if url.ends_with("?1") { Ok(head(100)) } else { Err(status(403)) };
        assert_eq!(open(&alternates, second).0, ["http://a/", "http://a/?1"]);
        assert_eq!(open(&alternates, second).0, ["http://a/?1"]);
        // A fresh URL is another URL: what it leads to is compared.
        let other = |url: &str| if url.ends_with("?2") { Ok(head(99)) } else { Err(status(410)) };
        let (requested, error) = open(&alternates, other);
        assert_eq!(requested[..2], ["http://a/?1", "http://a/?2"]);
        assert_eq!((requested.len(), error), (6, Some(ErrorKind::Changed)));
        // No status that a fresh URL could mend.
        let (requested, _) = open(&alternates, |_| Err(status(404)));
        assert_eq!(requested.len(), 3);
    }
}
