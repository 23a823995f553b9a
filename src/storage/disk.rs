//! The thread that loads blocks of temporary files into memory, for readers that must not wait for a disk.
//!
//! There is one for the process: started by the first resource that requests a block, ended by the drop of the last one
//! that did. A network worker would be the wrong thread for it: when all of them wait for servers, bytes that lie on
//! the local disk would wait with them.
//!
//! Who wakes whom: [`request`](Disk::request) and the drop notify the thread, under the queue's lock; nobody waits for
//! the thread but the drop, which joins it. While nothing is requested the thread sleeps without a deadline.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle, ThreadId};

use parking_lot::{Condvar, Mutex};

use super::Resource;
use crate::error::{Error, ErrorKind};

static SHARED: Mutex<Weak<Disk>> = Mutex::new(Weak::new());

/// A share of the thread, which ends with the last share.
#[derive(Debug)]
pub(super) struct Disk {
    queue: Arc<Queue>,
    id: ThreadId,
    /// Taken by the drop only.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Notified when a resource is added, and when the queue is closed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Resources with requested blocks, each once: no more than there are resources. How many blocks each may request
    /// is limited there.
    waiting: VecDeque<Weak<Resource>>,
    is_closed: bool,
}

impl Disk {
    /// A share of this process's thread, which is started if there is none. Does not block for I/O.
    pub(super) fn shared() -> Result<Arc<Self>, Error> {
        let mut shared = SHARED.lock();
        if let Some(disk) = shared.upgrade() {
            return Ok(disk);
        }
        let disk = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&disk);
        Ok(disk)
    }

    fn start() -> Result<Self, Error> {
        let queue = Arc::new(Queue::default());
        let serves = Arc::clone(&queue);
        let thread = thread::Builder::new().name("windway-disk".into()).spawn(move || serves.run()).map_err(
            |error| {
                let why = "the disk thread could not be started";
                Error::new(ErrorKind::Io(error.kind()), why).with_cause(error)
            },
        )?;
        Ok(Self { queue, id: thread.thread().id(), thread: Some(thread) })
    }

    /// Has the requested blocks of `resource` loaded. To be called once until the thread has loaded them all, which
    /// [`Resource::load_next`] says.
    pub(super) fn request(&self, resource: &Arc<Resource>) {
        self.queue.push(Arc::downgrade(resource));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        {
            let mut state = self.queue.state.lock();
            state.is_closed = true;
            self.queue.changed.notify_all();
        }
        // The last share may go with a resource that the thread itself held while it loaded a block: then it ends by
        // itself.
        if thread::current().id() == self.id {
            return;
        }
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the disk thread panicked");
        }
    }
}

impl Queue {
    /// The thread. One block of each resource in turn, so that none waits for all blocks of another.
    fn run(&self) {
        while let Some(waiting) = self.next() {
            // One that has gone needs no block.
            let Some(resource) = waiting.upgrade() else { continue };
            if resource.load_next() {
                self.push(waiting);
            }
        }
    }

    /// Blocks until a resource waits; `None` once the queue is closed.
    fn next(&self) -> Option<Weak<Resource>> {
        let mut state = self.state.lock();
        loop {
            if state.is_closed {
                return None;
            }
            match state.waiting.pop_front() {
                Some(resource) => return Some(resource),
                None => self.changed.wait(&mut state),
            }
        }
    }

    fn push(&self, resource: Weak<Resource>) {
        let mut state = self.state.lock();
        state.waiting.push_back(resource);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::TryStored;
    use super::*;
    use crate::config::StorageConfig;

    /// As an audio callback does: comes back for what is not there yet.
    fn read_first(resource: &Arc<Resource>) -> u8 {
        let mut buf = [0];
        while resource.try_read_at(0, &mut buf).unwrap() == TryStored::OnDisk {
            thread::sleep(Duration::from_millis(1));
        }
        buf[0]
    }

    #[test]
    fn one_thread_serves_all_resources() {
        let resources: Vec<Arc<Resource>> = (0..20)
            .map(|number| {
                let resource = Arc::new(Resource::new(&StorageConfig::TempFile(None)).unwrap());
                resource.write_at(0, &[number; 100]).unwrap();
                resource
            })
            .collect();
        for (number, resource) in resources.iter().enumerate() {
            assert_eq!(read_first(resource), number as u8);
        }
        let disk = Disk::shared().unwrap();
        assert!(resources.iter().all(|resource| Arc::ptr_eq(&resource.disk().unwrap(), &disk)));
    }

    #[test]
    fn the_thread_has_ended_when_its_last_share_is_dropped() {
        let disk = Disk::start().unwrap();
        let resource = Arc::new(Resource::new(&StorageConfig::TempFile(None)).unwrap());
        disk.request(&resource);
        let queue = Arc::downgrade(&disk.queue);
        drop(disk);
        assert!(queue.upgrade().is_none());
    }
}
