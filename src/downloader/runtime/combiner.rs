//! How windway's threads hand things to one another: a turnstile around a machine, a slot for one value.
//!
//! **The turnstile.** Whoever has a fact for the machine leaves it in the mailbox and then tries to take the turn. If
//! nobody else has the turn it takes it, tells the machine all that is in the mailbox, gives the turn back, carries out
//! what the machine answered, and *looks into the mailbox again*. If somebody else has the turn it goes away; only one who
//! would sleep for the answer anyway waits for the turn.
//!
//! No fact is left lying. A teller that finds the turn taken put its fact into the mailbox before it looked. The holder
//! looks into the mailbox after it gave the turn back. Both look under the mailbox's lock: either the holder comes second
//! and sees the fact, or the teller comes second, and then the turn had been given back before it tried to take it.
//!
//! Its locks come from `shim`, so that `tests/model.rs` can compile this very file with locks whose every interleaving is
//! tried; which ones matter is told there.

use std::mem;

use super::shim::{Condvar, Mutex, MutexGuard};

/// A machine, and a mailbox of facts for it. See the module.
#[derive(Debug)]
pub(crate) struct Combiner<M, F> {
    posted: Mutex<Vec<F>>,
    turn: Mutex<Turn<M, F>>,
}

#[derive(Debug)]
struct Turn<M, F> {
    machine: M,
    /// Empty between turns. Kept for its memory.
    inbox: Vec<F>,
}

impl<M, F> Combiner<M, F> {
    pub(crate) fn new(machine: M) -> Self {
        Self { posted: Mutex::default(), turn: Mutex::new(Turn { machine, inbox: Vec::new() }) }
    }

    /// Leaves `message` for the machine, and takes turns until the mailbox is empty or somebody else has the turn.
    ///
    /// `step` runs with the turn taken: it must be short, and call nothing foreign. `act` runs without it.
    pub(crate) fn post<A>(&self, message: F, step: impl FnMut(&mut M, &mut Vec<F>) -> A, act: impl FnMut(A)) {
        self.posted.lock().push(message);
        self.combine(step, act);
    }

    /// As [`post`](Self::post), but waits for the turn where somebody else has it, so that the answer to `message` goes to this
    /// very `act`: for one who would only go to sleep until it comes back, which costs more than a short wait.
    pub(crate) fn post_and_combine<A>(
        &self,
        message: F,
        mut step: impl FnMut(&mut M, &mut Vec<F>) -> A,
        mut act: impl FnMut(A),
    ) {
        let answer = {
            let mut turn = self.turn.lock();
            // Not sooner, or who has the turn would take it along.
            self.posted.lock().push(message);
            self.apply_messages(&mut turn, &mut step)
        };
        answer.into_iter().for_each(&mut act);
        self.combine(step, act);
    }

    /// Waits for the turn, shows the machine to `look`, which must be short, and goes on as [`post`](Self::post) does:
    /// somebody may have left a fact meanwhile and gone away.
    pub(crate) fn with<T, A>(
        &self,
        look: impl FnOnce(&mut M) -> T,
        step: impl FnMut(&mut M, &mut Vec<F>) -> A,
        act: impl FnMut(A),
    ) -> T {
        let seen = look(&mut self.turn.lock().machine);
        self.combine(step, act);
        seen
    }

    fn combine<A>(&self, mut step: impl FnMut(&mut M, &mut Vec<F>) -> A, mut act: impl FnMut(A)) {
        while !self.posted.lock().is_empty() {
            let Some(mut turn) = self.turn.try_lock() else { return };
            let answer = self.apply_messages(&mut turn, &mut step);
            drop(turn);
            answer.into_iter().for_each(&mut act);
        }
    }

    /// Tells the machine what is in the mailbox, if anything is.
    fn apply_messages<A>(
        &self,
        turn: &mut Turn<M, F>,
        step: &mut impl FnMut(&mut M, &mut Vec<F>) -> A,
    ) -> Option<A> {
        let Turn { machine, inbox } = turn;
        mem::swap(&mut *self.posted.lock(), inbox);
        if inbox.is_empty() {
            return None;
        }
        let answer = step(machine, inbox);
        inbox.clear();
        Some(answer)
    }
}

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
    /// Puts `value` there. What was there and not taken is replaced.
    pub(crate) fn put(&self, value: T) {
        let old = self.value.lock().replace(value);
        self.filled.notify_one();
        drop(old);
    }

    /// True if a value is there.
    pub(crate) fn is_filled(&self) -> bool {
        self.value.lock().is_some()
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
                        return value.take();
                    }
                }
            }
        }
    }
}
