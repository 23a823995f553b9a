//! The memory budget of a downloader, shared by the threads of its streams.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::budget::{Budget, StreamId};
use crate::types::Priority;

/// Something that buffers bytes in memory.
pub(crate) trait Buffering: Send + Sync {
    /// Its grant was reduced: it drops what it holds beyond. Runs on a thread of another stream, without a lock of the
    /// budget.
    fn handle_reduced(&self);
}

/// The budget, and the streams that share it.
pub(crate) struct SharedBudget(Mutex<State>);

struct State {
    budget: Budget,
    streams: HashMap<StreamId, Weak<dyn Buffering>>,
}

/// One stream's share of the budget, which its drop gives back.
#[derive(Debug)]
pub(crate) struct BudgetShare {
    shared: Arc<SharedBudget>,
    id: StreamId,
}

impl SharedBudget {
    pub(crate) fn new(limit: u64) -> Self {
        Self(Mutex::new(State { budget: Budget::new(limit), streams: HashMap::new() }))
    }

    /// Adds a stream, which has no grant before its first request.
    pub(crate) fn join(self: &Arc<Self>, stream: Weak<dyn Buffering>) -> BudgetShare {
        let mut state = self.0.lock();
        let id = state.budget.add(Instant::now());
        state.streams.insert(id, stream);
        BudgetShare { shared: Arc::clone(self), id }
    }
}

impl BudgetShare {
    /// Requests that the stream, which is read at this moment, may hold this many bytes. [`reduced`](Self::reduced) is the
    /// answer. Others may have to drop bytes for it: not to be called under a lock.
    pub(crate) fn request(&self, bytes: u64, priority: Priority) {
        let reduced: Vec<Weak<dyn Buffering>> = {
            let mut state = self.shared.0.lock();
            let reduced = state.budget.request(self.id, bytes, priority, Instant::now());
            reduced.iter().filter_map(|id| state.streams.get(id).cloned()).collect()
        };
        // Without the lock: a stream locks its own state, and asks here what it has left.
        for stream in reduced.iter().filter_map(Weak::upgrade) {
            stream.handle_reduced();
        }
    }

    /// How much the stream may hold now, if that is less than it requested.
    pub(crate) fn reduced(&self) -> Option<u64> {
        self.shared.0.lock().budget.reduced(self.id)
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        let mut state = self.shared.0.lock();
        state.budget.remove(self.id);
        let stream = state.streams.remove(&self.id);
        drop(state);
        // Not under the lock: the drop of foreign values.
        drop(stream);
    }
}

impl fmt::Debug for SharedBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedBudget").field(&self.0.lock().budget).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Reductions(AtomicUsize);

    impl Buffering for Reductions {
        fn handle_reduced(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_stream_that_has_to_drop_bytes_is_called_and_a_share_comes_back_with_its_drop() {
        let budget = Arc::new(SharedBudget::new(10 << 20));
        let streams = [Arc::new(Reductions::default()), Arc::new(Reductions::default())];
        let [first, second] =
            streams.each_ref().map(|stream| budget.join(Arc::downgrade(stream) as Weak<dyn Buffering>));
        first.request(8 << 20, Priority::Low);
        second.request(8 << 20, Priority::High);
        assert_eq!((first.reduced(), second.reduced()), (Some(2 << 20), None));
        let reductions = streams.each_ref().map(|stream| stream.0.load(Ordering::Relaxed));
        assert_eq!(reductions, [1, 0]);
        drop(second);
        first.request(8 << 20, Priority::Low);
        assert_eq!(first.reduced(), None);
    }
}
