//! What all handles of a downloader share, and the start and the end of its threads.

use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use super::shared_budget::SharedBudget;
use crate::cancel::CancelReason;
use crate::downloader::runtime::core::Core;
use crate::downloader::runtime::message::Message;
use crate::downloader::runtime::own_thread::on_own_thread;
use crate::downloader::runtime::{scheduler, watchdog, worker};
use crate::error::Error;
use crate::foreign::in_callback;
use crate::thread;

/// Shared by all handles. Its drop stops the threads, which hold the core only.
pub(crate) struct Handle {
    pub(super) core: Arc<Core>,
    /// Memory for what streams buffer.
    pub(super) budget: Arc<SharedBudget>,
    threads: Mutex<Threads>,
    /// Notified when the threads have ended. Other calls of `stop` wait here.
    ended: Condvar,
}

/// State of the threads. It only changes from a variant to a later one.
enum Threads {
    /// No peer was registered yet. These threads run: none, unless another one could not be started.
    Starting(Vec<JoinHandle<()>>),
    Running(Vec<JoinHandle<()>>),
    /// A call of `stop` joins them, without the lock: a callback on them may register a peer, which takes it.
    Ending,
    Ended,
}

impl Handle {
    /// A handle to `core`, whose threads have not started.
    pub(super) fn new(core: Arc<Core>, budget: Arc<SharedBudget>) -> Self {
        Self { core, budget, threads: Mutex::new(Threads::Starting(Vec::new())), ended: Condvar::new() }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Starts the threads, if no call has started them before.
    pub(super) fn start(&self) -> Result<(), Error> {
        let mut threads = self.threads.lock();
        let running = match &mut *threads {
            Threads::Starting(running) => running,
            Threads::Running(_) => return Ok(()),
            Threads::Ending | Threads::Ended => return Err(Error::cancelled(CancelReason::Shutdown)),
        };
        // With the lock: another call would start them again, and `stop` would join only some. After an error those that run wait
        // for the next call: without a peer they have nothing to do.
        self.start_missing(running)?;
        *threads = Threads::Running(std::mem::take(running));
        Ok(())
    }

    /// Starts those behind `running`: the workers, the scheduler and the watchdog.
    fn start_missing(&self, running: &mut Vec<JoinHandle<()>>) -> Result<(), Error> {
        let workers = self.core.config.max_concurrent;
        for number in running.len()..workers + 2 {
            let core = Arc::clone(&self.core);
            running.push(match number.checked_sub(workers) {
                None => thread::start(&format!("fetch-{}", number + 1), move || worker::run(&core, number)),
                Some(0) => thread::start("scheduler", move || scheduler::run(&core)),
                Some(_) => thread::start("watchdog", move || watchdog::start(&core)),
            }?);
        }
        Ok(())
    }

    /// See [`Downloader::stop`](super::Downloader::stop).
    pub(super) fn stop(&self) {
        // First, so that a fetch that a worker is about to start finds its token cancelled: the machine ends only what waits.
        self.core.root.cancel();
        self.core.post(Message::Stopped);
        self.core.client.close();
        // The thread would wait for itself, or for one that waits for the end of this callback.
        if on_own_thread() || in_callback() {
            return;
        }
        let running = {
            let mut threads = self.threads.lock();
            match std::mem::replace(&mut *threads, Threads::Ending) {
                Threads::Starting(running) | Threads::Running(running) => running,
                Threads::Ending => {
                    while matches!(*threads, Threads::Ending) {
                        self.ended.wait(&mut threads);
                    }
                    return;
                }
                Threads::Ended => {
                    *threads = Threads::Ended;
                    return;
                }
            }
        };
        // Before the workers are joined: they may wait for a connection that a dial thread of the client opens.
        self.core.client.await_closed();
        join_all(running);
        // Afterwards: until it has ended, the scheduler thread may add some.
        join_all(self.core.take_reliefs());
        *self.threads.lock() = Threads::Ended;
        self.ended.notify_all();
    }
}

fn join_all(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            log::error!("a thread of windway panicked");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::downloader::{Downloader, DownloaderConfig};
    use crate::error::ErrorKind;
    use crate::types::Priority;

    #[test]
    fn a_downloader_whose_threads_could_not_all_start_starts_the_others_later() {
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        for name in ["fetch-1", "fetch-3", "scheduler", "watchdog"] {
            let _refusal = thread::refuse(name);
            let error = downloader.register((), Priority::High).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io(io::ErrorKind::ResourceBusy), "{error:?}");
            assert_eq!(error.to_string(), format!("the thread windway-{name} could not be started"));
        }
        let _peer = downloader.register((), Priority::High).unwrap();
        let Threads::Running(running) = &*downloader.0.threads.lock() else { panic!("all run") };
        assert_eq!(running.len(), downloader.0.core.config.max_concurrent + 2);
    }

    #[test]
    fn a_stop_joins_the_threads_that_had_started() {
        let downloader = Downloader::new(DownloaderConfig::default()).unwrap();
        let refusal = thread::refuse("scheduler");
        downloader.register((), Priority::High).unwrap_err();
        drop(refusal);
        downloader.stop();
        assert!(matches!(*downloader.0.threads.lock(), Threads::Ended));
        assert!(downloader.register((), Priority::High).unwrap_err().is_cancelled());
    }
}
