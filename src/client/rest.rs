//! What is requested beside a body that is silent: the rest of it, or a live stream anew.

use std::sync::Arc;

use super::continuation::Continuation;
use super::exchange::Over;
use super::hedge_policy::Hedging;
use super::opener::Opener;
use super::request::Request;
use super::response::Response;
use super::silence::{SilenceHedge, Successor};
use crate::cancel::CancelToken;
use crate::error::Error;

/// What can go on with a silent body.
pub(crate) enum Rest {
    /// The bytes that have not come. As it was when the body began.
    Continuation(Continuation),
    /// What is sent now: a live stream of this content type. It does not join.
    Live(Option<String>),
}

/// Requests the rest of `body` over a new connection beside it while it is silent and its reader waits. To be called once a
/// continuation has begun with this body, which holds on to its token. Does nothing for a body that can't be resumed.
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
    let (own, pool) = (Arc::clone(opener), Arc::clone(&opener.sender.pool));
    let (request, origin) = (request.clone().over(Over::New), request.origin().clone());
    let successor = Successor {
        is_live: matches!(rest, Rest::Live(_)),
        open: Box::new(move |position, token| rest.open(&own, request.clone(), position, token)),
        // Those that lay idle beside the silent one are as dead.
        handle_win: Box::new(move |since| pool.forget_older(&origin, since)),
    };
    body.watch_silence(|exchange| {
        SilenceHedge::watch(&opener.sender.alarms, hedging, successor, token, exchange)
    });
}

impl Rest {
    /// Opens what goes on from `position`. `None` if what came can't go on with the body. Blocks for the limits of a request.
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
                // A login page is none of a station's.
                let is_same = response.head().content_type() == content_type.as_deref();
                return Ok(Some(response).filter(|_| is_same).map(|response| held(response, token)));
            }
        };
        let Some(continuation) = continuation else { return Ok(None) };
        let Some(range) = continuation.range() else { return Ok(None) };
        request.set_range(range);
        if let Some(validator) = continuation.if_range() {
            request.set_if_range(validator.clone());
        }
        let response = opener.open(&request, token, None)?;
        continuation.check(response.head())?;
        // A whole body would bring again all that has come.
        let part = Some(response).filter(|response| response.head().is_partial());
        Ok(part.map(|response| held(response, token)))
    }
}

fn held(mut response: Box<Response>, token: &CancelToken) -> Box<Response> {
    response.keep(token.clone());
    response
}
