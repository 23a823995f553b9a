//! One HTTP attempt of a job: the request, its response head, and the transfer of the body.

use std::sync::Arc;
use std::time::Instant;

use super::core::Core;
use super::job::{Job, Target};
use super::record::BodyMeter;
use super::transfer::{Step, Transfer};
use crate::buffer::Buffer;
use crate::cancel::CancelReason;
use crate::client;
use crate::downloader::fetch::Flow;
use crate::downloader::response::Response;
use crate::downloader::schedule::WorkerId;
use crate::error::{Error, ErrorKind};

/// What became of an attempt.
pub(super) enum Attempt {
    Ended(Box<Job>, Result<(), Error>),
    /// It made room for urgent work; by itself, or because it was aborted.
    Preempted {
        job: Box<Job>,
        by_itself: bool,
    },
    /// A lent thread has left it at a chunk, with its body open.
    Left(Box<Job>),
    /// The target has the open body, and its end.
    HandedOver,
}

/// Runs one attempt of `job`. `chunk` is the buffer of this thread for bodies.
pub(super) fn attempt(core: &Arc<Core>, worker: WorkerId, mut job: Box<Job>, chunk: &mut Buffer) -> Attempt {
    // Cancelled with the fetch, and by an abort.
    let token = job.token.child(CancelReason::Fetch);
    if let Some(body) = job.body.take() {
        return stream(core, worker, job, body, chunk);
    }
    job.control.arm(&token);
    let sent = Instant::now();
    let mut body = match job.retry_state.open(core, &token, &job.control) {
        Ok(body) => body,
        Err(error) => return ended(job, Err(error)),
    };
    job.control.advance();
    job.record.record_head(sent.elapsed(), &body);
    let flow = match &mut job.target {
        Target::Caller(_) => Ok(Flow::Detach),
        Target::Sink(sink) => sink.head(body.head()),
    };
    let open = match (&flow, &job.target) {
        (Ok(Flow::Detach), Target::Caller(reply)) => reply.open(&core.bodies).map(Some),
        (Ok(Flow::Detach), Target::Sink(_)) => core.bodies.open().map(Some),
        _ => Ok(None),
    };
    let open = flow.and(open);
    if open.is_ok() {
        job.retry_state.begin(body.head());
    }
    match open {
        Ok(Some(open)) => {
            // Nobody evicts a body that holds no worker.
            job.control.disarm();
            body.keep(token);
            let Job { target, record, retry_state, token, .. } = *job;
            match target {
                Target::Caller(reply) => {
                    reply.put(Ok(Response::new(Arc::clone(core), body, open, record, retry_state, token)));
                }
                Target::Sink(sink) => {
                    let retry_state = retry_state.without_retries();
                    sink.detached(Response::new(Arc::clone(core), body, open, record, retry_state, token));
                }
            }
            Attempt::HandedOver
        }
        Ok(None) => {
            body.keep(token);
            job.retry_state.hedge(core, &mut body, &job.control);
            stream(core, worker, job, body, chunk)
        }
        Err(error) => {
            let url = job.retry_state.request().url().clone();
            ended(job, Err(error.with_url(&url)))
        }
    }
}

/// Reads a body into the sink, up to its end or until it has to make room.
fn stream(
    core: &Arc<Core>,
    worker: WorkerId,
    job: Box<Job>,
    body: Box<client::Response>,
    chunk: &mut Buffer,
) -> Attempt {
    let meter = BodyMeter::new(&job.control);
    let (core, is_lent) = (Arc::clone(core), core.is_lent(worker));
    let mut transfer = Box::new(Transfer { core, job, body, meter, chunk: std::mem::take(chunk) });
    let result = loop {
        let step;
        (transfer, step) = if is_lent { transfer.step_alone() } else { transfer.step_or_offer() };
        match step {
            // The reader that lends its thread has its bytes, and goes on. The body keeps its connection.
            Ok(Step::Moved | Step::Preempt)
                if is_lent && transfer.job.demote_unless_demanded(&transfer.core) =>
            {
                break Ok(Streamed::Left);
            }
            Ok(Step::Preempt) if is_lent => {}
            Ok(Step::Moved | Step::WouldBlock) => {}
            Ok(Step::Preempt) => {
                if transfer.core.preemptions.claim() {
                    break Ok(Streamed::Preempted);
                }
            }
            Ok(Step::Eof) => break Ok(Streamed::Eof),
            Err(error) => break Err(error),
        }
    };
    let Transfer { mut job, body, chunk: used, .. } = *transfer;
    *chunk = used;
    match result {
        Ok(Streamed::Eof) => ended(job, Ok(())),
        Ok(Streamed::Preempted) => {
            job.body = Some(body);
            Attempt::Preempted { job, by_itself: true }
        }
        Ok(Streamed::Left) => {
            job.body = Some(body);
            Attempt::Left(job)
        }
        Err(error) => ended(job, Err(error)),
    }
}

/// An attempt that ended by an abort only, has not failed.
fn ended(job: Box<Job>, result: Result<(), Error>) -> Attempt {
    let was_cut = result.as_ref().is_err_and(Error::is_cancelled) && !job.token.is_cancelled();
    if was_cut && job.control.was_stalled() {
        let stalled = Error::new(
            ErrorKind::Stalled,
            "the fetch made no progress, and the watchdog ended it (hang_timeout)",
        );
        let stalled = stalled.with_url(job.retry_state.request().url());
        return Attempt::Ended(job, Err(stalled));
    }
    if was_cut {
        // Evicted; by now it may have made room by itself, and be on another worker.
        return Attempt::Preempted { job, by_itself: false };
    }
    Attempt::Ended(job, result)
}

/// How far a body was read.
enum Streamed {
    Eof,
    /// Up to a chunk at which it makes room for urgent work.
    Preempted,
    /// Up to a chunk at which nobody waits for more.
    Left,
}
