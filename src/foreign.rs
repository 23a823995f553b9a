//! Foreign code: values of the user that windway calls and drops.
//!
//! Peers, sinks, `validate` closures, cancel hooks, `on_hang`, rules that choose bitrates and the causes of errors are foreign.
//! Each may panic when it is called *and when it is dropped*, and each may call windway. So each is kept in a [`Foreign`]. Its
//! calls and its drop catch and log a panic, and mark the thread while they run. No code can forget this, because it can't reach
//! the bare value.
//!
//! windway holds no lock while foreign code runs, so foreign code may make every call that does not block. (A rule that chooses
//! bitrates is the exception: it runs under the lock of its player, and must not call it.) A call that blocks could wait for its
//! own thread, which is forever. So in a callback these calls return
//! [`ErrorKind::WouldDeadlock`](crate::ErrorKind::WouldDeadlock), also if they would not have to wait this time: an error that
//! is returned each time is found by the first test. The crate's documentation lists both groups of calls.
//!
//! The methods of a [`RequestHook`](crate::config::RequestHook) may `execute`: the program asks its own server for a token or a URL
//! there. Such a fetch runs on the thread of the hook and waits for no worker.
//!
//! If the drop of a value panics while another panic unwinds, Rust aborts the process. That can't be caught.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A value of the user. See the module.
#[derive(Debug)]
pub(crate) struct Foreign<T> {
    /// `None` only while it is being dropped or consumed.
    value: Option<T>,
}

/// The message of a panic, which was caught and logged.
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

    /// Calls the value. `name` is the public name of the callback.
    ///
    /// # Errors
    ///
    /// The panic of the callback.
    pub(crate) fn call<R>(&mut self, name: &str, call: impl FnOnce(&mut T) -> R) -> Result<R, Panic> {
        let value =
            self.value.as_mut().unwrap_or_else(|| unreachable!("it is some until it is dropped or consumed"));
        guard(name, || call(value))
    }

    /// As [`call`](Self::call), for a value that several threads may call at once.
    pub(crate) fn call_shared<R>(&self, name: &str, call: impl FnOnce(&T) -> R) -> Result<R, Panic> {
        let value = self.get();
        guard(name, || call(value))
    }

    /// As [`call_shared`](Self::call_shared), for a callback that may [`execute`](crate::downloader::PeerHandle::execute).
    pub(crate) fn call_hook<R>(&self, name: &str, call: impl FnOnce(&T) -> R) -> Result<R, Panic> {
        let value = self.get();
        guard_as(Running::Hook, name, || call(value))
    }

    /// As [`call`](Self::call), for a value that the call consumes.
    pub(crate) fn consume<R>(mut self, name: &str, call: impl FnOnce(T) -> R) -> Result<R, Panic> {
        let value =
            self.value.take().unwrap_or_else(|| unreachable!("it is some until it is dropped or consumed"));
        guard(name, || call(value))
    }

    /// The bare value, for calls in which the user gets it back.
    pub(crate) fn get(&self) -> &T {
        self.value.as_ref().unwrap_or_else(|| unreachable!("it is some until it is dropped or consumed"))
    }
}

impl<T> Drop for Foreign<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            // A panic was logged. A drop has no caller that could receive it.
            let _ = guard("drop", || drop(value));
        }
    }
}

/// What this thread runs on behalf of windway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Running {
    /// Nothing but windway's own code.
    Nothing,
    Callback,
    /// A callback that may `execute`.
    Hook,
}

thread_local! {
    /// The innermost callback.
    static RUNNING: Cell<Running> = const { Cell::new(Running::Nothing) };
}

/// True while this thread runs foreign code on behalf of windway.
pub(crate) fn in_callback() -> bool {
    RUNNING.get() != Running::Nothing
}

/// True while the foreign code that this thread runs is a hook, and not a callback that the hook has caused.
pub(crate) fn in_hook() -> bool {
    RUNNING.get() == Running::Hook
}

/// Runs code of windway that must not end its thread by a panic.
///
/// # Errors
///
/// The panic of `what`.
pub(crate) fn contain<R>(what: &str, code: impl FnOnce() -> R) -> Result<R, Panic> {
    // Not marked as a callback: code of windway may block here.
    catch_unwind(AssertUnwindSafe(code)).map_err(|payload| report(what, payload))
}

fn guard<R>(name: &str, code: impl FnOnce() -> R) -> Result<R, Panic> {
    guard_as(Running::Callback, name, code)
}

fn guard_as<R>(running: Running, name: &str, code: impl FnOnce() -> R) -> Result<R, Panic> {
    /// What ran before.
    struct Inside(Running);
    impl Drop for Inside {
        fn drop(&mut self) {
            RUNNING.set(self.0);
        }
    }
    // Restored, not cleared: a callback may drop a value of the user, and is still a callback when that drop has returned.
    // Lives until the payload of a panic is dropped too: that drop is also foreign code.
    let _inside = Inside(RUNNING.replace(running));
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
        // The drop of this payload may panic again, and so on forever.
        std::mem::forget(thrown_again);
    }
    // A logger is foreign code too.
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
    fn a_panic_in_a_call_is_an_error_with_its_message() {
        let mut foreign = Foreign::new(5);
        let error = foreign.call("validate", |_| -> () { panic!("as the test wants") }).unwrap_err();
        assert_eq!(error.to_string(), "the callback validate panicked: as the test wants");
        assert_eq!(foreign.call("validate", |value| *value).unwrap(), 5);
    }

    #[test]
    fn a_value_whose_drop_panics_is_dropped() {
        drop(Foreign::new(Hydra(1)));
        drop(Foreign::new(Hydra(9)));
        assert!(Foreign::new(Hydra(2)).consume("finish", drop).is_err());
        assert!(Foreign::new(()).consume("finish", |()| -> () { std::panic::panic_any(Hydra(9)) }).is_err());
    }

    #[test]
    fn a_thread_is_in_a_callback_until_the_outermost_one_returns() {
        assert!(!in_callback());
        let inner = Foreign::new(()).consume("finish", |()| {
            let nested = Foreign::new(()).consume("finish", |()| -> () { panic!("as the test wants") });
            nested.is_err() && in_callback()
        });
        assert!(inner.unwrap());
        assert!(!in_callback());
    }

    #[test]
    fn a_callback_within_a_hook_is_no_hook() {
        let called = Foreign::new(()).call_hook("headers", |()| {
            let nested = Foreign::new(()).consume("drop", |()| in_hook());
            (in_callback(), in_hook(), nested.unwrap(), in_hook())
        });
        assert_eq!(called.unwrap(), (true, true, false, true));
        assert!(!in_hook());
    }
}
