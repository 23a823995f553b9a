//! What all handles of a downloader share, and the start and the end of its threads.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::shared_budget::SharedBudget;
use crate::cancel::CancelReason;
use crate::downloader::runtime::core::Core;
use crate::downloader::runtime::message::Message;
use crate::downloader::runtime::own_thread::on_own_thread;
use crate::downloader::runtime::{scheduler, watchdog, worker};
use crate::error::Error;
use crate::foreign::in_callback;

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
#[derive(Default)]
enum Threads {
    /// No peer was registered yet.
    #[default]
    NotStarted,
    Running(Vec<JoinHandle<()>>),
    /// A call of `stop` joins them, without the lock: a callback on them may register a peer, which takes it.
    Ending,
    Ended,
}

impl Handle {
    /// A handle to `core`, whose threads have not started.
    pub(super) fn new(core: Arc<Core>, budget: Arc<SharedBudget>) -> Self {
        Self { core, budget, threads: Mutex::default(), ended: Condvar::new() }
    }

    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Starts the threads, if no call has started them before.
    pub(super) fn start(&self) -> Result<(), Error> {
        let mut threads = self.threads.lock();
        match &*threads {
            Threads::NotStarted => {}
            Threads::Running(_) => return Ok(()),
            Threads::Ending | Threads::Ended => return Err(Error::cancelled(CancelReason::Shutdown)),
        }
        // With the lock: another call would start them again, and `stop` would join only some.
        let mut running = Vec::new();
        let started = self.start_all(&mut running);
        *threads = Threads::Running(running);
        drop(threads);
        // Some threads may run: `stop` ends and joins them, and later calls get the error of a stopped downloader.
        if started.is_err() {
            self.stop();
        }
        started
    }

    fn start_all(&self, running: &mut Vec<JoinHandle<()>>) -> Result<(), Error> {
        for number in 0..self.core.config.max_concurrent {
            let core = Arc::clone(&self.core);
            let named = thread::Builder::new().name(format!("windway-fetch-{}", number + 1));
            running.push(named.spawn(move || worker::run(&core, number)).map_err(Error::no_thread)?);
        }
        let core = Arc::clone(&self.core);
        let named = thread::Builder::new().name("windway-scheduler".into());
        running.push(named.spawn(move || scheduler::run(&core)).map_err(Error::no_thread)?);
        let core = Arc::clone(&self.core);
        let named = thread::Builder::new().name("windway-watchdog".into());
        running.push(named.spawn(move || watchdog::start(&core)).map_err(Error::no_thread)?);
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
                Threads::Running(running) => running,
                Threads::NotStarted => Vec::new(),
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
