//! Starts the threads of windway.
//!
//! A system may refuse a thread: there is a limit for the process, its user or its container, or no memory for another stack. That
//! passes, so a caller of [`start`] returns the error or does without the thread for now, and tries again at the next occasion.

use std::thread::{Builder, JoinHandle};

use crate::error::Error;

/// Starts a thread that executes `run`. Its name is `windway-` and `name`.
///
/// # Errors
///
/// [`ErrorKind::Io`](crate::ErrorKind::Io) if the system refuses it. `run` is dropped then.
pub(crate) fn start<T: Send + 'static>(
    name: &str,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    #[cfg(test)]
    refusal::check(name).map_err(|cause| Error::no_thread(name, cause))?;
    let named = Builder::new().name(format!("windway-{name}"));
    named.spawn(run).map_err(|cause| Error::no_thread(name, cause))
}

/// Lets threads of this name not start, as long as the result lives and as far as the calling thread starts them.
#[cfg(test)]
pub(crate) use refusal::refuse;

#[cfg(test)]
mod refusal {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static REFUSED: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    pub(crate) struct Refusal(());

    impl Drop for Refusal {
        fn drop(&mut self) {
            REFUSED.set(None);
        }
    }

    pub(crate) fn refuse(name: &'static str) -> Refusal {
        REFUSED.set(Some(name));
        Refusal(())
    }

    pub(super) fn check(name: &str) -> io::Result<()> {
        // What Linux and macOS answer beyond their limits: EAGAIN.
        if REFUSED.get() == Some(name) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }
}
