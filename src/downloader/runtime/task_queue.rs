//! The tasks that were assigned and that no thread has taken yet.
//!
//! The schedule assigns a task to a worker, which is a place in the pool. Any thread of the pool takes the task, and runs it as
//! that worker. So a thread that is done takes a task before the thread that was woken for it is awake: to wake a thread takes
//! longer than many a fetch. If each thread waited for tasks of its own, a peer would be asked only after that time. Threads
//! that are done meanwhile would find nothing to do and sleep, and the peer's next fetch would wait for one of them in turn.
//!
//! A thread that is done also ends its job, and what learns of that end often asks for more work. So the thread announces itself
//! before, and the next task wakes no other one. If a callback of that end blocks, the scheduler thread wakes another one
//! after [`PATIENCE`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::shim::{Condvar, Mutex};

/// How long a task waits for a thread that has announced itself. As long as a silent prefetch has to make room for urgent work.
const PATIENCE: Duration = Duration::from_millis(5);

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
    /// Threads that come for a task: they have announced it.
    announced: usize,
    /// When a task may have waited too long for a thread that has announced itself. `None` if none waits for one.
    overdue: Option<Instant>,
}

/// A thread has announced that it comes for a task.
#[must_use = "a task waits for the thread that has announced itself"]
pub(crate) struct Announced(());

impl<T> TaskQueue<T> {
    pub(crate) fn new(threads: usize) -> Self {
        let state = State {
            tasks: VecDeque::new(),
            asleep: Vec::with_capacity(threads),
            woken: 0,
            announced: 0,
            overdue: None,
        };
        Self { state: Mutex::new(state), changed: (0..threads).map(|_| Condvar::new()).collect() }
    }

    /// Adds a task of `worker`. Wakes a thread for it, unless one comes anyway that has no other task to take. True if
    /// [`overdue`](Self::overdue) has changed.
    pub(crate) fn put(&self, worker: usize, task: T) -> bool {
        let mut state = self.state.lock();
        state.tasks.push_back((worker, task));
        if state.tasks.len() > state.woken + state.announced {
            let thread = state.wake();
            drop(state);
            self.notify(thread);
            return false;
        }
        let waits_for_announced = state.tasks.len() > state.woken;
        if !waits_for_announced || state.overdue.is_some() {
            return false;
        }
        state.overdue = Some(Instant::now() + PATIENCE);
        true
    }

    /// The calling thread is going to take a task, when it has called what may block.
    pub(crate) fn announce(&self) -> Announced {
        self.state.lock().announced += 1;
        Announced(())
    }

    /// Takes the next task, and its worker. Blocks until there is one. `thread` is the number of the calling thread.
    pub(crate) fn take(&self, thread: usize, _: Announced) -> (usize, T) {
        let mut state = self.state.lock();
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

    /// When to call [`wake_for_overdue`](Self::wake_for_overdue).
    pub(crate) fn overdue(&self) -> Option<Instant> {
        self.state.lock().overdue
    }

    /// Wakes threads for the tasks that have waited too long for one that has announced itself.
    pub(crate) fn wake_for_overdue(&self, now: Instant) {
        let mut threads = Vec::new();
        {
            let mut state = self.state.lock();
            if state.overdue.is_none_or(|overdue| overdue > now) {
                return;
            }
            // Of all tasks: some may have come just now, which at most wakes a thread in vain.
            state.overdue = None;
            while state.tasks.len() > state.woken {
                let Some(thread) = state.wake() else { break };
                threads.push(thread);
            }
        }
        threads.into_iter().for_each(|thread| self.notify(Some(thread)));
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
}
