//! The wait-and-wake protocol of the downloader in every interleaving of its threads: `combiner.rs`, `one_shot.rs` and
//! `task_queue.rs` of windway's `src/downloader/runtime/`, compiled here with loom's locks.
//!
//! `cargo test --manifest-path models/Cargo.toml`
//!
//! The faults that it excludes, each by tests of a similar name:
//!
//! - *The lost message.* Thread A combines and has emptied the queue. B posts a message, finds the lock taken and returns. A
//!   unlocks. A has to check the queue after it unlocks, not before. A combiner that checks only before is tried as well, and
//!   loom finds this interleaving.
//! - *The message applied by another thread.* A waits for the lock (`post_and_combine`) while others post. The thread that holds
//!   the lock must not apply A's message, or A would sleep until that thread has carried out the actions meant for A.
//! - *The message posted beside `with`.* The same with A in `with`, which posts no message of its own.
//! - *The signal between the check and the sleep.* The scheduler thread reads the state, another thread changes it and signals,
//!   and the scheduler thread goes to sleep. The one-shot has to keep the signal.
//! - *The value put at the deadline.* A value that is put when the time of the taker is over is taken then, or by the next
//!   take. It is never lost.
//! - *The task that waits for a thread that sleeps.* A task wakes no thread if one was woken for a task that another thread took.
//!   If the woken one has looked and sleeps again, the task has to wake it. If the thread that was to come blocks, the scheduler
//!   thread has to wake another one.
//! - *The task that was given back.* If there is no other thread, the task is given back. The late thread may come at the same
//!   time, and its message may be first. It still has to get the task.

#![cfg(test)]

use loom::sync::Arc;
use loom::thread;

#[allow(dead_code, reason = "what is not tried here is used by the library")]
#[path = "../../src/downloader/runtime/combiner.rs"]
mod combiner;

#[allow(dead_code, reason = "what is not tried here is used by the library")]
#[path = "../../src/downloader/runtime/one_shot.rs"]
mod one_shot;

#[path = "../../src/downloader/runtime/task_queue.rs"]
mod task_queue;

use combiner::Combiner;
use one_shot::OneShot;
use task_queue::{Announced, TaskQueue};

/// parking_lot's interface over loom's locks.
mod shim {
    use std::ops::{Deref, DerefMut};
    use std::time::Instant;

    use loom::sync::atomic::{AtomicBool, Ordering};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T> {
        inner: loom::sync::Mutex<T>,
        /// True while `inner` is locked; `try_lock` reads it. loom switches threads before a store, but not before an unlock, and
        /// a `try_lock` has to be tried between the two.
        held: AtomicBool,
    }

    pub(crate) struct MutexGuard<'a, T> {
        mutex: &'a Mutex<T>,
        /// `None` only while the thread waits on a condvar.
        guard: Option<loom::sync::MutexGuard<'a, T>>,
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    /// Result of a wait with a deadline.
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
            self.guard.as_deref().expect("no access during a wait")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.guard.as_deref_mut().expect("no access during a wait")
        }
    }

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self::default()
        }

        /// loom does not say whether a thread was woken, and nothing that is tried here depends on it.
        pub(crate) fn notify_one(&self) -> bool {
            self.0.notify_one();
            true
        }

        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            guard.guard = guard.release().and_then(|held| self.0.wait(held).ok());
            guard.mutex.held.store(true, Ordering::SeqCst);
        }

        /// Times out before any notification, after any other thread may have run.
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

/// The sum. Panics if a message was not applied.
fn sum_of(sum: &Sum) -> u32 {
    sum.with(|sum| *sum, |_, _| unreachable!("a message was lost"), |()| ())
}

/// Tries every interleaving with up to `preemptions` switches away from a thread that could continue; all of them if `None`.
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
                while sum.with(
                    |sum| *sum,
                    add,
                    |()| {
                        signal.put(());
                    },
                ) == 0
                {
                    signal.take();
                }
            })
        };
        sum.post(1, add, |()| {
            signal.put(());
        });
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

/// Puts a task where no thread is late.
fn put(queue: &TaskQueue<u32>, task: u32) -> bool {
    queue.put(0, task).expect("no thread is late")
}

/// A thread of the pool that takes `count` tasks.
fn taker(queue: &Arc<TaskQueue<u32>>, number: usize, count: usize) -> thread::JoinHandle<Vec<u32>> {
    let queue = Arc::clone(queue);
    thread::spawn(move || (0..count).map(|_| queue.take(number, queue.announce(), || ()).1).collect())
}

#[test]
fn each_task_is_taken_once() {
    model(Some(3), || {
        let queue = Arc::new(TaskQueue::new(2));
        let takers = [0, 1].map(|number| taker(&queue, number, 1));
        put(&queue, 1);
        put(&queue, 10);
        let taken = takers.map(|taker| taker.join().unwrap().iter().sum::<u32>());
        assert!(matches!(taken, [1, 10] | [10, 1]));
    });
}

#[test]
fn no_task_waits_while_a_thread_sleeps() {
    model(Some(3), || {
        let queue = Arc::new(TaskQueue::new(2));
        // A thread that is woken for a task may find that the other one has taken it.
        let takers = [taker(&queue, 0, 2), taker(&queue, 1, 1)];
        for task in [1, 10, 100] {
            put(&queue, task);
        }
        let taken = takers.map(|taker| taker.join().unwrap());
        assert_eq!(taken.iter().flatten().sum::<u32>(), 111);
    });
}

#[test]
fn a_thread_that_is_done_may_take_the_task_of_one_that_was_woken() {
    model(Some(3), || {
        let queue = Arc::new(TaskQueue::new(2));
        let other = taker(&queue, 1, 1);
        put(&queue, 1);
        put(&queue, 10);
        let (_, own) = queue.take(0, queue.announce(), || ());
        assert_eq!(own + other.join().unwrap()[0], 11);
    });
}

/// A queue, and the tasks that it has given back. As the machine does, they are put again when a thread comes back.
struct Giving {
    queue: TaskQueue<u32>,
    given_back: shim::Mutex<GivenBack>,
}

#[derive(Default)]
struct GivenBack {
    tasks: Vec<u32>,
    came_back: usize,
}

impl Giving {
    fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self { queue: TaskQueue::new(threads), given_back: shim::Mutex::default() })
    }

    /// As a thread that acts, and then the scheduler thread when the task has waited too long.
    fn put(&self, task: u32) {
        match self.queue.put(0, task) {
            Ok(true) => {
                let deadline = self.queue.next_deadline().unwrap();
                self.queue.take_late(deadline).into_iter().for_each(|(_, task)| self.give_back(task));
            }
            Ok(false) => {}
            Err(task) => self.give_back(task),
        }
    }

    fn take(&self, number: usize, announced: Announced) -> u32 {
        self.queue.take(number, announced, || self.change(|given_back| given_back.came_back += 1)).1
    }

    fn give_back(&self, task: u32) {
        self.change(|given_back| given_back.tasks.push(task));
    }

    fn change(&self, change: impl FnOnce(&mut GivenBack)) {
        let mut given_back = self.given_back.lock();
        change(&mut given_back);
        if given_back.came_back == 0 {
            return;
        }
        let Some(task) = given_back.tasks.pop() else { return };
        given_back.came_back -= 1;
        drop(given_back);
        put(&self.queue, task);
    }
}

#[test]
fn a_task_finds_another_thread_if_the_one_that_has_announced_itself_blocks() {
    model(Some(2), || {
        let (giving, ends) = (Giving::new(2), Arc::new(OneShot::default()));
        let announced = [(); 2].map(|()| giving.queue.announce());
        let [own, others] = announced;
        let other = {
            let (giving, ends) = (Arc::clone(&giving), Arc::clone(&ends));
            thread::spawn(move || {
                let task = giving.take(1, others);
                ends.put(());
                task
            })
        };
        giving.put(1);
        // It blocks until the other thread has run the task.
        ends.take();
        giving.put(10);
        assert_eq!((other.join().unwrap(), giving.take(0, own)), (1, 10));
    });
}

#[test]
fn a_task_that_was_given_back_is_taken_by_the_late_thread() {
    model(Some(3), || {
        let giving = Giving::new(1);
        let announced = giving.queue.announce();
        let late = {
            let giving = Arc::clone(&giving);
            thread::spawn(move || giving.take(0, announced) + giving.take(0, giving.queue.announce()))
        };
        giving.put(1);
        giving.put(10);
        assert_eq!(late.join().unwrap(), 11);
    });
}

/// A wrong combiner: it checks the queue before it unlocks, and not afterwards.
#[derive(Default)]
struct Forgetful {
    posted: shim::Mutex<Vec<u32>>,
    sum: shim::Mutex<u32>,
}

impl Forgetful {
    fn post(&self, message: u32) {
        self.posted.lock().push(message);
        let Some(mut sum) = self.sum.try_lock() else { return };
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
#[should_panic(expected = "a message was lost")]
fn loom_finds_the_lost_message_of_a_combiner_that_does_not_check_again() {
    model(None, || {
        let sum = Arc::new(Forgetful::default());
        let other = {
            let sum = Arc::clone(&sum);
            thread::spawn(move || sum.post(1))
        };
        sum.post(10);
        other.join().unwrap();
        assert!(sum.posted.lock().is_empty(), "a message was lost");
    });
}
