//! Calls functions at deadlines, on one thread, for threads that are blocked on the network and can't do it themselves.
//!
//! The thread starts with the first alarm and ends when none has been set for [`LINGER`]. It only wakes at the next deadline: a
//! removed alarm costs at most one wake-up, at its deadline.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use slab::Slab;

use crate::thread;

/// Time after which the thread ends if no alarm is set. A program that sends one request a second must not start one thread a
/// second.
const LINGER: Duration = Duration::from_secs(5);

/// A function that is called at a deadline.
pub(super) trait Call: Send + Sync {
    /// Returns when to call it next. Must not block.
    fn call(self: Arc<Self>, now: Instant) -> Next;
}

/// When a function is called next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    At(Instant),
    /// At this time, or at the next [recheck](Alarms::recheck) before it.
    AtOrRecheck(Instant),
    Recheck,
}

impl From<Option<Instant>> for Next {
    fn from(at: Option<Instant>) -> Self {
        at.map_or(Self::Recheck, Self::At)
    }
}

/// Calls its function at a deadline, at those that it returns, and at each recheck after the last one.
pub(super) struct AtDeadline<F>(pub(super) F);

impl<F: Fn(Instant) -> Option<Instant> + Send + Sync> Call for AtDeadline<F> {
    fn call(self: Arc<Self>, now: Instant) -> Next {
        (self.0)(now).into()
    }
}

/// The alarms of a client.
#[derive(Default)]
pub(super) struct Alarms {
    state: Mutex<State>,
    /// The alarm thread waits here; notified when an earlier deadline is set and by `close`. `close` waits here too; notified
    /// when the thread ends.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    alarms: Slab<Entry>,
    /// Next wake-up of the thread. `None` while there is no thread.
    wakes_at: Option<Instant>,
    closed: bool,
}

struct Entry {
    /// Deadline. `None`: called at the next recheck.
    at: Option<Instant>,
    /// A recheck calls it although it has a deadline.
    is_rechecked: bool,
    call: Arc<dyn Call>,
}

/// Removes the alarm when it is dropped. A call that is running at that moment still completes.
pub(crate) struct Alarm {
    alarms: Arc<Alarms>,
    key: usize,
}

impl Alarms {
    /// Calls `call` at `at`, and then at each deadline that it returns.
    pub(super) fn set(self: &Arc<Self>, at: Instant, call: Arc<dyn Call>) -> Alarm {
        let mut state = self.state.lock();
        let key = state.alarms.insert(Entry { at: Some(at), is_rechecked: false, call });
        self.wake_by(&mut state, at);
        drop(state);
        Alarm { alarms: Arc::clone(self), key }
    }

    /// Calls every alarm that has no deadline or waits for a recheck, soon.
    pub(super) fn recheck(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let now = Instant::now();
        let mut found = false;
        for (_, entry) in &mut state.alarms {
            if entry.at.is_none() || entry.is_rechecked {
                found = true;
                entry.at = Some(entry.at.map_or(now, |at| at.min(now)));
            }
        }
        if found {
            self.wake_by(&mut state, now);
        }
    }

    /// Stops all calls. Blocks until the thread has ended.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.changed.notify_all();
        // As long as the thread lives it has a next deadline, and its last step is to clear it.
        while state.wakes_at.is_some() {
            self.changed.wait(&mut state);
        }
    }

    fn wake_by(self: &Arc<Self>, state: &mut State, at: Instant) {
        match state.wakes_at {
            // `close` may have returned, and nothing would wait for a thread that starts now.
            _ if state.closed => {}
            Some(wakes_at) if wakes_at <= at => {}
            // The thread computes its next deadline itself.
            Some(_) => {
                self.changed.notify_all();
            }
            None => {
                let alarms = Arc::clone(self);
                match thread::start("hedge", move || alarms.run()) {
                    Ok(_waited_for_by_close) => state.wakes_at = Some(at),
                    Err(error) => log::warn!("can't start the alarm thread: {error}"),
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
            // No alarm was set in the last `LINGER`.
            if is_idle && state.alarms.is_empty() {
                break;
            }
            is_idle = state.alarms.is_empty();
            let next = state.alarms.iter().filter_map(|(_, entry)| entry.at).min();
            let at = next.unwrap_or(now + LINGER);
            state.wakes_at = Some(at);
            // Asked again: `call_due` has released the lock, and `close` may have notified in that time.
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
            // The entry has no deadline during its call, so that a recheck in that time sets one: the call may have read the
            // state before it changed.
            if entry.at.take_if(|at| *at <= now).is_some() {
                entry.is_rechecked = false;
                due.push((key, Arc::clone(&entry.call)));
            }
        }
        for (key, call) in due {
            // Without the lock: the call may take a while, and dropping an `Alarm` inside it takes the lock.
            let (next, call) = MutexGuard::unlocked(state, move || {
                // A panic must not end the thread: the other alarms would never be called.
                let next = catch_unwind(AssertUnwindSafe(|| Arc::clone(&call).call(now)));
                (next.unwrap_or(Next::Recheck), call)
            });
            let (next, is_rechecked) = match next {
                Next::At(at) => (Some(at), false),
                Next::AtOrRecheck(at) => (Some(at), true),
                Next::Recheck => (None, true),
            };
            // The slab may have given this key to another alarm meanwhile.
            if let Some(entry) = state.alarms.get_mut(key).filter(|entry| Arc::ptr_eq(&entry.call, &call)) {
                entry.at = [next, entry.at].into_iter().flatten().min();
                entry.is_rechecked = is_rechecked;
            }
            // This may be the last owner, and what a drop runs must not find the lock taken.
            MutexGuard::unlocked(state, || drop(call));
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // The lock is free again after this statement: what the drop of the entry runs must not find it taken.
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
        fn call(self: Arc<Self>, now: Instant) -> Next {
            self(now).into()
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
    fn alarms_are_called_at_each_deadline_they_return() {
        let alarms = Arc::new(Alarms::default());
        let (calls_tx, calls) = unbounded();
        let now = Instant::now();
        let late = alarms.set_fn(now + Duration::from_secs(3600), |_| None);
        let (again, is_first) = (calls_tx.clone(), AtomicBool::new(true));
        let _first = alarms.set_fn(now + Duration::from_millis(20), move |_| {
            again.send(1).unwrap_or_default();
            is_first.swap(false, Ordering::Relaxed).then_some(now + Duration::from_millis(40))
        });
        let _second = alarms.set_fn(now, move |_| {
            calls_tx.send(2).unwrap_or_default();
            None
        });
        // In any order: on a busy machine the thread may find both due at once.
        let take = |count| {
            let mut called: Vec<_> = calls.iter().take(count).collect();
            called.sort_unstable();
            called
        };
        assert_eq!(take(3), [1, 1, 2]);
        alarms.recheck();
        assert_eq!(take(2), [1, 2]);
        drop(late);
        alarms.close();
        assert!(alarms.state.lock().wakes_at.is_none());
    }

    #[test]
    fn an_alarm_without_a_thread_is_called_once_one_starts() {
        let alarms = Arc::new(Alarms::default());
        let (calls_tx, calls) = unbounded();
        let refusal = thread::refuse("hedge");
        let (now, first) = (Instant::now(), calls_tx.clone());
        let _first = alarms.set_fn(now, move |_| {
            first.send(1).unwrap_or_default();
            None
        });
        assert!(alarms.state.lock().wakes_at.is_none());
        drop(refusal);
        let _second = alarms.set_fn(now, move |_| {
            calls_tx.send(2).unwrap_or_default();
            None
        });
        assert_eq!(calls.iter().take(2).sum::<i32>(), 3);
        alarms.close();
    }

    #[test]
    fn a_recheck_during_a_call_is_not_lost() {
        let alarms = Arc::new(Alarms::default());
        let (calls_tx, calls) = unbounded();
        let (own, is_first) = (Arc::downgrade(&alarms), AtomicBool::new(true));
        let _alarm = alarms.set_fn(Instant::now(), move |_| {
            if is_first.swap(false, Ordering::Relaxed) {
                own.upgrade().expect("not closed").recheck();
            }
            calls_tx.send(()).unwrap_or_default();
            None
        });
        for _ in 0..2 {
            calls.recv_timeout(Duration::from_secs(60)).expect("called twice");
        }
        alarms.close();
    }

    #[test]
    fn a_recheck_calls_an_alarm_before_its_deadline_only_if_it_waits_for_both() {
        struct Waits(Next, crossbeam_channel::Sender<Next>);
        impl Call for Waits {
            fn call(self: Arc<Self>, _: Instant) -> Next {
                self.1.send(self.0).unwrap_or_default();
                self.0
            }
        }
        let alarms = Arc::new(Alarms::default());
        let (calls_tx, calls) = unbounded();
        let now = Instant::now();
        let late = now + Duration::from_secs(3600);
        let set = |next| alarms.set(now, Arc::new(Waits(next, calls_tx.clone())));
        let _set = [Next::At(late), Next::AtOrRecheck(late), Next::Recheck].map(set);
        assert_eq!(calls.iter().take(3).count(), 3);
        // What a call returns is recorded before the next call is made: this one shows that those three are over.
        let next = alarms.set(now, Arc::new(Waits(Next::At(late), calls_tx.clone())));
        assert_eq!(calls.recv(), Ok(Next::At(late)));
        drop(next);
        alarms.recheck();
        let mut called: Vec<_> = calls.iter().take(2).collect();
        called.sort_unstable_by_key(|next| *next == Next::Recheck);
        assert_eq!(called, [Next::AtOrRecheck(late), Next::Recheck]);
        alarms.close();
        assert!(calls.is_empty());
    }

    #[test]
    fn a_removed_alarm_is_not_called() {
        let alarms = Arc::new(Alarms::default());
        let (calls_tx, calls) = unbounded();
        let soon = Instant::now() + Duration::from_millis(20);
        let panics = alarms.set_fn(soon, |_| panic!("a call of a test that panics"));
        let removed = calls_tx.clone();
        drop(alarms.set_fn(soon, move |_| {
            removed.send(1).unwrap_or_default();
            None
        }));
        let _other = alarms.set_fn(soon, move |_| {
            calls_tx.send(2).unwrap_or_default();
            None
        });
        assert_eq!(calls.recv(), Ok(2));
        drop(panics);
        alarms.close();
        assert!(calls.is_empty());
    }
}
