//! How windway's threads share the scheduling core: a combiner around a machine.
//!
//! **The combiner** (flat combining: Hendler, Incze, Shavit, Tzafrir, SPAA 2010). A thread that has a message for the machine
//! tries to lock the machine. If no other thread holds the lock, it applies all posted messages and its own, unlocks the
//! machine, carries out what the machine answered, and *looks for posted messages again*. If another thread holds the lock,
//! it posts the message, tries the lock once more, and returns if it is still held: the holder applies the message. Only a
//! thread that would sleep for the answer anyway waits for the lock.
//!
//! No message is left unapplied. A thread that returns had posted its message before it found the machine locked. The
//! holder looks for messages after it has unlocked the machine. Both look under the lock of the messages. Either the holder is
//! second, and sees the message; or the poster is second, and then the machine was unlocked before it tried.
//!
//! The locks come from `shim`, so that `models/` can compile this file with locks whose every interleaving is tried.
//! That test lists which interleavings matter.

use std::mem;

use super::shim::Mutex;

/// A machine, and the messages that wait for it. See the module.
#[derive(Debug)]
pub(crate) struct Combiner<M, F> {
    /// Messages that no thread has applied yet.
    posted: Mutex<Vec<F>>,
    combined: Mutex<Combined<M, F>>,
}

#[derive(Debug)]
struct Combined<M, F> {
    machine: M,
    /// The messages being applied. Empty while the lock is free; kept for its memory.
    inbox: Vec<F>,
}

impl<M, F> Combiner<M, F> {
    pub(crate) fn new(machine: M) -> Self {
        Self { posted: Mutex::default(), combined: Mutex::new(Combined { machine, inbox: Vec::new() }) }
    }

    /// Has `message` applied, by this thread or by the one that holds the machine. Then applies messages until none is left or
    /// another thread holds the machine. Does not block.
    ///
    /// `step` runs with the machine locked: it must be short, and call no user code. `act` runs without the lock.
    pub(crate) fn post<A>(
        &self,
        message: F,
        mut step: impl FnMut(&mut M, &mut Vec<F>) -> A,
        mut act: impl FnMut(A),
    ) {
        match self.combined.try_lock() {
            Some(mut combined) => {
                let answer = self.apply_messages(&mut combined, Some(message), &mut step);
                drop(combined);
                if let Some(answer) = answer {
                    act(answer);
                }
            }
            // The thread that holds the lock may have looked for messages for the last time before this. So `combine` looks
            // again.
            None => self.posted.lock().push(message),
        }
        self.combine(step, act);
    }

    /// As [`post`](Self::post), but waits for the machine's lock, so that the answer to `message` goes to this `act`.
    pub(crate) fn post_and_combine<A>(
        &self,
        message: F,
        mut step: impl FnMut(&mut M, &mut Vec<F>) -> A,
        mut act: impl FnMut(A),
    ) {
        // This thread would sleep until the answer comes, and to wake it costs more than the short wait for the lock.
        let answer = {
            // Not posted before the lock, or the thread that holds it would apply this message.
            let mut combined = self.combined.lock();
            self.apply_messages(&mut combined, Some(message), &mut step)
        };
        if let Some(answer) = answer {
            act(answer);
        }
        self.combine(step, act);
    }

    /// Waits for the machine's lock, applies the posted messages, and shows the machine to `look`, which must be short. Then
    /// applies messages as [`post`](Self::post) does: another thread may have posted one meanwhile and returned.
    pub(crate) fn with<T, A>(
        &self,
        look: impl FnOnce(&mut M) -> T,
        mut step: impl FnMut(&mut M, &mut Vec<F>) -> A,
        mut act: impl FnMut(A),
    ) -> T {
        let (answer, seen) = {
            let mut combined = self.combined.lock();
            // Before the look: this thread may have posted one while another held the lock, and relies on its effect.
            let answer = self.apply_messages(&mut combined, None, &mut step);
            (answer, look(&mut combined.machine))
        };
        if let Some(answer) = answer {
            act(answer);
        }
        self.combine(step, act);
        seen
    }

    fn combine<A>(&self, mut step: impl FnMut(&mut M, &mut Vec<F>) -> A, mut act: impl FnMut(A)) {
        while !self.posted.lock().is_empty() {
            // The holder looks for messages after it has unlocked, so it finds what is there now.
            let Some(mut combined) = self.combined.try_lock() else { return };
            let answer = self.apply_messages(&mut combined, None, &mut step);
            drop(combined);
            if let Some(answer) = answer {
                act(answer);
            }
        }
    }

    /// Applies the posted messages and then `own`. `None` if there is nothing to apply.
    fn apply_messages<A>(
        &self,
        combined: &mut Combined<M, F>,
        own: Option<F>,
        step: &mut impl FnMut(&mut M, &mut Vec<F>) -> A,
    ) -> Option<A> {
        let Combined { machine, inbox } = combined;
        mem::swap(&mut *self.posted.lock(), inbox);
        // Last, because this thread may have posted some of the others before.
        inbox.extend(own);
        if inbox.is_empty() {
            return None;
        }
        let answer = step(machine, inbox);
        inbox.clear();
        Some(answer)
    }
}
