//! The thread that does file I/O for readers and writers that must not wait for a disk.
//!
//! There is one for the process. The first resource that has work for it starts it, and the drop of the last share ends
//! it. A network worker can't do its work: while all of them wait for servers, bytes that lie on the local disk would
//! wait with them.
//!
//! What wakes a thread: [`request`](Disk::request), [`close`](Disk::close) and the drop notify the thread, under the queue's lock.
//! Only the drop waits for the thread: it joins it. While there is no work the thread sleeps without a deadline.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};
use std::thread::{JoinHandle, ThreadId};

use parking_lot::{Condvar, Mutex};

use super::store::BlockStore;
use super::write_behind::Backlog;
use crate::error::Error;
use crate::foreign::contain;
use crate::thread;

/// Something that needs file I/O.
pub(super) trait DiskWork: fmt::Debug + Send + Sync {
    /// Does one block's work, on the disk thread. True if there is more.
    fn work(&self) -> bool;
}

static SHARED: Mutex<Weak<Disk>> = Mutex::new(Weak::new());

/// A share of the thread, which ends with the last share.
#[derive(Debug)]
pub(super) struct Disk {
    queue: Arc<Queue>,
    /// Counts the blocks in memory that are not written.
    backlog: Arc<Backlog>,
    id: ThreadId,
    /// Taken by the drop only.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Notified when work is added, and when the queue is closed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Each resource is in it at most once for its work, and once for its end. Each limits its own work.
    waiting: VecDeque<Task>,
    /// The last share was dropped, so nothing is to be closed any more.
    is_closed: bool,
}

/// What the thread does for a resource.
#[derive(Debug)]
enum Task {
    Work(Weak<dyn DiskWork>),
    /// Drops the store, and then the resource's share of the thread.
    Close(Box<dyn BlockStore>, Arc<Disk>),
}

impl Disk {
    /// A share of the process's thread. Starts it if it does not run. Does not block for I/O.
    pub(super) fn shared() -> Result<Arc<Self>, Error> {
        // Held while the thread starts: two resources that need it at the same time must not start two.
        let mut shared = SHARED.lock();
        if let Some(disk) = shared.upgrade() {
            return Ok(disk);
        }
        let disk = Arc::new(Self::start(Backlog::default())?);
        *shared = Arc::downgrade(&disk);
        Ok(disk)
    }

    fn start(backlog: Backlog) -> Result<Self, Error> {
        let queue = Arc::new(Queue::default());
        let serves = Arc::clone(&queue);
        let thread = thread::start("disk", move || serves.run())?;
        Ok(Self { queue, backlog: Arc::new(backlog), id: thread.thread().id(), thread: Some(thread) })
    }

    /// The blocks that wait to be written, of all resources together.
    pub(super) fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    /// Calls [`DiskWork::work`] on the thread until it returns false. The caller must not request it again before.
    pub(super) fn request(&self, work: &Arc<dyn DiskWork>) {
        self.queue.push(Task::Work(Arc::downgrade(work)));
    }

    /// Drops `store` on the thread, which keeps this share until then: to close a large file takes the system a while, 30 ms for
    /// 512 MiB in memory. Does not block.
    pub(super) fn close(self: Arc<Self>, store: Box<dyn BlockStore>) {
        let queue = Arc::clone(&self.queue);
        queue.push(Task::Close(store, self));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        {
            let mut state = self.queue.state.lock();
            state.is_closed = true;
            self.queue.changed.notify_all();
        }
        // The thread itself may drop the last share, with a resource that it held while it worked, or after a close. It ends by
        // itself then.
        if std::thread::current().id() == self.id {
            return;
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the disk thread panicked");
        }
    }
}

impl Queue {
    /// The thread.
    fn run(&self) {
        while let Some(task) = self.next() {
            match task {
                Task::Work(waiting) => self.work(waiting),
                Task::Close(store, share) => {
                    // A panic is logged there.
                    let _ = contain("the close of a temporary file", move || drop(store));
                    drop(share);
                }
            }
        }
    }

    fn work(&self, waiting: Weak<dyn DiskWork>) {
        // A resource that was dropped needs no I/O.
        let Some(resource) = waiting.upgrade() else { return };
        // With its drop, since this may be the last reference. All resources of the process need this thread.
        if contain("work of the disk thread", move || resource.work()).unwrap_or(false) {
            // Behind the others: no resource waits for all blocks of another one.
            self.push(Task::Work(waiting));
        }
    }

    /// Blocks until there is work. `None` once the queue is closed.
    fn next(&self) -> Option<Task> {
        let mut state = self.state.lock();
        loop {
            if state.is_closed {
                return None;
            }
            match state.waiting.pop_front() {
                Some(task) => return Some(task),
                None => self.changed.wait(&mut state),
            }
        }
    }

    fn push(&self, task: Task) {
        let mut state = self.state.lock();
        state.waiting.push_back(task);
        self.changed.notify_all();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crossbeam_channel::{Receiver, Sender, bounded};

    /// Reports the thread that does its work.
    #[derive(Debug)]
    struct Report(Sender<ThreadId>);

    impl DiskWork for Report {
        fn work(&self) -> bool {
            self.0.send(std::thread::current().id()).unwrap();
            false
        }
    }

    /// Blocks until the work that was requested before has been done, each once. Returns the disk's thread.
    pub(in crate::storage) fn await_earlier_work(disk: &Disk) -> ThreadId {
        let (sender, receiver) = bounded(1);
        let report: Arc<dyn DiskWork> = Arc::new(Report(sender));
        disk.request(&report);
        receiver.recv().unwrap()
    }

    #[test]
    fn a_disk_without_a_thread_is_an_error_once() {
        let refusal = thread::refuse("disk");
        let error = Disk::start(Backlog::default()).unwrap_err();
        assert_eq!(error.to_string(), "the thread windway-disk could not be started");
        drop(refusal);
        await_earlier_work(&own_disk());
    }

    /// Blocks the thread until it receives a message.
    #[derive(Debug)]
    struct Block(Receiver<()>);

    impl DiskWork for Block {
        fn work(&self) -> bool {
            self.0.recv().unwrap();
            false
        }
    }

    /// A thread that serves no other resource, and writes each block soon.
    pub(in crate::storage) fn own_disk() -> Arc<Disk> {
        Arc::new(Disk::start(Backlog::keeping_none()).unwrap())
    }

    /// Keeps the thread busy until something is sent.
    pub(in crate::storage) fn hold(disk: &Disk) -> (Sender<()>, Arc<dyn DiskWork>) {
        let (sender, receiver) = bounded(1);
        let work: Arc<dyn DiskWork> = Arc::new(Block(receiver));
        disk.request(&work);
        (sender, work)
    }

    #[test]
    fn all_shares_are_of_one_thread() {
        let (one, other) = (Disk::shared().unwrap(), Disk::shared().unwrap());
        assert_eq!(await_earlier_work(&one), await_earlier_work(&other));
        assert_ne!(await_earlier_work(&one), std::thread::current().id());
    }

    #[test]
    fn the_thread_has_ended_when_its_last_share_is_dropped() {
        let disk = Disk::start(Backlog::default()).unwrap();
        await_earlier_work(&disk);
        let queue = Arc::downgrade(&disk.queue);
        drop(disk);
        assert!(queue.upgrade().is_none());
    }
}
