//! A one-shot: one thread puts a value there, and another one waits for it.

use super::shim::{Condvar, Mutex, MutexGuard};

/// A place for one value that one thread puts there and another one waits for.
#[derive(Debug)]
pub(crate) struct OneShot<T> {
    value: Mutex<Option<T>>,
    /// Notified by `put`.
    filled: Condvar,
}

impl<T> Default for OneShot<T> {
    fn default() -> Self {
        Self { value: Mutex::new(None), filled: Condvar::new() }
    }
}

impl<T> OneShot<T> {
    /// Puts `value` there. What was there and not taken is replaced. Returns true if a thread waits for it.
    pub(crate) fn put(&self, value: T) -> bool {
        let old = self.value.lock().replace(value);
        // One thread waits, and the value is for one. Without the lock: the value was put under it, so it is found or its
        // notification is.
        let has_woken = self.filled.notify_one();
        // After the lock: a task that was never taken runs user code when it is dropped.
        drop(old);
        has_woken
    }

    /// Blocks until a value is there and takes it.
    pub(crate) fn take(&self) -> T {
        self.take_until(None).unwrap_or_else(|| unreachable!("without a deadline only a value ends the wait"))
    }

    /// Blocks until a value is there, and takes it, or `deadline` has passed.
    pub(crate) fn take_until(&self, deadline: Option<std::time::Instant>) -> Option<T> {
        let mut value: MutexGuard<'_, Option<T>> = self.value.lock();
        loop {
            if value.is_some() {
                return value.take();
            }
            match deadline {
                None => self.filled.wait(&mut value),
                Some(deadline) => {
                    if self.filled.wait_until(&mut value, deadline).timed_out() {
                        // Once more: the value may have been put after the timeout and before this thread had the lock again.
                        return value.take();
                    }
                }
            }
        }
    }
}
