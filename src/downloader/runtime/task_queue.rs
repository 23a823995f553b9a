//! The tasks that were assigned and that no thread has taken yet.
//!
//! The schedule assigns a task to a worker, which is a place in the pool. Any thread of the pool takes the task, and runs it as
//! that worker. So a thread that is done takes a task before the thread that was woken for it is awake: to wake a thread takes
//! longer than many a fetch. If each thread waited for tasks of its own, a peer would be asked only after that time. Threads
//! that are done meanwhile would find nothing to do and sleep, and the peer's next fetch would wait for one of them in turn.
//!
//! A thread that is done also ends its job, and what learns of that end often asks for more work. So the thread announces itself
//! before, and the next task wakes no other one. If a callback of that end blocks, the thread is *late* after [`MAX_DELAY`]: the
//! scheduler thread wakes another one. If there is none, the task is given back to the machine, which counts its worker as busy
//! until the late thread comes. Otherwise urgent work would wait for that thread, and not preempt a prefetch.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::shim::{Condvar, Mutex};

/// How long a task waits for a thread that has announced itself. Urgent work whose task is given back then may need another 5 ms
/// to abort a silent prefetch, and all of that is to take less than 10 ms.
const MAX_DELAY: Duration = Duration::from_millis(2);

/// Tasks of workers, for a fixed number of threads.
pub(crate) struct TaskQueue<T> {
    state: Mutex<State<T>>,
    /// Where each thread sleeps. Notified after the thread was taken out of `asleep`.
    changed: Vec<Condvar>,
}

/// There are not more tasks than threads that come for one, unless no thread is asleep.
struct State<T> {
    /// In the order in which they were assigned, with their workers.
    tasks: VecDeque<(usize, T)>,
    /// The threads that sleep. The last one to fall asleep is the first to be woken: its caches are warm.
    asleep: Vec<usize>,
    /// Threads that come for a task: they were woken and have not looked yet.
    woken: usize,
    /// Threads that come for a task: they have announced it in this round.
    announced: usize,
    /// Threads that have announced themselves in an earlier round, and have not come.
    late: usize,
    /// Tasks that were given back, each for want of one of the late threads.
    given_back: usize,
    /// Ends when an announced thread is late. One number instead of a time for each thread: a thread that has announced itself only
    /// now counts as late too, which at most wakes a thread in vain.
    round: u64,
    /// When a task may have waited too long for a thread that has announced itself. `None` if none waits for one.
    late_at: Option<Instant>,
}

/// A thread has announced that it comes for a task, in this round.
#[must_use = "a task waits for the thread that has announced itself"]
pub(crate) struct Announced(u64);

impl<T> TaskQueue<T> {
    pub(crate) fn new(threads: usize) -> Self {
        let state = State {
            tasks: VecDeque::new(),
            asleep: Vec::with_capacity(threads),
            woken: 0,
            announced: 0,
            late: 0,
            given_back: 0,
            round: 0,
            late_at: None,
        };
        Self { state: Mutex::new(state), changed: (0..threads).map(|_| Condvar::new()).collect() }
    }

    /// Adds a task of `worker`. Wakes a thread for it, unless one comes anyway that has no other task to take. True if
    /// [`next_deadline`](Self::next_deadline) has changed.
    ///
    /// # Errors
    ///
    /// The task, if it would have to wait for a late thread.
    pub(crate) fn put(&self, worker: usize, task: T) -> Result<bool, T> {
        let mut state = self.state.lock();
        if state.tasks.len() < state.woken + state.announced {
            state.tasks.push_back((worker, task));
            return Ok(state.expect_announced());
        }
        let thread = state.wake();
        // Without a late thread it is one that has not started yet, and comes by itself.
        if thread.is_none() && state.give_back(1) == 1 {
            return Err(task);
        }
        state.tasks.push_back((worker, task));
        drop(state);
        self.notify(thread);
        Ok(false)
    }

    /// The calling thread is going to take a task, when it has called what may block.
    pub(crate) fn announce(&self) -> Announced {
        let mut state = self.state.lock();
        state.announced += 1;
        Announced(state.round)
    }

    /// Takes the next task, and its worker. Blocks until there is one. `thread` is the number of the calling thread. `come_back` is
    /// called, without the lock, if a task was given back because this thread was late.
    pub(crate) fn take(
        &self,
        thread: usize,
        announced: Announced,
        mut come_back: impl FnMut(),
    ) -> (usize, T) {
        let Announced(mut round) = announced;
        let mut state = self.state.lock();
        while round != state.round {
            round = state.round;
            state.late -= 1;
            // Before the call: the task that comes of it is for this thread.
            state.announced += 1;
            if state.given_back > 0 {
                state.given_back -= 1;
                drop(state);
                come_back();
                // The round may have ended again.
                state = self.state.lock();
            }
        }
        state.announced -= 1;
        loop {
            if let Some(task) = state.tasks.pop_front() {
                return task;
            }
            state.asleep.push(thread);
            // Until it is taken out. By the time this thread runs, another one may have taken the task.
            while state.asleep.contains(&thread) {
                self.changed[thread].wait(&mut state);
            }
            state.woken -= 1;
        }
    }

    /// When to call [`take_late`](Self::take_late).
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.state.lock().late_at
    }

    /// Wakes threads for the tasks that have waited too long for one that has announced itself. Gives back those for which there is
    /// no thread.
    pub(crate) fn take_late(&self, now: Instant) -> VecDeque<(usize, T)> {
        let mut threads = Vec::new();
        let given_back = {
            let mut state = self.state.lock();
            if state.late_at.is_none_or(|deadline| deadline > now) {
                return VecDeque::new();
            }
            state.late_at = None;
            state.round += 1;
            state.late += std::mem::take(&mut state.announced);
            while state.tasks.len() > state.woken {
                let Some(thread) = state.wake() else { break };
                threads.push(thread);
            }
            let unserved = state.tasks.len().saturating_sub(state.woken);
            let given_back = state.give_back(unserved);
            // The last ones, because threads take the first ones first.
            let kept = state.tasks.len() - given_back;
            state.tasks.split_off(kept)
        };
        threads.into_iter().for_each(|thread| self.notify(Some(thread)));
        given_back
    }

    fn notify(&self, thread: Option<usize>) {
        if let Some(thread) = thread {
            self.changed[thread].notify_one();
        }
    }
}

impl<T> State<T> {
    /// Takes out a thread that sleeps, which then has to be notified.
    fn wake(&mut self) -> Option<usize> {
        let thread = self.asleep.pop()?;
        self.woken += 1;
        Some(thread)
    }

    /// Notes that a task waits for a thread that has announced itself, if one does. True if `late_at` has changed.
    fn expect_announced(&mut self) -> bool {
        if self.tasks.len() <= self.woken || self.late_at.is_some() {
            return false;
        }
        self.late_at = Some(Instant::now() + MAX_DELAY);
        true
    }

    /// How many of these tasks are given back: at most one for each late thread, or there would be fewer busy workers than threads
    /// that come back.
    fn give_back(&mut self, unserved: usize) -> usize {
        let given_back = unserved.min(self.late - self.given_back);
        self.given_back += given_back;
        given_back
    }
}
