//! A worker thread: runs one task at a time, and reports its outcome.

use std::sync::Arc;

use super::attempt::{Attempt, attempt};
use super::core::Core;
use super::job::{Job, Pause, Target};
use super::message::{Asked, Message, PeerEntry, Task};
use super::own_thread::enter_own_thread;
use crate::buffer::Buffer;
use crate::downloader::fetch::GuardedSink;
use crate::downloader::peer::Next;
use crate::downloader::schedule::{Answer, Fruitless, WorkerId};
use crate::error::Error;
use crate::event::Event;
use crate::foreign::contain;

/// The worker thread. Returns when it is told to.
pub(crate) fn run(core: &Arc<Core>, worker: WorkerId) {
    enter_own_thread();
    let mut chunk = Buffer::default();
    let mut task = core.take_task(worker);
    loop {
        let Some(message) = run_task(core, worker, task, &mut chunk) else {
            return core.post(Message::Left);
        };
        task = core.next_task(worker, message);
    }
}

/// Runs `task` as `worker`, and returns what the machine has to be told then. `None` if it was to stop.
pub(super) fn run_task(
    core: &Arc<Core>,
    worker: WorkerId,
    task: Task,
    chunk: &mut Buffer,
) -> Option<Message> {
    match task {
        Task::Run(job) => Some(run_job(core, worker, job, chunk)),
        Task::Ask(asked) => Some(
            contain("asking a peer", || ask(core, worker, &asked))
                .unwrap_or(Message::Answered(worker, Answer::Gone)),
        ),
        Task::Stop => None,
    }
}

/// Asks a peer. What it gives comes back as a task, if it may run.
fn ask(core: &Arc<Core>, worker: WorkerId, asked: &Asked) -> Message {
    let next = asked.entry.peer.lock().call("next_fetch", |peer| peer.next_fetch(asked.admissible));
    let (fetch, sink, more) = match next {
        Ok(Next::Fetch { fetch, sink, more }) => (fetch, sink, more),
        Ok(Next::Wait) => return Message::Answered(worker, Answer::Wait),
        Err(panic) => {
            end_peer(core, &asked.entry, panic.into());
            return Message::Answered(worker, Answer::Gone);
        }
    };
    let target = Target::Sink(GuardedSink::new(sink));
    let is_fit = fetch.check_epoch(&asked.entry.token).and_then(|()| fetch.check_not_held());
    let mut job = Box::new(Job::new(core, &asked.entry.token, &asked.entry.stats, fetch, target));
    let accepted = match &mut job.target {
        Target::Sink(sink) => sink.accepted(job.record.id),
        Target::Caller(_) => Ok(()),
    };
    // By its epoch, which the peer need not know to be over, or by its sink.
    let is_alive = |()| job.token.reason().map_or(Ok(()), |reason| Err(Error::cancelled(reason)));
    if let Err(error) = accepted.and(is_fit).and_then(is_alive) {
        let why = Fruitless::from(&error);
        job.end(Err(error));
        return Message::Answered(worker, Answer::Ended { why, more });
    }
    Message::Fetched(worker, job, more)
}

/// Ends a peer that panicked, and no other.
fn end_peer(core: &Core, entry: &PeerEntry, error: Error) {
    let event = Event::PeerFailed { error };
    entry.stats.publish(&event);
    core.stats.publish(&event);
    entry.token.cancel();
}

/// Runs `job` in the place of `worker`, up to its end, its next attempt, or the hand-over of its open body. Returns what
/// the machine has to be told then. `chunk` is not used where a caller waits for the body.
///
/// Never unwinds: whatever panics in it ends the job, and the worker is free again.
pub(crate) fn run_job(core: &Arc<Core>, worker: WorkerId, job: Box<Job>, chunk: &mut Buffer) -> Message {
    contain("running a fetch", || run_unguarded(core, worker, job, chunk))
        .unwrap_or(Message::Finished(worker))
}

fn run_unguarded(core: &Arc<Core>, worker: WorkerId, mut job: Box<Job>, chunk: &mut Buffer) -> Message {
    match job.pause.take() {
        None => job.record.start(),
        Some(Pause::Preempted) => job.record.publish(Event::Resumed { request: job.record.id }),
        Some(Pause::Left) => {}
    }
    match attempt(core, worker, job, chunk) {
        Attempt::HandedOver => Message::Finished(worker),
        Attempt::Preempted { mut job, by_itself } => {
            job.control.leave();
            job.pause = Some(Pause::Preempted);
            job.record.publish(Event::Preempted { request: job.record.id, bytes: job.record.received });
            Message::Preempted(worker, job, by_itself)
        }
        Attempt::Left(mut job) => {
            job.control.leave();
            job.pause = Some(Pause::Left);
            Message::Preempted(worker, job, false)
        }
        Attempt::Ended(mut job, result) => match job.plan_retry(&result) {
            Some(at) => {
                job.control.leave();
                Message::Retry(worker, job, at)
            }
            None => {
                let error = result.as_ref().err().filter(|_| job.is_pulled() && job.record.received == 0);
                let fruitless = error.map(Fruitless::from);
                job.end(result);
                fruitless.map_or(Message::Finished(worker), |why| Message::Fruitless(worker, why))
            }
        },
    }
}

impl From<&Error> for Fruitless {
    fn from(error: &Error) -> Self {
        if error.is_cancelled() { Self::Cancelled } else { Self::Failed }
    }
}
