//! Calls at deadlines, on one thread: what a thread that blocks on the network can't do for itself.
//!
//! The thread begins with the first alarm and ends when none has been set for a while. It wakes at the next deadline only:
//! an alarm that was taken back costs at most the one wake that it was due for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, thread};

use parking_lot::{Condvar, Mutex, MutexGuard};
use slab::Slab;

/// How long the thread stays without an alarm: a request a second should not start a thread a second.
const LINGER: Duration = Duration::from_secs(5);

/// What is done at a deadline.
pub(super) trait Call: Send + Sync {
    /// Returns the next deadline; `None` waits for [`Alarms::recheck`]. Must not block.
    fn call(self: Arc<Self>, now: Instant) -> Option<Instant>;
}

/// A call that has one deadline.
pub(super) struct AtDeadline<F>(pub(super) F);

impl<F: Fn() + Send + Sync> Call for AtDeadline<F> {
    fn call(self: Arc<Self>, _: Instant) -> Option<Instant> {
        (self.0)();
        None
    }
}

/// The alarms of a client.
#[derive(Default)]
pub(super) struct Alarms {
    state: Mutex<State>,
    /// Where the thread waits. Notified of an earlier deadline and of the close; and of the thread's end, for the close.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    alarms: Slab<Entry>,
    /// When the thread wakes next. `None` while there is no thread.
    wakes_at: Option<Instant>,
    closed: bool,
}

struct Entry {
    /// `None` until the next recheck.
    at: Option<Instant>,
    call: Arc<dyn Call>,
}

/// Its drop takes the alarm back. A call that is under way then still ends.
pub(crate) struct Alarm {
    alarms: Arc<Alarms>,
    key: usize,
}

impl Alarms {
    /// Calls `call` at `at`, and then when it says.
    pub(super) fn set(self: &Arc<Self>, at: Instant, call: Arc<dyn Call>) -> Alarm {
        let mut state = self.state.lock();
        let key = state.alarms.insert(Entry { at: Some(at), call });
        self.wake_by(&mut state, at);
        drop(state);
        Alarm { alarms: Arc::clone(self), key }
    }

    /// Calls those soon that wait for nothing else.
    pub(super) fn recheck(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let mut found = false;
        for (_, entry) in &mut state.alarms {
            found |= entry.at.is_none();
            entry.at.get_or_insert(now);
        }
        if found {
            self.wake_by(&mut state, now);
        }
    }

    /// Calls nobody any more, and blocks until the thread has ended.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.changed.notify_all();
        while state.wakes_at.is_some() {
            self.changed.wait(&mut state);
        }
    }

    fn wake_by(self: &Arc<Self>, state: &mut State, at: Instant) {
        match state.wakes_at {
            _ if state.closed => {}
            Some(wakes_at) if wakes_at <= at => {}
            Some(_) => {
                self.changed.notify_all();
            }
            None => {
                let alarms = Arc::clone(self);
                let named = thread::Builder::new().name("windway-hedge".into());
                match named.spawn(move || alarms.run()) {
                    Ok(_waited_for_by_close) => state.wakes_at = Some(at),
                    Err(error) => log::warn!("no thread for alarms: {error}"),
                }
            }
        }
    }

    fn run(&self) {
        let mut state = self.state.lock();
        let mut is_idle = false;
        while !state.closed {
            let now = Instant::now();
            self.call_due(&mut state, now);
            if is_idle && state.alarms.is_empty() {
                break;
            }
            is_idle = state.alarms.is_empty();
            let next = state.alarms.iter().filter_map(|(_, entry)| entry.at).min();
            let at = next.unwrap_or(now + LINGER);
            state.wakes_at = Some(at);
            if !state.closed {
                self.changed.wait_until(&mut state, at);
            }
        }
        state.wakes_at = None;
        self.changed.notify_all();
    }

    fn call_due(&self, state: &mut MutexGuard<'_, State>, now: Instant) {
        let mut due: Vec<(usize, Arc<dyn Call>)> = Vec::new();
        for (key, entry) in &mut state.alarms {
            // Without a deadline during its call: one that is set meanwhile, because what the call looks at has changed, is not
            // lost then.
            if entry.at.take_if(|at| *at <= now).is_some() {
                due.push((key, Arc::clone(&entry.call)));
            }
        }
        for (key, call) in due {
            // Without the lock: it may take a while, and what it drops may take the lock.
            let (next, call) = MutexGuard::unlocked(state, move || {
                let next = catch_unwind(AssertUnwindSafe(|| Arc::clone(&call).call(now)));
                (next.unwrap_or_default(), call)
            });
            // Another alarm may have its key by now.
            if let Some(entry) = state.alarms.get_mut(key).filter(|entry| Arc::ptr_eq(&entry.call, &call)) {
                entry.at = [next, entry.at].into_iter().flatten().min();
            }
            MutexGuard::unlocked(state, || drop(call));
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let entry = self.alarms.state.lock().alarms.remove(self.key);
        drop(entry);
    }
}

impl fmt::Debug for Alarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Alarms").field("set", &state.alarms.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::unbounded;
    use std::sync::atomic::{AtomicBool, Ordering};

    impl<F: Fn(Instant) -> Option<Instant> + Send + Sync> Call for F {
        fn call(self: Arc<Self>, now: Instant) -> Option<Instant> {
            self(now)
        }
    }

    impl Alarms {
        fn set_fn(
            self: &Arc<Self>,
            at: Instant,
            call: impl Fn(Instant) -> Option<Instant> + Send + Sync + 'static,
        ) -> Alarm {
            self.set(at, Arc::new(call))
        }
    }

    #[test]
    fn alarms_are_called_in_time_and_again_when_they_say() {
        let alarms = Arc::new(Alarms::default());
        let (tell, told) = unbounded();
        let now = Instant::now();
        let late = alarms.set_fn(now + Duration::from_secs(3600), |_| None);
        let (again, is_first) = (tell.clone(), AtomicBool::new(true));
        let _first = alarms.set_fn(now + Duration::from_millis(20), move |_| {
            again.send(1).unwrap_or_default();
            is_first.swap(false, Ordering::Relaxed).then_some(now + Duration::from_millis(40))
        });
        let _second = alarms.set_fn(now, move |_| {
            tell.send(2).unwrap_or_default();
            None
        });
        assert_eq!(told.iter().take(3).collect::<Vec<_>>(), [2, 1, 1]);
        alarms.recheck();
        let mut last: Vec<_> = told.iter().take(2).collect();
        last.sort_unstable();
        assert_eq!(last, [1, 2]);
        drop(late);
        alarms.close();
        assert!(alarms.state.lock().wakes_at.is_none());
    }

    #[test]
    fn a_recheck_during_a_call_is_not_lost() {
        let alarms = Arc::new(Alarms::default());
        let (tell, told) = unbounded();
        let (own, is_first) = (Arc::downgrade(&alarms), AtomicBool::new(true));
        let _alarm = alarms.set_fn(Instant::now(), move |_| {
            if is_first.swap(false, Ordering::Relaxed) {
                own.upgrade().expect("not closed").recheck();
            }
            tell.send(()).unwrap_or_default();
            None
        });
        for _ in 0..2 {
            told.recv_timeout(Duration::from_secs(60)).expect("called once, and once more");
        }
        alarms.close();
    }

    #[test]
    fn an_alarm_that_was_taken_back_is_not_called() {
        let alarms = Arc::new(Alarms::default());
        let (tell, told) = unbounded();
        let soon = Instant::now() + Duration::from_millis(20);
        let panics = alarms.set_fn(soon, |_| panic!("a call of a test that panics"));
        let taken = tell.clone();
        drop(alarms.set_fn(soon, move |_| {
            taken.send(1).unwrap_or_default();
            None
        }));
        let _other = alarms.set_fn(soon, move |_| {
            tell.send(2).unwrap_or_default();
            None
        });
        assert_eq!(told.recv(), Ok(2));
        drop(panics);
        alarms.close();
        assert!(told.is_empty());
    }
}
