//! Hedged requests for a silent body: for the rest of it, or for a live stream again.

use std::sync::Arc;

use super::continuation::Continuation;
use super::exchange::Over;
use super::hedge_policy::Hedging;
use super::opener::Opener;
use super::request::Request;
use super::response::Response;
use super::silence::{OriginBudget, SilenceHedge, Successor};
use crate::cancel::CancelToken;
use crate::error::Error;

/// What to request if a body is silent.
pub(crate) enum Rest {
    /// The bytes that have not arrived. The state is that of the beginning of the body.
    Continuation(Continuation),
    /// A live stream of this content type from its current position. There is a discontinuity.
    Live(Option<String>),
}

/// From now on, while `body` is silent and its reader waits, requests the rest over a new connection. Call this after the
/// continuation has begun with this body and the body keeps its token. Does nothing if the body can't be resumed.
pub(super) fn hedge_body(
    opener: &Arc<Opener>,
    body: &mut Response,
    hedging: &Hedging,
    request: &Request,
    rest: Rest,
) {
    if matches!(&rest, Rest::Continuation(continuation) if !continuation.can_resume(body.head())) {
        return;
    }
    let Some(token) = body.token().cloned() else { return };
    let (own, request) = (Arc::clone(opener), request.clone().over(Over::New));
    // The origin that sends the body. The one of the request may only redirect to it.
    let origin = body.origin().unwrap_or_else(|| request.origin()).clone();
    let budget = OriginBudget { sender: Arc::clone(&opener.sender), origin };
    let successor = Successor {
        is_live: matches!(rest, Rest::Live(_)),
        open: Box::new(move |position, token| {
            let url = request.url();
            log::debug!(
                "the body of {url} is silent at byte {position}: the rest is requested over a new connection"
            );
            rest.open(&own, request.clone(), position, token)
        }),
        budget,
    };
    body.watch_silence(|exchange| {
        SilenceHedge::watch(&opener.sender.alarms, hedging, successor, token, exchange)
    });
}

impl Rest {
    /// Opens a response that continues the body at `position`. `None` if the response can't. Blocks like a request.
    fn open(
        &self,
        opener: &Opener,
        mut request: Request,
        position: u64,
        token: &CancelToken,
    ) -> Result<Option<Box<Response>>, Error> {
        let continuation = match self {
            Self::Continuation(continuation) => continuation.at(position),
            Self::Live(content_type) => {
                let response = opener.open(&request, token, None)?;
                // Another content type is no continuation: it may be a login page.
                let is_same = response.head().content_type() == content_type.as_deref();
                return Ok(Some(response).filter(|_| is_same).map(|response| with_token(response, token)));
            }
        };
        let Some(continuation) = continuation else { return Ok(None) };
        let Some(range) = continuation.range() else { return Ok(None) };
        request.set_range(range);
        request.forget_conditions();
        if let Some(validator) = continuation.if_range() {
            request.set_if_range(validator.clone());
        }
        let response = opener.open(&request, token, None)?;
        continuation.check(response.head())?;
        // A whole body would deliver all received bytes again.
        let part = Some(response).filter(|response| response.head().is_partial());
        Ok(part.map(|response| with_token(response, token)))
    }
}

fn with_token(mut response: Box<Response>, token: &CancelToken) -> Box<Response> {
    response.keep(token.clone());
    response
}
