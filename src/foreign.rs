//! Foreign code: what users give to windway to be called and, in the end, dropped.
//!
//! Peers, sinks, `validate` closures, cancel hooks, `on_hang` and the causes of errors are foreign. Each may panic when it is
//! called *and when it is dropped*, and each may call back into windway. So none is kept but in a [`Foreign`], whose calls
//! and whose drop catch a panic, log it, and mark the thread for as long as they last. A worker can't be lost to a value that
//! somebody forgot to guard, for the bare value is not there to be called or dropped.
//!
//! While foreign code runs, nothing of windway is locked, so every call that does not block is allowed in it. A call that
//! blocks could wait for the very thread that it blocks, and so for ever. Those return
//! [`ErrorKind::WouldDeadlock`](crate::ErrorKind::WouldDeadlock) in a callback, whether or not they would have had to wait this time:
//! an error that comes each time is found in the first test. The table of both is in the crate's documentation.
//!
//! A value whose drop panics while a panic unwinds through it aborts the process. That is Rust's rule, and can't be caught.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A value of a user's. See the module.
#[derive(Debug)]
pub(crate) struct Foreign<T> {
    /// `None` only while it is being dropped or consumed.
    value: Option<T>,
}

/// That something panicked, and was logged: what, and with which words.
#[derive(Debug)]
pub(crate) struct Panic(String);

impl fmt::Display for Panic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<T> Foreign<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Some(value) }
    }

    /// Calls it. `name` is the callback's, as users know it.
    ///
    /// # Errors
    ///
    /// That it panicked.
    pub(crate) fn call<R>(&mut self, name: &str, call: impl FnOnce(&mut T) -> R) -> Result<R, Panic> {
        let value = self.value.as_mut().unwrap_or_else(|| unreachable!("it is there until it is dropped"));
        guard(name, || call(value))
    }

    /// As [`call`](Self::call), for what may be called by several threads at once.
    pub(crate) fn call_shared<R>(&self, name: &str, call: impl FnOnce(&T) -> R) -> Result<R, Panic> {
        let value = self.get();
        guard(name, || call(value))
    }

    /// As [`call`](Self::call), for what is used up by it.
    pub(crate) fn consume<R>(mut self, name: &str, call: impl FnOnce(T) -> R) -> Result<R, Panic> {
        let value = self.value.take().unwrap_or_else(|| unreachable!("it is there until it is dropped"));
        guard(name, || call(value))
    }

    /// The bare value, to be handed back to its user: for code that runs in the user's own calls.
    pub(crate) fn get(&self) -> &T {
        self.value.as_ref().unwrap_or_else(|| unreachable!("it is there until it is dropped"))
    }
}

impl<T> Drop for Foreign<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            // It was logged, and nobody waits for what a drop has to say.
            let _ = guard("drop", || drop(value));
        }
    }
}

thread_local! {
    /// How many callbacks this thread is in, one inside another.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// True while this thread runs foreign code on behalf of windway.
pub(crate) fn in_callback() -> bool {
    DEPTH.get() > 0
}

/// Runs code of windway's that must not take its thread down, whatever happens in it.
///
/// # Errors
///
/// That `what` panicked.
pub(crate) fn contain<R>(what: &str, code: impl FnOnce() -> R) -> Result<R, Panic> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| report(what, payload))
}

fn guard<R>(name: &str, code: impl FnOnce() -> R) -> Result<R, Panic> {
    struct Inside;
    impl Drop for Inside {
        fn drop(&mut self) {
            DEPTH.set(DEPTH.get() - 1);
        }
    }
    DEPTH.set(DEPTH.get() + 1);
    // Until what was thrown is dropped, too: it is as foreign as what threw it.
    let _inside = Inside;
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| report(&format!("the callback {name}"), payload))
}

fn report(what: &str, payload: Box<dyn Any + Send>) -> Panic {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let panic = Panic(match text {
        Some(text) => format!("{what} panicked: {text}"),
        None => format!("{what} panicked"),
    });
    if let Err(thrown_again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // Somebody who throws what throws when it is dropped may go on like that for ever.
        std::mem::forget(thrown_again);
    }
    // A logger is foreign, too.
    let _ = catch_unwind(AssertUnwindSafe(|| log::error!("{panic}"))).map_err(std::mem::forget);
    panic
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Panics, with another one of itself, when it is dropped.
    struct Hydra(u32);

    impl Drop for Hydra {
        fn drop(&mut self) {
            if self.0 > 0 {
                std::panic::panic_any(Hydra(self.0 - 1));
            }
        }
    }

    #[test]
    fn a_panic_in_a_call_is_an_error_that_says_what_was_thrown() {
        let mut foreign = Foreign::new(5);
        let error = foreign.call("validate", |_| -> () { panic!("as the test wants") }).unwrap_err();
        assert_eq!(error.to_string(), "the callback validate panicked: as the test wants");
        assert_eq!(foreign.call("validate", |value| *value).unwrap(), 5);
    }

    #[test]
    fn what_panics_when_it_is_dropped_is_dropped_all_the_same() {
        drop(Foreign::new(Hydra(1)));
        drop(Foreign::new(Hydra(9)));
        assert!(Foreign::new(Hydra(2)).consume("finish", drop).is_err());
        assert!(Foreign::new(()).consume("finish", |()| -> () { std::panic::panic_any(Hydra(9)) }).is_err());
    }

    #[test]
    fn a_thread_knows_that_it_is_in_a_callback_until_it_is_not() {
        assert!(!in_callback());
        let inner = Foreign::new(()).consume("finish", |()| {
            let nested = Foreign::new(()).consume("finish", |()| -> () { panic!("as the test wants") });
            nested.is_err() && in_callback()
        });
        assert!(inner.unwrap());
        assert!(!in_callback());
    }
}
