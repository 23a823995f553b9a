//! A body from a server without ranges: a thread of the file reads it from start to end, as fast as the readers need
//! it.
//!
//! The thread waits while enough bytes are stored ahead of the readers, so TCP flow control slows the server down. When
//! a reader needs bytes before the stored ones, the thread ends and the plan requests the body again.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::shared::Shared;
use super::state::FlowControl;
use crate::client::{ResponseHead, retry};
use crate::config::ReadAhead;
use crate::downloader::Response;
use crate::error::{Error, ErrorKind};
use crate::foreign::contain;
use crate::media::RECOGNIZABLE;
use crate::thread;
use crate::types::Priority;

/// Bytes that are read at once: a quarter of a block of storage, so that a reader gets them soon.
const CHUNK: usize = 64 * 1024;

/// Starts the thread that reads `body`. The caller has recorded it in the state (`OneBody::begin`).
pub(crate) fn start(shared: &Arc<Shared>, mut body: Response) {
    let reads = Arc::clone(shared);
    let spawned = thread::start("sequential", move || {
        crate::downloader::enter_own_thread();
        // A panic is turned into an error: otherwise a reader would wait for a body that no thread reads any more.
        let result = contain("reading a sequential body", || run(&reads, &mut body))
            .unwrap_or_else(|panic| Err(panic.into()));
        if let Err(error) = &result {
            // Or its end would be that of a body that no reader needs.
            body.fail(error);
        }
        // Closed before the pause, in which the server would wait for it.
        drop(body);
        if let Err(error) = &result {
            pause_after(&reads, error);
        }
        sequential_ended(&reads, result);
    });
    match spawned {
        // Replaces the handle of the thread before it. That one recorded its end before this body was requested, so it does
        // nothing any more and need not be joined.
        Ok(thread) => *shared.sequential.lock() = Some(thread),
        Err(error) => sequential_ended(shared, Err(error)),
    }
}

fn run(shared: &Shared, body: &mut Response) -> Result<(), Error> {
    let mut chunk = vec![0; CHUNK];
    let mut offset = 0_u64;
    // The first bytes, while it is not clear that they are media.
    let mut first = shared.state.lock().first.is_empty().then(Vec::new);
    while flow_control(shared, offset) == FlowControl::Go {
        let got = body.read_chunk(&mut chunk)?;
        if let Some(mut held) = first.take() {
            held.extend_from_slice(&chunk[..got]);
            if held.len() < RECOGNIZABLE && got > 0 {
                first = Some(held);
                continue;
            }
            if held.is_empty() {
                return Err(Error::new(ErrorKind::Empty, "the file has no bytes"));
            }
            shared.accept_first(&held)?;
            shared.store(0, &held)?;
            offset = held.len() as u64;
            shared.resource.notify();
            if got > 0 {
                continue;
            }
        }
        if got == 0 {
            // A doubtful end is not recorded as the length. The plan then requests the body once more, without a range.
            if body.is_doubtful_end() {
                return Ok(());
            }
            return found_end(shared, offset, body.head());
        }
        compare_with_stored(shared, offset, &chunk[..got])?;
        shared.store(offset, &chunk[..got])?;
        offset += got as u64;
    }
    Ok(())
}

/// Fails if the bytes received at `offset` are not those that are stored there, from an earlier reading of the body.
fn compare_with_stored(shared: &Shared, offset: u64, bytes: &[u8]) -> Result<(), Error> {
    let end = offset + bytes.len() as u64;
    // Any part of them may be stored: a window begins and ends anywhere.
    let both = |range: Range<u64>| range.start.max(offset)..range.end.min(end);
    let stored: Vec<Range<u64>> = shared
        .resource
        .with_ranges(|ranges| ranges.iter().map(both).filter(|range| range.start < range.end).collect());
    for range in stored {
        let came = &bytes[(range.start - offset) as usize..(range.end - offset) as usize];
        let mut there = vec![0; came.len()];
        // `got` is less if a part was evicted meanwhile, which no reader needs.
        let got = shared.resource.read_at(range.start, &mut there)?;
        if there[..got] != came[..got] {
            let why = format!("the file changed while it was read: other bytes from {} on", range.start);
            return Err(Error::new(ErrorKind::Changed, why).with_url(shared.url()));
        }
    }
    Ok(())
}

/// Blocks until the body may be read on from `offset`, or will not be.
fn flow_control(shared: &Shared, offset: u64) -> FlowControl {
    let decided = shared.resource.wait(None, |view| {
        if shared.link.get().is_none_or(|link| link.epoch.is_cancelled()) {
            return Some(FlowControl::Leave);
        }
        shared.state.lock().flow_control(offset, view.ranges)
    });
    decided.unwrap_or(FlowControl::Leave)
}

/// Records that the body behind `head` ended at `offset`. Fails if the file is known to be longer.
fn found_end(shared: &Shared, offset: u64, head: &ResponseHead) -> Result<(), Error> {
    let stored = shared.resource.with_ranges(|ranges| ranges.iter().last().map_or(0, |last| last.end));
    {
        let mut state = shared.state.lock();
        let known = stored.max(state.one_body.best()).max(state.len().unwrap_or(0));
        if offset < known {
            // A body that is framed by the end of its connection looks complete when the connection is lost (RFC 9112, section
            // 8), so it may be a break. A body with a length or chunks that ends is complete, so the file has become shorter.
            let is_framed = head.body_len().is_some() || head.header("transfer-encoding").is_some();
            let kind = if is_framed { ErrorKind::Changed } else { ErrorKind::Truncated };
            let why = format!("the body ended at {offset}, and the file has {known} bytes or more");
            return Err(Error::new(kind, why).with_url(head.url()));
        }
        if let Some(info) = state.mode.info_mut() {
            info.len = Some(offset);
        }
    }
    shared.resource.notify();
    Ok(())
}

/// Waits before the body is requested again, unless the reading that broke off had got further than any before.
fn pause_after(shared: &Shared, error: &Error) {
    if !error.is_retryable() {
        return;
    }
    let (after, given_up) = {
        let mut state = shared.state.lock();
        state.waits.retry(error.clone());
        let after = state.one_body.handle_failure(error, retry::random()).unwrap_or_default();
        let now = Instant::now();
        (after, state.handle_outage(error, now, now + after))
    };
    if let Some(given_up) = given_up {
        let position = shared.state.lock().one_body.best();
        return shared.finish_given_up(given_up, position);
    }
    // A wait on the resource, unlike a sleep, ends when the file is cancelled.
    let is_cancelled = || shared.link.get().is_none_or(|link| link.epoch.is_cancelled());
    shared.resource.wait(Some(Instant::now() + after), |_| is_cancelled().then_some(()));
}

fn sequential_ended(shared: &Shared, result: Result<(), Error>) {
    #[cfg(feature = "cache")]
    if let Some(error) = result.as_ref().err().filter(|error| error.kind() == ErrorKind::Changed) {
        shared.handle_changed(error);
    }
    let mut state = shared.state.lock();
    state.one_body.end();
    let unreturned = match result {
        Ok(()) => None,
        // It was returned or published when the file was given up.
        Err(_) if state.waits.ended().is_some() => None,
        Err(error) if error.is_retryable() => {
            // The redirect's target may be what fails. The next request goes to the original URL.
            let target = state.target().cloned();
            state.leave_target(target.as_ref());
            state.waits.retry(error.clone());
            // A reader that waits has the plan request the body again at once.
            let is_wanted = state.limits.configured() == ReadAhead::Whole
                || state.readers.iter().any(|(_, reader)| reader.waits());
            if is_wanted { None } else { state.halt(error) }
        }
        Err(error) if error.is_cancelled() => None,
        Err(error) => state.fail(error),
    };
    let position = state.one_body.best();
    drop(state);
    if let Some(error) = unreturned {
        shared.report(error, position);
    }
    shared.resource.notify();
    shared.replan(Priority::High);
}
