//! A thread of the pool: runs one task at a time, as the worker that has it, and reports its outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attempt::{Attempt, attempt};
use super::core::Core;
use super::job::{Job, Pause, Target};
use super::message::{Message, Report};
use super::own_thread::enter_own_thread;
use super::task::{PeerEntry, Question, Task};
use crate::buffer::Buffer;
use crate::downloader::peer::Next;
use crate::downloader::schedule::{Answer, Fruitless, WorkerId};
use crate::downloader::sink::GuardedSink;
use crate::error::Error;
use crate::event::Event;
use crate::foreign::contain;

/// A part that is shorter than requested counts as next to nothing below this size: the packets and the response head of a request
/// cost as much.
const MIN_PART: u64 = 4 * 1024;

/// Below this size it counts as hardly a byte: it is less than its response head.
const TINY_PART: u64 = 128;

/// A fetch that could not connect waits for this long, also if its origin answers others: a server that only some requests reach must
/// not get those that fail in a loop.
const LEAST_RETRY_DELAY: Duration = Duration::from_millis(500);

/// A thread of the pool, with its number. Returns after `Task::Stop`.
pub(crate) fn run(core: &Arc<Core>, thread: usize) {
    enter_own_thread();
    let mut chunk = Buffer::default();
    let (mut worker, mut task) = core.take_task(thread, core.tasks.announce());
    loop {
        let Some(done) = run_task(core, worker, task, &mut chunk) else {
            return core.post(Message::Left);
        };
        let next = if done.may_block() {
            // Announced before the job ends: the thread that its end wakes may ask for more work. And the worker's next task goes to
            // the queue, where another thread finds it if this one is blocked.
            let announced = core.tasks.announce();
            done.send(|report| core.post(Message::FromWorker(worker, report)));
            Err(announced)
        } else {
            done.send(|report| core.report(worker, report).ok_or_else(|| core.tasks.announce()))
        };
        match next {
            Ok(own) => task = own,
            Err(announced) => (worker, task) = core.take_task(thread, announced),
        }
    }
}

/// Runs `task` as `worker`, and returns the report for the machine. `None` if it was to stop.
pub(super) fn run_task(core: &Arc<Core>, worker: WorkerId, task: Task, chunk: &mut Buffer) -> Option<Done> {
    match task {
        Task::Run(job) => Some(run_job(core, worker, job, chunk)),
        Task::Ask(question) => Some(Done::of(
            // A peer that has panicked is not asked again: its state may be broken.
            contain("asking a peer", || ask(core, &question)).unwrap_or(Report::Answered(Answer::Gone)),
        )),
        Task::Stop => None,
    }
}

/// A task that was run: the report for the machine, and what has to happen after it.
#[must_use = "the machine waits for the report"]
pub(crate) struct Done {
    report: Report,
    /// A job that has ended with this result, of which its sink has not been informed yet.
    ended: Option<(Box<Job>, Result<(), Error>)>,
}

impl Done {
    fn of(report: Report) -> Self {
        Self { report, ended: None }
    }

    /// True if [`send`](Self::send) calls foreign code.
    fn may_block(&self) -> bool {
        self.ended.as_ref().is_some_and(|(job, _)| job.is_foreign())
    }

    /// Sends the report by `send`, and then ends the job.
    pub(crate) fn send<T>(self, send: impl FnOnce(Report) -> T) -> T {
        // First the report: a thread that the end wakes would otherwise find this worker busy, and the work that it asks for would
        // wake another one.
        let sent = send(self.report);
        if let Some((job, result)) = self.ended {
            // A panic is logged.
            let _ = contain("ending a fetch", || job.end(result));
        }
        sent
    }
}

/// Asks a peer. What it gives comes back as a task, if it may run.
fn ask(core: &Arc<Core>, question: &Question) -> Report {
    // Foreign code under a lock, for once: no other thread takes this one, because the schedule asks a peer once at a time.
    let next = question.entry.peer.lock().call("next_fetch", |peer| peer.next_fetch(question.admissible));
    let (fetch, sink, more) = match next {
        Ok(Next::Fetch { fetch, sink, more }) => (fetch, sink, more),
        Ok(Next::Wait) => return Report::Answered(Answer::Wait),
        Err(panic) => {
            end_peer(core, &question.entry, panic.into());
            return Report::Answered(Answer::Gone);
        }
    };
    let target = Target::Sink(GuardedSink::new(sink));
    let is_fit = fetch.check_epoch(&question.entry.token).and_then(|()| fetch.check_not_held());
    let mut job = core.accept(&question.entry.token, &question.entry.stats, fetch, target);
    let accepted = match &mut job.target {
        Target::Sink(sink) => sink.accepted(job.record.id),
        Target::Caller(_) => Ok(()),
    };
    // By its epoch, which the peer need not know to be over, or by its sink.
    let is_alive = |()| job.token.reason().map_or(Ok(()), |reason| Err(Error::cancelled(reason)));
    if let Err(error) = accepted.and(is_fit).and_then(is_alive) {
        let why = Fruitless::from(&error);
        job.end(Err(error));
        return Report::Answered(Answer::Ended { why, more });
    }
    Report::Fetched { job, more }
}

/// Ends a peer that panicked, and no other.
fn end_peer(core: &Core, entry: &PeerEntry, error: Error) {
    // Before the cancellation, whose events would otherwise come without their cause.
    let event = Event::PeerFailed { error };
    entry.stats.publish(&event);
    core.stats.publish(&event);
    entry.token.cancel();
}

/// Runs `job` in the place of `worker`, up to its end, its next attempt, or the hand-over of its open body. Returns
/// the report to send at once. `chunk` is not used where a caller waits for the body.
///
/// Never unwinds: whatever panics in it ends the job, and the worker is free again.
pub(crate) fn run_job(core: &Arc<Core>, worker: WorkerId, job: Box<Job>, chunk: &mut Buffer) -> Done {
    contain("running a fetch", || run_unguarded(core, worker, job, chunk))
        .unwrap_or(Done::of(Report::Finished))
}

fn run_unguarded(core: &Arc<Core>, worker: WorkerId, mut job: Box<Job>, chunk: &mut Buffer) -> Done {
    match job.pause.take() {
        None => job.record.start(),
        Some(Pause::Preempted) => job.record.publish(|| Event::Resumed { request: job.record.id }),
        Some(Pause::Left) => {}
    }
    Done::of(match attempt(core, worker, job, chunk) {
        Attempt::HandedOver => Report::Finished,
        Attempt::Preempted { mut job, claim } => {
            job.control.leave();
            job.pause = Some(Pause::Preempted);
            let (request, bytes) = (job.record.id, job.record.received);
            job.record.publish(|| Event::Preempted { request, bytes });
            Report::Preempted { job, claim }
        }
        Attempt::Left(mut job) => {
            job.control.leave();
            job.pause = Some(Pause::Left);
            Report::Preempted { job, claim: None }
        }
        Attempt::Ended(mut job, result) => match job.plan_retry(&result) {
            Some(at) => {
                job.control.leave();
                let is_unreachable = result.as_ref().is_err_and(Error::is_unreachable);
                let on_answer = is_unreachable.then(|| Instant::now() + LEAST_RETRY_DELAY);
                Report::Retry(job, at, on_answer)
            }
            None => {
                // A peer that hands out one dead fetch after the other is asked after a pause. `execute` has its caller to slow
                // it down.
                let fruitless = if job.is_pulled() { job.fruitless(&result) } else { None };
                let report = fruitless.map_or(Report::Finished, Report::Fruitless);
                return Done { report, ended: Some((job, result)) };
            }
        },
    })
}

impl Job {
    /// Why it has brought next to nothing, if it has ended with this result.
    fn fruitless(&self, result: &Result<(), Error>) -> Option<Fruitless> {
        match result {
            Err(_) if self.record.received > 0 => None,
            // Its sink may have cancelled it, and its error be another one.
            Err(_) if self.token.is_cancelled() => Some(Fruitless::Cancelled),
            Err(error) => Some(Fruitless::from(error)),
            Ok(()) if self.record.received >= MIN_PART => None,
            Ok(()) if self.retry_state.is_short_part() && self.record.received < TINY_PART => {
                Some(Fruitless::Tiny)
            }
            Ok(()) if self.retry_state.is_short_part() => Some(Fruitless::Short),
            // Among short answers, for the byte between two of them.
            Ok(()) => Some(Fruitless::Little),
        }
    }
}

impl From<&Error> for Fruitless {
    fn from(error: &Error) -> Self {
        if error.is_cancelled() { Self::Cancelled } else { Self::Failed }
    }
}
