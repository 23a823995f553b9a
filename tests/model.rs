//! The wait-and-wake protocol of the downloader, tried in every interleaving: `combiner.rs` and `one_shot.rs` of
//! `src/downloader/runtime/`, compiled here with loom's locks.
//!
//! Excluded by it, each by the test of its name:
//!
//! - *The fact left lying.* A holds the turn and has emptied the mailbox; B leaves a fact, finds the turn taken and goes
//!   away; A gives the turn back. A must look into the mailbox after that, not before: a turnstile that looks only
//!   before is tried too, and loom finds this interleaving.
//! - *The answer that goes to another.* A waits for its turn (`post_and_combine`) while others come and go: whoever has the turn
//!   must not take A's fact along, or A sleeps until another thread has carried out what was for A to do.
//! - *The look that shuts out.* The same with a look at the machine (`with`) in A's place, which has no fact of its own.
//! - *The signal between the look and the sleep.* The scheduler thread reads the state, somebody changes it and signals,
//!   the thread goes to sleep: the signal has to be kept in the slot.
//! - *The value that comes with the deadline.* A value put just as the taker's time runs out is taken then, or stays for
//!   the next one; it is never lost.

use loom::sync::Arc;
use loom::thread;

#[allow(dead_code, reason = "what is not tried here is used by the library")]
#[path = "../src/downloader/runtime/combiner.rs"]
mod combiner;

#[allow(dead_code, reason = "what is not tried here is used by the library")]
#[path = "../src/downloader/runtime/one_shot.rs"]
mod one_shot;

use combiner::Combiner;
use one_shot::OneShot;

/// parking_lot's interface over loom's locks.
mod shim {
    use std::ops::{Deref, DerefMut};
    use std::time::Instant;

    use loom::sync::atomic::{AtomicBool, Ordering};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T> {
        inner: loom::sync::Mutex<T>,
        /// As `inner` is held, where `try_lock` looks. loom does not switch threads before an unlock, which only a
        /// `try_lock` could tell from one that comes a bit later; before a store it does.
        held: AtomicBool,
    }

    pub(crate) struct MutexGuard<'a, T> {
        mutex: &'a Mutex<T>,
        /// Empty only while its thread waits.
        guard: Option<loom::sync::MutexGuard<'a, T>>,
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    /// What a wait with a deadline says.
    pub(crate) struct TimedOut;

    impl TimedOut {
        pub(crate) fn timed_out(&self) -> bool {
            true
        }
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self { inner: loom::sync::Mutex::new(value), held: AtomicBool::new(false) }
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            let guard = self.inner.lock().ok();
            self.held.store(true, Ordering::SeqCst);
            MutexGuard { mutex: self, guard }
        }

        pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
            if self.held.load(Ordering::SeqCst) {
                return None;
            }
            let guard = self.inner.try_lock().ok()?;
            self.held.store(true, Ordering::SeqCst);
            Some(MutexGuard { mutex: self, guard: Some(guard) })
        }
    }

    impl<'a, T> MutexGuard<'a, T> {
        fn release(&mut self) -> Option<loom::sync::MutexGuard<'a, T>> {
            self.mutex.held.store(false, Ordering::SeqCst);
            self.guard.take()
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            drop(self.release());
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.guard.as_deref().expect("not while it waits")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.guard.as_deref_mut().expect("not while it waits")
        }
    }

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            guard.guard = guard.release().and_then(|held| self.0.wait(held).ok());
            guard.mutex.held.store(true, Ordering::SeqCst);
        }

        /// The deadline comes while anybody may run, and before any notification.
        pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _: Instant) -> TimedOut {
            drop(guard.release());
            loom::thread::yield_now();
            guard.guard = guard.mutex.inner.lock().ok();
            guard.mutex.held.store(true, Ordering::SeqCst);
            TimedOut
        }
    }
}

/// Adds up the messages.
type Sum = Combiner<u32, u32>;

fn add(sum: &mut u32, messages: &mut Vec<u32>) {
    *sum += messages.drain(..).sum::<u32>();
}

/// The sum, looked at without taking facts in.
fn sum_of(sum: &Sum) -> u32 {
    sum.with(|sum| *sum, |_, _| unreachable!("a message was left lying"), |()| ())
}

/// Tries every interleaving with so many switches at places where a thread could have gone on; all, if `None`.
fn model(preemptions: Option<usize>, check: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(check);
}

#[test]
fn no_message_is_lost() {
    model(None, || {
        let sum = Arc::new(Sum::new(0));
        let other = {
            let sum = Arc::clone(&sum);
            thread::spawn(move || sum.post(1, add, |()| ()))
        };
        sum.post(10, add, |()| ());
        other.join().unwrap();
        assert_eq!(sum_of(&sum), 11);
    });
}

#[test]
fn no_message_of_three_threads_is_lost() {
    model(Some(3), || {
        let sum = Arc::new(Sum::new(0));
        let others = [1, 10].map(|message| {
            let sum = Arc::clone(&sum);
            thread::spawn(move || sum.post(message, add, |()| ()))
        });
        sum.post(100, add, |()| ());
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(sum_of(&sum), 111);
    });
}

#[test]
fn no_message_is_lost_beside_a_thread_that_waits_for_the_lock() {
    model(Some(3), || {
        let sum = Arc::new(Sum::new(0));
        let others = [1, 10].map(|message| {
            let sum = Arc::clone(&sum);
            thread::spawn(move || match message {
                1 => sum.post(message, add, |()| ()),
                _ => sum.post_and_combine(message, add, |()| ()),
            })
        });
        sum.post_and_combine(100, add, |()| ());
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(sum_of(&sum), 111);
    });
}

#[test]
fn post_and_combine_applies_its_own_message() {
    model(Some(3), || {
        let sum = Arc::new(Sum::new(0));
        let other = {
            let sum = Arc::clone(&sum);
            thread::spawn(move || sum.post(1, add, |()| ()))
        };
        let mut answers = Vec::new();
        let apply = |sum: &mut u32, messages: &mut Vec<u32>| {
            let own = messages.contains(&100);
            add(sum, messages);
            own
        };
        sum.post_and_combine(100, apply, |own| answers.push(own));
        assert!(answers.contains(&true));
        other.join().unwrap();
    });
}

#[test]
fn a_message_posted_by_an_action_is_applied() {
    model(Some(3), || {
        let sum = Arc::new(Sum::new(0));
        let other = {
            let sum = Arc::clone(&sum);
            thread::spawn(move || {
                let mut follows = true;
                sum.post(1, add, |()| {
                    if std::mem::take(&mut follows) {
                        sum.post(10, add, |()| ());
                    }
                });
            })
        };
        sum.post(100, add, |()| ());
        other.join().unwrap();
        assert!(matches!(sum_of(&sum), 101 | 111));
    });
}

#[test]
fn a_message_posted_beside_with_is_applied() {
    model(None, || {
        let sum = Arc::new(Sum::new(0));
        let other = {
            let sum = Arc::clone(&sum);
            thread::spawn(move || sum.post(1, add, |()| ()))
        };
        let seen = sum.with(|sum| *sum, add, |()| ());
        assert!(seen <= 1);
        other.join().unwrap();
        assert_eq!(sum_of(&sum), 1);
    });
}

#[test]
fn a_signal_between_the_check_and_the_sleep_is_kept() {
    model(Some(3), || {
        let (sum, signal) = (Arc::new(Sum::new(0)), Arc::new(OneShot::default()));
        let sleeper = {
            let (sum, signal) = (Arc::clone(&sum), Arc::clone(&signal));
            thread::spawn(move || {
                while sum.with(|sum| *sum, add, |()| signal.put(())) == 0 {
                    signal.take();
                }
            })
        };
        sum.post(1, add, |()| signal.put(()));
        sleeper.join().unwrap();
    });
}

#[test]
fn a_value_is_handed_over_once() {
    model(None, || {
        let slot = Arc::new(OneShot::default());
        let taker = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || slot.take())
        };
        slot.put(7);
        assert_eq!(taker.join().unwrap(), 7);
        assert_eq!(slot.take_until(Some(std::time::Instant::now())), None);
    });
}

#[test]
fn a_value_put_at_the_deadline_is_not_lost() {
    model(None, || {
        let slot = Arc::new(OneShot::default());
        let putter = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || slot.put(7))
        };
        let now = Some(std::time::Instant::now());
        let taken = slot.take_until(now);
        putter.join().unwrap();
        assert_eq!(taken.or_else(|| slot.take_until(now)), Some(7));
    });
}

/// Looks into the mailbox before it gives the turn back, and not after: what the real one must not be.
#[derive(Default)]
struct Forgetful {
    posted: shim::Mutex<Vec<u32>>,
    turn: shim::Mutex<u32>,
}

impl Forgetful {
    fn post(&self, message: u32) {
        self.posted.lock().push(message);
        let Some(mut sum) = self.turn.try_lock() else { return };
        loop {
            let mut messages = std::mem::take(&mut *self.posted.lock());
            if messages.is_empty() {
                return;
            }
            add(&mut sum, &mut messages);
        }
    }
}

#[test]
#[should_panic(expected = "a message was left lying")]
fn loom_finds_the_lost_message_of_a_combiner_that_does_not_check_again() {
    model(None, || {
        let sum = Arc::new(Forgetful::default());
        let other = {
            let sum = Arc::clone(&sum);
            thread::spawn(move || sum.post(1))
        };
        sum.post(10);
        other.join().unwrap();
        assert!(sum.posted.lock().is_empty(), "a message was left lying");
    });
}
