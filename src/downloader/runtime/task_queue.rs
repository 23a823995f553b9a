//! The tasks that were assigned and that no thread has taken yet.
//!
//! The schedule assigns a task to a worker, which is a place in the pool. Any thread of the pool takes the task, and runs it as
//! that worker. So a thread that is done takes a task before the thread that was woken for it is awake: to wake a thread takes
//! longer than many a fetch. If each thread waited for tasks of its own, a peer would be asked only after that time. Threads
//! that are done meanwhile would find nothing to do and sleep, and the peer's next fetch would wait for one of them in turn.

use std::collections::VecDeque;

use super::shim::{Condvar, Mutex};

/// Tasks of workers, for a fixed number of threads.
pub(crate) struct TaskQueue<T> {
    state: Mutex<State<T>>,
    /// Where each thread sleeps. Notified by `put`, after it has taken the thread out of `asleep`.
    changed: Vec<Condvar>,
}

/// There are not more tasks than threads that were woken for one, unless no thread is asleep.
struct State<T> {
    /// In the order in which they were assigned, with their workers.
    tasks: VecDeque<(usize, T)>,
    /// The threads that sleep. The last one to fall asleep is the first to be woken: its caches are warm.
    asleep: Vec<usize>,
    /// Threads that were woken and have not looked for a task yet.
    woken: usize,
}

impl<T> TaskQueue<T> {
    pub(crate) fn new(threads: usize) -> Self {
        let state = State { tasks: VecDeque::new(), asleep: Vec::with_capacity(threads), woken: 0 };
        Self { state: Mutex::new(state), changed: (0..threads).map(|_| Condvar::new()).collect() }
    }

    /// Adds a task of `worker`. Wakes a thread for it, unless one is awake already for a task that another one took.
    pub(crate) fn put(&self, worker: usize, task: T) {
        let thread = {
            let mut state = self.state.lock();
            state.tasks.push_back((worker, task));
            let is_missing = state.tasks.len() > state.woken;
            let thread = if is_missing { state.asleep.pop() } else { None };
            state.woken += usize::from(thread.is_some());
            thread
        };
        if let Some(thread) = thread {
            self.changed[thread].notify_one();
        }
    }

    /// Takes the next task, and its worker. Blocks until there is one. `thread` is the number of the calling thread.
    pub(crate) fn take(&self, thread: usize) -> (usize, T) {
        let mut state = self.state.lock();
        loop {
            if let Some(task) = state.tasks.pop_front() {
                return task;
            }
            state.asleep.push(thread);
            // Until `put` takes it out. By the time this thread runs, another one may have taken the task.
            while state.asleep.contains(&thread) {
                self.changed[thread].wait(&mut state);
            }
            state.woken -= 1;
        }
    }
}
