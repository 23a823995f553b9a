//! The place where a lent thread gets its task, and where other threads end what it runs.

use std::sync::Arc;

use parking_lot::Mutex;

use super::control::Control;
use super::task::Task;
use crate::downloader::schedule::WorkerId;

/// A thread that is lent, as the machine sees it.
pub(crate) struct LentThread {
    state: Mutex<State>,
    /// The fetch that it runs, from before its last look whether it is to run it until it has run it.
    running: Mutex<Option<Arc<Control>>>,
    /// Wakes the thread, which is blocked on something of its owner's.
    wake: Box<dyn Fn() + Send + Sync>,
}

enum State {
    /// The machine may give it a task, once.
    Free,
    /// To be run, or to be given back.
    Given(WorkerId, Task),
    /// It has taken its task, or takes none any more.
    Closed,
}

impl LentThread {
    /// One that may get a task. `wake` is called when it has one.
    pub(super) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { state: Mutex::new(State::Free), running: Mutex::default(), wake: Box::new(wake) }
    }

    /// True if it still takes a task.
    pub(super) fn is_free(&self) -> bool {
        matches!(*self.state.lock(), State::Free)
    }

    /// True if it has a task that it did not take yet.
    pub(super) fn has_task(&self) -> bool {
        matches!(*self.state.lock(), State::Given(..))
    }

    /// Gives it a task to run as `worker`, and wakes it. Returns the task if the thread has gone on without one.
    pub(super) fn give(&self, worker: WorkerId, task: Task) -> Result<(), Task> {
        let mut state = self.state.lock();
        if !matches!(*state, State::Free) {
            return Err(task);
        }
        *state = State::Given(worker, task);
        drop(state);
        // Without the lock: it notifies a condvar under a lock of the reader, and the reader takes our lock under that one.
        (self.wake)();
        Ok(())
    }

    /// Takes out its task. It takes none any more.
    pub(super) fn take(&self) -> Option<(WorkerId, Task)> {
        match std::mem::replace(&mut *self.state.lock(), State::Closed) {
            State::Given(worker, task) => Some((worker, task)),
            State::Free | State::Closed => None,
        }
    }

    /// Records what it runs, if that is a fetch.
    pub(super) fn set_running(&self, control: Option<Arc<Control>>) {
        let before = std::mem::replace(&mut *self.running.lock(), control);
        // Without the lock: a control may be the last owner of a token with hooks.
        drop(before);
    }

    /// Aborts the fetch that it runs.
    pub(super) fn abort(&self) {
        let running = self.running.lock().clone();
        if let Some(control) = running {
            control.abort();
        }
    }
}
