//! Decides whether two responses are of the same representation (RFC 9110, section 3.2). No other module decides that, so bytes
//! of two representations are never joined. Does no I/O.

use std::sync::OnceLock;

use super::head::{ResponseHead, Validator, opaque_tag};
use crate::error::{Error, ErrorKind};
use crate::media;

/// What is known about one representation from its response heads.
#[derive(Clone, Debug)]
pub(crate) struct Representation {
    /// Head of the first response.
    head: ResponseHead,
    /// Length of the whole representation in bytes, once a response has contained it.
    total: Option<u64>,
    /// The validators in `head`. Parsed at the first comparison, because most bodies need only one response.
    marks: OnceLock<Box<Marks>>,
}

/// What identifies a representation.
#[derive(Clone, Debug)]
struct Marks {
    /// Its strong entity tag.
    etag: Option<String>,
    /// Its `Last-Modified`, as the server wrote it.
    modified: Option<String>,
    /// A validator that is allowed in `If-Range`. Only a response that repeats it is confirmed to be of this representation.
    strong: Option<Validator>,
    is_html: bool,
}

/// Result of comparing a response head with a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Likeness {
    /// The response repeats a strong validator.
    Confirmed,
    /// Nothing contradicts and nothing confirms: the bytes have to be compared.
    Unconfirmed,
    /// The entity tag differs, but the length and the date are the same.
    OtherTag(String),
    /// It is another representation: this property differs.
    Changed(&'static str),
    /// It is an HTML page instead of media, such as a login or error page.
    HtmlPage,
}

/// True if the body is an HTML page, or another text in place of media, by its `Content-Type`.
pub(super) fn is_html(head: &ResponseHead) -> bool {
    is_html_type(head.content_type())
}

/// True if a body of this `Content-Type` is an HTML page, or another text in place of media.
pub(super) fn is_html_type(content_type: Option<&str>) -> bool {
    media::looks_like_no_media(content_type, &[])
}

impl Representation {
    pub(crate) fn of(head: &ResponseHead) -> Self {
        Self { head: head.clone(), total: head.total(), marks: OnceLock::new() }
    }

    /// Head of the first response.
    pub(crate) fn head(&self) -> &ResponseHead {
        &self.head
    }

    fn marks(&self) -> &Marks {
        self.marks.get_or_init(|| Box::new(Marks::of(&self.head)))
    }

    pub(crate) fn total(&self) -> Option<u64> {
        self.total
    }

    /// A validator that is allowed in `If-Range`.
    pub(crate) fn strong_validator(&self) -> Option<&Validator> {
        self.marks().strong.as_ref()
    }

    /// True if there is a length or a validator with which another response can be compared.
    pub(crate) fn is_known(&self) -> bool {
        self.total.is_some() || self.marks().etag.is_some() || self.marks().modified.is_some()
    }

    /// Takes the length from a later response of the same representation, if it was not known.
    pub(crate) fn learn_total(&mut self, head: &ResponseHead) {
        self.total = self.total.or(head.total());
    }

    pub(crate) fn compare(&self, head: &ResponseHead) -> Likeness {
        let Marks { etag, modified, strong, is_html: was_html } = self.marks();
        if is_html(head) && !was_html {
            return Likeness::HtmlPage;
        }
        let agrees = |old: Option<u64>| matches!((old, head.total()), (Some(old), Some(new)) if old == new);
        // Before the entity tags: two lengths can't be the same bytes, whatever the tag is.
        if self.total.is_some() && head.total().is_some() && !agrees(self.total) {
            return Likeness::Changed("length");
        }
        let date = head.header("last-modified");
        let has_same_date = modified.is_some() && modified.as_deref() == date;
        // The weak mark is ignored: Apache marks a tag as weak until its file is one second old, and as strong from then on.
        if let (Some(old), Some(new)) = (etag, head.header("etag")) {
            let new = opaque_tag(new);
            if new == old {
                return Likeness::Confirmed;
            }
            if agrees(self.total) && has_same_date {
                return Likeness::OtherTag(new.to_owned());
            }
            return Likeness::Changed("entity tag");
        }
        if modified.is_some() && date.is_some() && !has_same_date {
            return Likeness::Changed("date");
        }
        // If the entity tag is missing this time, the date alone does not confirm: it is weaker than the tag.
        match strong {
            Some(Validator::LastModified(_)) if has_same_date => Likeness::Confirmed,
            _ => Likeness::Unconfirmed,
        }
    }
}

impl Representation {
    /// True if length and date are known and the same. Weaker than [`Likeness::Confirmed`].
    pub(super) fn has_same_length_and_date(&self, head: &ResponseHead) -> bool {
        let modified = &self.marks().modified;
        let has_same_length = self.total.is_some() && self.total == head.total();
        // A length alone is not enough: two encodings of a piece at one bitrate have the same length.
        has_same_length && modified.is_some() && modified.as_deref() == head.header("last-modified")
    }
}

impl Marks {
    fn of(head: &ResponseHead) -> Self {
        let etag = match head.validator() {
            Some(Validator::ETag(tag)) => Some(tag),
            _ => None,
        };
        Self {
            etag,
            modified: head.header("last-modified").map(str::to_owned),
            strong: head.strong_validator(),
            is_html: is_html(head),
        }
    }
}

/// The error for a response of another representation. `what` is the property that differs.
pub(crate) fn changed(head: &ResponseHead, what: &str) -> Error {
    let why = format!("the resource changed while it was read: it has a different {what}");
    Error::new(ErrorKind::Changed, why).with_url(head.url())
}

/// The error for an HTML page instead of the resource.
pub(crate) fn html_page(head: &ResponseHead) -> Error {
    let why = "the server sent an HTML page instead of the resource";
    Error::new(ErrorKind::NotMedia, why).with_url(head.url())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:50:37 GMT";

    fn head(total: u64, fields: &[(&'static str, &'static str)]) -> ResponseHead {
        let head = ResponseHead::for_tests(206, 0..10, Some(total));
        fields.iter().fold(head, |head, (name, value)| head.with_header(name, value))
    }

    #[test]
    fn only_a_strong_validator_that_is_repeated_confirms() {
        let (tag, weak) = (("etag", "\"a\""), ("etag", "W/\"a\""));
        let (date, sent) = (("last-modified", DATE), ("date", LATER));
        for (first, later, likeness) in [
            (vec![tag], vec![tag], Likeness::Confirmed),
            (vec![tag], vec![weak], Likeness::Confirmed),
            (vec![tag], vec![], Likeness::Unconfirmed),
            (vec![tag, date, sent], vec![date, sent], Likeness::Unconfirmed),
            (vec![weak], vec![weak], Likeness::Unconfirmed),
            (vec![], vec![tag], Likeness::Unconfirmed),
            (vec![date, sent], vec![date, sent], Likeness::Confirmed),
            (vec![date, sent], vec![], Likeness::Unconfirmed),
            // Changed in the minute before the response: it may have changed again since (RFC 9110, section 8.8.2.2).
            (vec![date, ("date", DATE)], vec![date], Likeness::Unconfirmed),
            (vec![date], vec![date], Likeness::Unconfirmed),
        ] {
            let representation = Representation::of(&head(100, &first));
            assert_eq!(representation.compare(&head(100, &later)), likeness, "{first:?}, {later:?}");
        }
    }

    #[test]
    fn a_contradiction_is_a_change() {
        let (tag, other) = (("etag", "\"a\""), ("etag", "\"b\""));
        let (date, later) = (("last-modified", DATE), ("last-modified", LATER));
        for (first, then, what) in [
            (vec![tag], vec![other], "entity tag"),
            (vec![tag, date], vec![other], "entity tag"),
            (vec![tag, date], vec![other, later], "entity tag"),
            (vec![tag, date], vec![later], "date"),
            (vec![date], vec![later], "date"),
        ] {
            let representation = Representation::of(&head(100, &first));
            assert_eq!(
                representation.compare(&head(100, &then)),
                Likeness::Changed(what),
                "{first:?}, {then:?}"
            );
        }
        let representation = Representation::of(&head(100, &[tag]));
        assert_eq!(representation.compare(&head(101, &[tag])), Likeness::Changed("length"));
        let page = head(100, &[tag, ("content-type", "text/html")]);
        assert_eq!(representation.compare(&page), Likeness::HtmlPage);
    }

    #[test]
    fn another_tag_with_the_same_length_and_date_is_reported_as_such() {
        let representation = Representation::of(&head(100, &[("etag", "\"a\""), ("last-modified", DATE)]));
        let other = head(100, &[("etag", "\"b\""), ("last-modified", DATE)]);
        assert_eq!(representation.compare(&other), Likeness::OtherTag("\"b\"".into()));
    }
}
