//! One HTTP attempt of a job: the request, its response head, and the transfer of the body.

use std::sync::Arc;
use std::time::Instant;

use super::core::Core;
use super::handoff::Step;
use super::job::{Job, Target};
use super::message::Message;
use super::own_thread::on_own_thread;
use super::preemption::Claim;
use super::record::BodyMeter;
use super::transfer::Transfer;
use crate::buffer::Buffer;
use crate::cancel::{CancelReason, CancelToken};
use crate::client;
use crate::downloader::bodies::OpenBody;
use crate::downloader::response::Response;
use crate::downloader::schedule::WorkerId;
use crate::downloader::sink::Flow;
use crate::error::{Error, ErrorKind};

/// The outcome of an attempt.
pub(super) enum Attempt {
    Ended(Box<Job>, Result<(), Error>),
    /// Its worker is free for urgent work. Without a claim it was aborted, and did not reach a chunk.
    Preempted {
        job: Box<Job>,
        claim: Option<Claim>,
    },
    /// A lent thread stopped reading it at a chunk. Its body is open.
    Left(Box<Job>),
    /// The target has the open body. The fetch ends when that body ends or is dropped.
    HandedOver,
}

/// Runs one attempt of `job`: sends its request, or continues the open body that it kept. `chunk` is the buffer of this thread
/// for bodies.
pub(super) fn attempt(core: &Arc<Core>, worker: WorkerId, mut job: Box<Job>, chunk: &mut Buffer) -> Attempt {
    if let Some(body) = job.body.take() {
        return stream(core, worker, job, body, chunk);
    }
    // Cancelled together with the fetch, and by an abort.
    let token = job.token.child(CancelReason::Fetch);
    let mut body = match send(core, &mut job, &token) {
        Ok(body) => body,
        Err(error) => return ended(job, Err(error)),
    };
    let accepted = accept_head(core, &mut job, &body).and_then(|open| {
        // Another thread will read this body, maybe late: its connection serves others meanwhile.
        if open.is_some() && on_own_thread() {
            body.take_arrived()?;
        }
        Ok(open)
    });
    match accepted {
        Ok(Some(open)) => {
            body.keep(token);
            hand_over(job, body, open);
            Attempt::HandedOver
        }
        Ok(None) => {
            body.keep(token);
            job.retry_state.hedge(&mut body, &job.control);
            stream(core, worker, job, body, chunk)
        }
        Err(error) => {
            let url = job.retry_state.request().url().clone();
            ended(job, Err(error.with_url(&url)))
        }
    }
}

/// Sends the request. Blocks until the response head arrives.
fn send(core: &Arc<Core>, job: &mut Job, token: &CancelToken) -> Result<Box<client::Response>, Error> {
    // Before the request: an abort from now on reaches it.
    job.control.arm(token);
    if core.client.is_single_connection(job.retry_state.request()) {
        // Before the request: if it is urgent, the origin answers only when no prefetch has a connection.
        core.post(Message::SingleConnection(job.origin()));
    }
    let sent = Instant::now();
    let body = job.retry_state.open(token, &job.control)?;
    let came = Instant::now();
    core.handle_answer(job.origin());
    // A response head is progress too, also where its body is late.
    job.control.advance_by(1, came);
    job.record.record_head(came - sent, &body);
    Ok(body)
}

/// Shows the response head to the target. `Some` if the target takes the open body, which is then counted as open.
fn accept_head(core: &Core, job: &mut Job, body: &client::Response) -> Result<Option<OpenBody>, Error> {
    let open = match &mut job.target {
        Target::Caller(reply) => Some(reply.open(&core.bodies)?),
        Target::Sink(sink) => match sink.head(body.head())? {
            Flow::Detach => Some(core.bodies.open()?),
            Flow::Stream => None,
        },
    };
    // Only now: a response that the target refused must not become the one that later attempts continue.
    job.retry_state.begin(body.head());
    Ok(open)
}

/// Gives the open body to the target. From here on it holds no worker.
fn hand_over(job: Box<Job>, body: Box<client::Response>, open: OpenBody) {
    // An abort would free no worker.
    job.control.disarm();
    let Job { target, record, retry_state, token, .. } = *job;
    match target {
        Target::Caller(reply) => {
            reply.put(Ok(Box::new(Response::new(body, open, record, retry_state, token))));
        }
        Target::Sink(sink) => {
            let retry_state = retry_state.without_retries();
            sink.detached(Response::new(body, open, record, retry_state, token));
        }
    }
}

/// Reads a body into the sink: up to its end, or up to the chunk at which it is preempted or left.
fn stream(
    core: &Arc<Core>,
    worker: WorkerId,
    job: Box<Job>,
    body: Box<client::Response>,
    chunk: &mut Buffer,
) -> Attempt {
    let meter = BodyMeter::new(&job.control);
    let transfer = Box::new(Transfer {
        core: Arc::clone(core),
        job,
        body,
        meter,
        chunk: std::mem::take(chunk),
        has_filled: false,
    });
    let (transfer, stopped) =
        if core.is_lent(worker) { take_lent_steps(transfer) } else { take_steps(transfer) };
    let Transfer { mut job, body, chunk: used, .. } = *transfer;
    *chunk = used;
    match stopped {
        Stopped::Eof => ended(job, Ok(())),
        Stopped::Failed(error) => ended(job, Err(error)),
        Stopped::Preempted(claim) => {
            job.body = Some(body);
            Attempt::Preempted { job, claim: Some(claim) }
        }
        Stopped::Left => {
            job.body = Some(body);
            Attempt::Left(job)
        }
    }
}

/// Takes the steps of a worker, some of which a reader takes in its place.
fn take_steps(mut transfer: Box<Transfer>) -> (Box<Transfer>, Stopped) {
    loop {
        let step;
        (transfer, step) = transfer.step_or_offer();
        let stopped = match step {
            Ok(Step::Moved | Step::Received(_) | Step::WouldBlock) => continue,
            Ok(Step::Preempt) => match transfer.core.preemptions.claim() {
                Some(claim) => Stopped::Preempted(claim),
                // Another worker has claimed the last one that was wanted.
                None => continue,
            },
            Ok(Step::Eof) => Stopped::Eof,
            Err(error) => Stopped::Failed(error),
        };
        return (transfer, stopped);
    }
}

/// Takes the steps of a lent thread, which claims no preemption: it would free no worker of the pool.
fn take_lent_steps(mut transfer: Box<Transfer>) -> (Box<Transfer>, Stopped) {
    loop {
        let stopped = match transfer.step_alone() {
            // The reader that lends its thread has its bytes and continues. The body keeps its connection.
            // One that is whole ends with the next step, which does no I/O. Otherwise its end, and its connection, would wait for a
            // worker.
            Ok(Step::Moved | Step::Received(_) | Step::Preempt)
                if !transfer.is_whole() && transfer.demote_unless_urgent() =>
            {
                Stopped::Left
            }
            Ok(Step::Moved | Step::Received(_) | Step::Preempt | Step::WouldBlock) => continue,
            Ok(Step::Eof) => Stopped::Eof,
            Err(error) => Stopped::Failed(error),
        };
        return (transfer, stopped);
    }
}

/// An attempt whose only error is that it was aborted has not failed: it continues later.
fn ended(job: Box<Job>, result: Result<(), Error>) -> Attempt {
    // The attempt was cancelled, and the fetch was not: by the watchdog, or to make room for urgent work.
    let is_aborted = result.as_ref().is_err_and(Error::is_cancelled) && !job.token.is_cancelled();
    if is_aborted && job.control.was_stalled() {
        let stalled = Error::new(
            ErrorKind::Stalled,
            "the fetch made no progress, and the watchdog ended it (hang_timeout)",
        );
        let stalled = stalled.with_url(job.retry_state.request().url());
        return Attempt::Ended(job, Err(stalled));
    }
    if is_aborted {
        return Attempt::Preempted { job, claim: None };
    }
    Attempt::Ended(job, result)
}

/// Why the reading of a body stopped.
enum Stopped {
    /// The body has ended.
    Eof,
    Failed(Error),
    /// It claimed a preemption at a chunk.
    Preempted(Claim),
    /// At a chunk no reader waited for more.
    Left,
}
