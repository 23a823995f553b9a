//! A worker thread: runs one task at a time, and reports its outcome.
//!
//! ```text
//!             ┌────────── retry, in the schedule ◀──────────┐
//!             ▼                                             │
//!  Job ─▶ open: resolve, connect, head ─▶ body ─▶ sink ──▶ end: Done | Failed | Cancelled
//!                     │           │
//!                     │           └─ detached: the sink keeps the open body
//!                     └─ the caller's: execute returns the open body
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::core::{Asked, Core, Message, PeerEntry, Task, enter_own_thread};
use super::retry_state::RetryState;
use super::transfer::{Handoff, Step, Transfer};
use crate::cancel::{CancelGuard, CancelReason, CancelToken};
use crate::client::{self, Urgency};
use crate::downloader::epoch::Epoch;
use crate::downloader::fetch::{Fetch, Flow, GuardedSink, Measured, Outcome, abandoned};
use crate::downloader::peer::Next;
use crate::downloader::response::{Reply, Response};
use crate::downloader::schedule::{Answer, FetchInfo, Fruitless, Origin, PROTECTED, WorkerId};
use crate::downloader::stats::PeerStats;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::foreign::contain;
use crate::types::{Priority, RequestId};

/// So many bytes end the protection of a prefetch that had aged.
const PROTECTED_BYTES: u64 = 256 * 1024;

/// A fetch on its way, from its acceptance to its one end.
pub(crate) struct Job {
    pub(crate) token: CancelToken,
    pub(crate) record: Record,
    pub(crate) control: Arc<Control>,
    pub(crate) retry_state: RetryState,
    pub(crate) target: Target,
    /// Where its body may be left to who reads what the sink stores.
    pub(crate) handoff: Option<Arc<Handoff>>,
    /// The open body, if it was set aside with it.
    body: Option<client::Response>,
    /// Set aside, and not run since.
    is_preempted: bool,
    /// Takes the job out of the schedule when it is cancelled.
    _on_cancel: CancelGuard,
}

/// Where a body goes.
pub(crate) enum Target {
    /// To a sink, written by the worker.
    Sink(GuardedSink),
    /// To a caller that waits for the open body.
    Caller(Reply),
}

/// What became of an attempt.
enum Attempt {
    Ended(Box<Job>, Result<(), Error>),
    /// It made room for urgent work; by itself, or because it was evicted.
    Preempted {
        job: Box<Job>,
        by_itself: bool,
    },
    /// The target has the open body, and its end.
    HandedOver,
}

/// The worker thread. Returns when it is told to.
pub(crate) fn run(core: &Arc<Core>, worker: WorkerId) {
    enter_own_thread();
    let mut chunk = Box::default();
    let mut task = core.take_task(worker);
    loop {
        let message = match task {
            Task::Run(job) => run_job(core, worker, job, &mut chunk),
            Task::Ask(asked) => contain("asking a peer", || ask(core, worker, &asked))
                .unwrap_or(Message::Answered(worker, Answer::Gone)),
            Task::Stop => break core.post(Message::Left),
        };
        task = core.next_task(worker, message);
    }
}

/// Asks a peer. What it gives comes back as a task, if it may run.
fn ask(core: &Arc<Core>, worker: WorkerId, asked: &Asked) -> Message {
    let next = asked.entry.peer.lock().call("next_fetch", |peer| peer.next_fetch(asked.admissible));
    let (fetch, sink, more) = match next {
        Ok(Next::Fetch(fetch, sink)) => (fetch, sink, true),
        Ok(Next::Last(fetch, sink)) => (fetch, sink, false),
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
pub(crate) fn run_job(core: &Arc<Core>, worker: WorkerId, job: Box<Job>, chunk: &mut Box<[u8]>) -> Message {
    contain("running a fetch", || run_unguarded(core, worker, job, chunk))
        .unwrap_or(Message::Finished(worker))
}

fn run_unguarded(core: &Arc<Core>, worker: WorkerId, mut job: Box<Job>, chunk: &mut Box<[u8]>) -> Message {
    if std::mem::take(&mut job.is_preempted) {
        job.record.publish(Event::Resumed { request: job.record.id });
    } else {
        job.record.start();
    }
    match attempt(core, job, chunk) {
        Attempt::HandedOver => Message::Finished(worker),
        Attempt::Preempted { mut job, by_itself } => {
            job.control.leave();
            job.is_preempted = true;
            job.record.publish(Event::Preempted { request: job.record.id, bytes: job.record.received });
            Message::Preempted(worker, job, by_itself)
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

fn attempt(core: &Arc<Core>, mut job: Box<Job>, chunk: &mut Box<[u8]>) -> Attempt {
    // Cancelled with the fetch, and by an eviction.
    let token = job.token.child(CancelReason::Fetch);
    if let Some(body) = job.body.take() {
        return stream(core, job, body, chunk);
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
            stream(core, job, body, chunk)
        }
        Err(error) => {
            let url = job.retry_state.request().url().clone();
            ended(job, Err(error.with_url(&url)))
        }
    }
}

/// Reads a body into the sink, up to its end or until it has to make room.
fn stream(core: &Arc<Core>, job: Box<Job>, body: client::Response, chunk: &mut Box<[u8]>) -> Attempt {
    let meter = job.control.begin_body();
    let core = Arc::clone(core);
    let mut transfer = Box::new(Transfer { core, job, body, meter, chunk: std::mem::take(chunk) });
    let result = loop {
        let step;
        (transfer, step) = transfer.step_or_offer();
        match step {
            Ok(Step::Moved | Step::WouldBlock) => {}
            Ok(Step::Preempt) => {
                if transfer.core.claim_preemption() {
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
        Err(error) => ended(job, Err(error)),
    }
}

/// An attempt that was cut off by an eviction, and by nobody else, has not failed.
fn ended(job: Box<Job>, result: Result<(), Error>) -> Attempt {
    let was_cut = result.as_ref().is_err_and(Error::is_cancelled) && !job.token.is_cancelled();
    if was_cut && job.control.was_stalled() {
        let stalled = Error::new(ErrorKind::Stalled, "the meter stood still and was ended by the watchdog");
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
}

/// What others see of a running fetch, and may do to it.
pub(crate) struct Control {
    pub(crate) request: RequestId,
    /// Its peer's, and that of all.
    all_stats: [Arc<PeerStats>; 2],
    measured: Measured,
    state: Mutex<ControlState>,
    /// Bytes of body so far, and steps before them: grows with every sign of life.
    progress: AtomicU64,
}

struct ControlState {
    /// Over all attempts, wherever the fetch waits between them. The schedule's is the same.
    priority: Priority,
    /// Closes the running attempt.
    attempt: Option<CancelToken>,
    evicted: bool,
    /// The watchdog ended it.
    stalled: bool,
    /// Until when it does not yield, unless it had its share before.
    protected: Option<Instant>,
    /// The progress at which it had its share of bytes in this turn.
    share: u64,
    moved: Instant,
    /// A worker has taken it up before.
    begun: bool,
    /// Its end was published, or is about to be.
    ended: bool,
}

impl Control {
    pub(crate) fn new(request: RequestId, fetch: &Fetch, all_stats: [Arc<PeerStats>; 2]) -> Self {
        let state = ControlState {
            priority: fetch.priority,
            attempt: None,
            evicted: false,
            stalled: false,
            protected: None,
            share: PROTECTED_BYTES,
            moved: Instant::now(),
            begun: false,
            ended: false,
        };
        let (measured, state) = (fetch.measured, Mutex::new(state));
        Self { request, all_stats, measured, state, progress: AtomicU64::new(0) }
    }

    /// A worker takes the fetch up.
    pub(crate) fn begin(&self, protected: bool) {
        let mut state = self.state.lock();
        let now = Instant::now();
        state.evicted = false;
        state.stalled = false;
        state.protected = protected.then_some(now + PROTECTED);
        state.share = self.progress.load(Ordering::Relaxed) + PROTECTED_BYTES;
        state.moved = now;
    }

    fn priority(&self) -> Priority {
        self.state.lock().priority
    }

    pub(crate) fn set_priority(&self, priority: Priority) {
        self.state.lock().priority = priority;
    }

    /// A worker takes it up. True if it is the first one to.
    pub(crate) fn take_up(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().begun, true)
    }

    /// Notes the end, and gives back what the last attempt could have been closed by. `None` if it has ended before.
    fn end(&self) -> Option<Option<CancelToken>> {
        let mut state = self.state.lock();
        let is_first = !std::mem::replace(&mut state.ended, true);
        is_first.then(|| state.attempt.take())
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state.lock().ended
    }

    /// Tells that it takes long, unless it has ended: nothing comes after an end.
    pub(crate) fn tell_slow(&self) {
        let event = Event::Slow { request: self.request };
        let state = self.state.lock();
        if state.ended {
            return;
        }
        let lost = self.all_stats.each_ref().map(|stats| stats.bus.push(&event));
        drop(state);
        drop(lost);
    }

    pub(crate) fn publish(&self, event: &Event) {
        self.all_stats.iter().for_each(|stats| stats.publish(event));
    }

    /// What counts the bytes of a body.
    pub(crate) fn begin_body(self: &Arc<Self>) -> BodyMeter {
        BodyMeter(Arc::clone(self))
    }

    /// When it gave its last sign of life.
    pub(crate) fn moved(&self) -> Instant {
        self.state.lock().moved
    }

    /// Closes the running attempt; the fetch goes on from its offset later.
    pub(crate) fn abort(&self) {
        let attempt = {
            let mut state = self.state.lock();
            state.evicted = true;
            state.attempt.take()
        };
        // Outside the lock: its hooks are foreign here.
        if let Some(attempt) = attempt {
            attempt.cancel();
        }
    }

    /// Publishes that it stands still, and ends it for that if `ends`. False if it does not: it has ended, or moved or left its
    /// worker since it gave its last sign of life at `seen`.
    pub(crate) fn report_stall(&self, seen: Instant, hang: &Event, ends: bool) -> bool {
        let attempt = {
            let mut state = self.state.lock();
            if state.ended || state.moved != seen {
                return false;
            }
            // Under the lock: nothing comes after an end.
            self.publish(hang);
            state.stalled = ends;
            if ends { state.attempt.take() } else { None }
        };
        if let Some(attempt) = attempt {
            attempt.cancel();
        }
        true
    }

    /// Who it is and how it is getting on.
    pub(crate) fn describe(&self, now: Instant) -> String {
        let state = self.state.lock();
        let silence = now.saturating_duration_since(state.moved);
        format!("{} ({:?}, silent for {silence:?})", self.request, state.priority)
    }

    fn was_stalled(&self) -> bool {
        self.state.lock().stalled
    }

    /// Lets an eviction close `attempt`. One that came before closes it now.
    fn arm(&self, attempt: &CancelToken) {
        let is_late = {
            let mut state = self.state.lock();
            state.attempt = Some(attempt.clone());
            state.evicted || state.stalled
        };
        if is_late {
            attempt.cancel();
        }
    }

    /// Notes that the fetch holds no worker any more, and nobody ends it for standing still.
    fn disarm(&self) {
        let mut state = self.state.lock();
        state.attempt = None;
        state.moved = Instant::now();
    }

    /// Notes that the fetch leaves its worker, to go on later.
    fn leave(&self) {
        self.state.lock().moved = Instant::now();
    }

    fn advance(&self) {
        self.advance_by(1);
    }

    pub(crate) fn advance_by(&self, steps: u64) {
        self.progress.fetch_add(steps, Ordering::Relaxed);
        self.state.lock().moved = Instant::now();
    }

    /// True if urgent work may interrupt it.
    pub(crate) fn is_preemptible(&self) -> bool {
        let state = self.state.lock();
        let has_share = self.progress.load(Ordering::Relaxed) >= state.share;
        let is_protected = state.protected.is_some_and(|until| Instant::now() < until) && !has_share;
        state.priority == Priority::Low && !is_protected
    }

    /// True if it had as many bytes in this turn as a protected one may have.
    pub(crate) fn had_share(&self) -> bool {
        self.progress.load(Ordering::Relaxed) >= self.state.lock().share
    }
}

impl Urgency for Control {
    fn is_urgent(&self) -> bool {
        self.state.lock().priority == Priority::High
    }
}

impl Job {
    pub(crate) fn new(
        core: &Arc<Core>,
        peer_token: &CancelToken,
        stats: &Arc<PeerStats>,
        fetch: Fetch,
        target: Target,
    ) -> Self {
        let id = core.next_request();
        let epoch = fetch.epoch.as_ref().filter(|epoch| epoch.is_of(peer_token)).map(Epoch::token);
        let token = epoch.unwrap_or(peer_token).child(CancelReason::Fetch);
        let weak = Arc::downgrade(core);
        let on_cancel = token.on_cancel(move |_| {
            if let Some(core) = weak.upgrade() {
                core.post(Message::Cancelled(id));
            }
        });
        let control = Arc::new(Control::new(id, &fetch, [Arc::clone(stats), Arc::clone(&core.stats)]));
        let record = Record::new(Arc::clone(&control));
        record.publish(Event::Enqueued { request: id });
        Self {
            handoff: fetch.handoff.clone(),
            retry_state: RetryState::new(fetch, core.config.max_retries),
            token,
            record,
            control,
            target,
            body: None,
            is_preempted: false,
            _on_cancel: on_cancel,
        }
    }

    pub(crate) fn fetch_info(&self) -> FetchInfo {
        let origin = Origin(self.retry_state.request().origin_hash());
        FetchInfo { request: self.record.id, priority: self.control.priority(), origin }
    }

    /// True if it was preempted with its body open.
    pub(crate) fn has_body(&self) -> bool {
        self.body.is_some()
    }

    /// The open body of a preempted job. Without it the job goes on from its offset on a new connection.
    pub(crate) fn take_body(&mut self) -> Option<client::Response> {
        self.body.take()
    }

    /// True if a peer gave it when it was asked.
    fn is_pulled(&self) -> bool {
        matches!(self.target, Target::Sink(_))
    }

    /// True if ending this job calls foreign code.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(self.target, Target::Sink(_)) || self.retry_state.is_foreign()
    }

    /// When to try again, if so; prepares the job for it.
    fn plan_retry(&mut self, result: &Result<(), Error>) -> Option<Instant> {
        let Err(error) = result else { return None };
        if self.token.is_cancelled() {
            return None;
        }
        if !self.is_pulled() && error.kind() == ErrorKind::TooManyOpenBodies {
            // Its caller may be who holds them.
            return None;
        }
        let after = self.retry_state.plan_retry(error)?;
        let at = Instant::now() + after;
        if let Target::Sink(sink) = &mut self.target {
            if sink.retrying(error, at).is_err() {
                return None;
            }
        }
        self.record.retry(error, after);
        Some(at)
    }

    /// The one end of a job whose body was not handed over.
    pub(crate) fn end(self, result: Result<(), Error>) {
        self.record.end(&result);
        match (self.target, result) {
            (Target::Sink(sink), result) => sink.finish(Outcome::from(result)),
            (Target::Caller(reply), Err(error)) => reply.put(Err(error)),
            (Target::Caller(_), Ok(())) => unreachable!("a caller gets the open body"),
        }
    }

    /// Ends a job that was cancelled while it waited.
    pub(crate) fn end_cancelled(self, reason: CancelReason) {
        self.end(Err(Error::cancelled(reason)));
    }
}

/// What is told about a fetch: its id, its times, and its one end.
pub(crate) struct Record {
    pub(crate) id: RequestId,
    /// Bytes of body that have arrived.
    pub(crate) received: u64,
    enqueued: Instant,
    started: Option<Instant>,
    pub(crate) control: Arc<Control>,
}

impl Record {
    pub(crate) fn new(control: Arc<Control>) -> Self {
        Self { id: control.request, received: 0, enqueued: Instant::now(), started: None, control }
    }

    pub(crate) fn publish(&self, event: Event) {
        self.control.publish(&event);
    }

    /// Tells that the head of `body` has come, `ttfb` after it was asked for.
    pub(crate) fn record_head(&self, ttfb: Duration, body: &client::Response) {
        // The wait for a connection that did not answer says nothing of those that do, and would put off the next hedge.
        let own = ttfb.saturating_sub(body.lost());
        if self.control.measured != Measured::Not {
            self.control.all_stats.iter().for_each(|stats| stats.record_head(own));
        }
        self.publish(Event::FirstByte { request: self.id, ttfb, status: body.head().status() });
    }

    /// Tells that it failed and will be tried again.
    pub(crate) fn retry(&self, error: &Error, after: Duration) {
        log::debug!("{} failed and is tried again in {after:?}: {error}", self.id);
        self.control.all_stats.iter().for_each(|stats| stats.record_retry());
        self.publish(Event::Retrying { request: self.id, error: error.clone(), after });
    }

    pub(crate) fn start(&mut self) {
        let now = Instant::now();
        self.started.get_or_insert(now);
        self.publish(Event::Started { request: self.id, wait: now - self.enqueued });
    }

    /// Publishes the end. Does nothing the second time.
    pub(crate) fn end(&self, result: &Result<(), Error>) {
        let Some(attempt) = self.control.end() else { return };
        // Here, and not with the last reference to the control: that may be dropped in a turn, and with the token may go
        // hooks of the user's.
        drop(attempt);
        self.control.all_stats.iter().for_each(|stats| stats.record_end(result));
        let (request, bytes) = (self.id, self.received);
        self.publish(match result {
            Ok(()) => {
                let duration = self.started.unwrap_or(self.enqueued).elapsed();
                let [_, all] = &self.control.all_stats;
                Event::Completed { request, bytes, duration, bandwidth: all.rate() }
            }
            Err(error) => match error.kind() {
                ErrorKind::Cancelled(reason) => Event::Cancelled { request, reason, bytes },
                _ => Event::Failed { request, error: error.clone(), bytes },
            },
        });
    }
}

/// Every fetch ends, also one that nobody has ended.
impl Drop for Record {
    fn drop(&mut self) {
        if !self.control.has_ended() {
            self.end(&Err(abandoned()));
        }
    }
}

/// A body on its way, as the accounts see it.
pub(crate) struct BodyMeter(Arc<Control>);

impl BodyMeter {
    /// Counts what a read of `body` brought, and the time that it took.
    pub(crate) fn advance(&self, body: &mut client::Response, bytes: usize) {
        let measured = self.0.measured;
        let sample = body.take_sample().filter(|_| measured != Measured::Not);
        let [peer, all] = &self.0.all_stats;
        peer.record_read(bytes, sample.as_ref(), None);
        match sample.filter(|_| measured == Measured::Fully) {
            Some(sample) => all.record_read(bytes, Some(&sample), body.origin()),
            None => all.record_read(bytes, None, None),
        }
    }
}
