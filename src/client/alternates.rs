//! Other places of a resource: mirrors, and fresh URLs that the application gives in place of those that expire.
//!
//! [failover](super::failover) sends; this module knows the places. The first response decides which representation the resource
//! has. A place with another one is passed over like one that is down, so bytes of two are never joined.

#[cfg(feature = "cache")]
use std::collections::HashSet;
use std::fmt;

use parking_lot::Mutex;
#[cfg(feature = "cache")]
use ureq::http::HeaderName;
use ureq::http::{HeaderMap, HeaderValue, header};
use url::Url;

use super::head::ResponseHead;
use super::header_fields::{parse_headers, take_userinfo};
use super::representation::{self, Likeness, Representation};
use crate::error::Error;
use crate::hook::{Hook, RequestKind, is_refusal};
use crate::safe_url::{HttpUrl, SafeUrl};

/// The places of one resource. Shared by all its requests.
pub(crate) struct Alternates {
    kind: RequestKind,
    hook: Option<Hook>,
    state: Mutex<State>,
}

struct State {
    /// Where each place is now: first that of the request itself, then the mirrors. A fresh URL replaces it.
    places: Vec<Place>,
    /// The place that answered last.
    current: usize,
    /// The place of the first response, and its representation. A place that moves to a fresh URL stays the same place.
    first: Option<(usize, HttpUrl, Representation)>,
    /// Names of the header fields that requests had so far by the hook or by the URL of a place.
    #[cfg(feature = "cache")]
    given: HashSet<HeaderName>,
}

/// A URL without user and password, which are sent in a header instead.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) url: HttpUrl,
    authorization: Option<HeaderValue>,
}

impl Place {
    fn new(mut url: HttpUrl) -> Self {
        let authorization = take_userinfo(&mut url);
        Self { url, authorization }
    }
}

impl Alternates {
    /// `None` if there is nothing but `own`.
    pub(super) fn new(
        own: &HttpUrl,
        kind: RequestKind,
        hook: Option<Hook>,
        mirrors: Vec<HttpUrl>,
    ) -> Option<Self> {
        if hook.is_none() && mirrors.is_empty() {
            return None;
        }
        let places = std::iter::once(own.clone()).chain(mirrors).map(Place::new).collect();
        let state = State {
            places,
            current: 0,
            first: None,
            #[cfg(feature = "cache")]
            given: HashSet::new(),
        };
        Some(Self { kind, hook, state: Mutex::new(state) })
    }

    /// Names of the header fields that requests had so far by the hook or by the URL of a place.
    #[cfg(feature = "cache")]
    pub(super) fn given(&self) -> Vec<String> {
        self.state.lock().given.iter().map(|name| name.as_str().to_owned()).collect()
    }

    /// The numbers of the places, in the order in which to try them.
    pub(super) fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let state = self.state.lock();
        let current = state.current;
        std::iter::once(current).chain((0..state.places.len()).filter(move |place| *place != current))
    }

    /// Where a place is now.
    pub(super) fn place(&self, place: usize) -> Place {
        self.state.lock().places[place].clone()
    }

    /// Moves a place whose URL is about to expire. `None` if it is not.
    pub(super) fn renew(&self, place: usize) -> Option<Place> {
        let at = self.place(place).url;
        let renewed = self.hook.as_ref()?.renewed_url(self.kind, at.expose())?;
        self.relocate(place, renewed).filter(|renewed| renewed.url != at)
    }

    /// Moves a place that has refused a request to `at` with `error`. `None` if the hook gives no other URL.
    pub(super) fn refresh(&self, place: usize, at: &HttpUrl, error: &Error) -> Option<Place> {
        let moved = self.place(place);
        if moved.url != *at && is_refusal(error) {
            // Another request was refused at the same time, and has a fresh URL already.
            return Some(moved);
        }
        let fresh = self.hook.as_ref()?.fresh_url(self.kind, at.expose(), error)?;
        let fresh = self.relocate(place, fresh)?;
        log::debug!("{at} was refused; going on with a fresh URL, {}", fresh.url);
        Some(fresh)
    }

    /// Header fields of a request to a place.
    pub(super) fn headers(&self, place: &Place) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        headers.extend(place.authorization.clone().map(|value| (header::AUTHORIZATION, value)));
        if let Some(hook) = &self.hook {
            let own = hook.headers(self.kind, place.url.expose());
            headers.extend(parse_headers("RequestHook::headers", &own)?);
        }
        #[cfg(feature = "cache")]
        self.state.lock().given.extend(headers.keys().cloned());
        Ok(headers)
    }

    /// Records that a place has answered.
    pub(super) fn handle_answer(&self, place: usize) {
        self.state.lock().current = place;
    }

    /// Fails if a response from `place`, which is at `url`, is of another representation than the first response, which came from
    /// another URL. Whether a resource changes at one and the same URL is for others to find out.
    pub(super) fn check(&self, place: usize, url: &HttpUrl, head: &ResponseHead) -> Result<(), Error> {
        // A station sends nothing twice, so there is nothing to join.
        if self.kind == RequestKind::Station {
            return Ok(());
        }
        let mut state = self.state.lock();
        let Some((first, first_url, representation)) = &state.first else {
            // A login page must not be what other places are compared with.
            if !representation::is_html(head) {
                state.first = Some((place, url.clone(), Representation::of(head)));
            }
            return Ok(());
        };
        if first_url == url {
            return Ok(());
        }
        match representation.compare(head) {
            Likeness::Changed(what) => Err(representation::changed(head, what)),
            Likeness::HtmlPage => Err(representation::html_page(head)),
            // A mirror has to show that it has the same representation. A fresh URL of the same place only must not contradict: the
            // URL before may have had no validator either.
            Likeness::Unconfirmed if *first != place && !representation.has_same_length_and_date(head) => {
                Err(representation::changed(head, "ETag or date, or none"))
            }
            // With another tag the file compares bytes, as for a pool of servers behind one URL.
            Likeness::Confirmed | Likeness::Unconfirmed | Likeness::OtherTag(_) => Ok(()),
        }
    }

    /// Moves a place to another URL. `None` if that can't be requested.
    fn relocate(&self, place: usize, url: Url) -> Option<Place> {
        let Some(url) = HttpUrl::of(&SafeUrl::from(url.as_str())) else {
            log::warn!("RequestHook returned a URL that is neither http nor https");
            return None;
        };
        let moved = Place::new(url);
        self.state.lock().places[place] = moved.clone();
        Some(moved)
    }
}

impl fmt::Debug for Alternates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        let places: Vec<&HttpUrl> = state.places.iter().map(|place| &place.url).collect();
        f.debug_struct("Alternates").field("places", &places).field("current", &state.current).finish()
    }
}
