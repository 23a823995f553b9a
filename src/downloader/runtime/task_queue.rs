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
    woken: Vec<Condvar>,
}

/// There are not more tasks than threads that come for one, unless no thread is asleep.
struct State<T> {
    /// In the order in which they were assigned, with their workers.
    tasks: VecDeque<(usize, T)>,
    /// The threads that sleep. The last one to fall asleep is the first to be woken: its caches are warm.
    asleep: Vec<usize>,
    /// Threads that come for a task: they have announced it, or were woken.
    coming: usize,
}

/// A thread has announced that it comes for a task.
#[must_use = "a task waits for the thread that has announced itself"]
pub(crate) struct Announced(());

impl<T> TaskQueue<T> {
    pub(crate) fn new(threads: usize) -> Self {
        let state = State { tasks: VecDeque::new(), asleep: Vec::with_capacity(threads), coming: 0 };
        Self { state: Mutex::new(state), woken: (0..threads).map(|_| Condvar::new()).collect() }
    }

    /// Adds a task of `worker`. Wakes a thread for it, unless one that comes anyway has no other task to take.
    pub(crate) fn put(&self, worker: usize, task: T) {
        let thread = {
            let mut state = self.state.lock();
            state.tasks.push_back((worker, task));
            let is_missing = state.tasks.len() > state.coming;
            let thread = if is_missing { state.asleep.pop() } else { None };
            state.coming += usize::from(thread.is_some());
            thread
        };
        if let Some(thread) = thread {
            self.woken[thread].notify_one();
        }
    }

    /// The calling thread is going to take a task soon. Call it as early as that is known: the thread that is woken for a task
    /// which this one takes has woken in vain.
    pub(crate) fn announce(&self) -> Announced {
        self.state.lock().coming += 1;
        Announced(())
    }

    /// Takes the next task, and its worker. Blocks until there is one. `thread` is the number of the calling thread.
    pub(crate) fn take(&self, thread: usize, _: Announced) -> (usize, T) {
        let mut state = self.state.lock();
        loop {
            state.coming -= 1;
            if let Some(task) = state.tasks.pop_front() {
                return task;
            }
            state.asleep.push(thread);
            // Until `put` takes it out. By then another thread may have taken the task.
            while state.asleep.contains(&thread) {
                self.woken[thread].wait(&mut state);
            }
        }
    }
}
