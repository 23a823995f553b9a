//! Cancellation: a tree of tokens with hooks.
//!
//! Running code checks a token (`is_cancelled`). Blocked threads can't, so cancelling a token runs its hooks, which close a
//! socket or wake the thread. Cancelling a token cancels its descendants, never its ancestors.

use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use slab::Slab;

use crate::foreign::Foreign;

/// Why a fetch was cancelled.
///
/// ```
/// use windway::downloader::CancelReason;
///
/// assert_eq!(CancelReason::Shutdown.to_string(), "the downloader stopped");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelReason {
    /// The stream or peer was cancelled, or its last handle was dropped.
    Peer,
    /// Its epoch was cancelled, for example by a seek or for another track.
    Epoch,
    /// The downloader stopped.
    Shutdown,
    /// This fetch alone was cancelled, for example because its response was dropped.
    Fetch,
}

impl CancelReason {
    const ALL: [Self; 4] = [Self::Peer, Self::Epoch, Self::Shutdown, Self::Fetch];
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "the stream or peer was closed",
            Self::Epoch => "superseded, for example by a seek",
            Self::Shutdown => "the downloader stopped",
            Self::Fetch => "no longer needed",
        })
    }
}

/// A node of the tree. Cheap to clone; the clones are the same token.
///
/// Not public: users get an [`Epoch`](crate::downloader::Epoch), which is always a descendant of its peer's token.
#[derive(Clone)]
pub(crate) struct CancelToken(Arc<Node>);

struct Node {
    /// The reason that `cancel` of this token sets.
    reason: CancelReason,
    /// 0, or one more than the index of the first reason. Set once.
    cancelled: AtomicU8,
    below: Mutex<Below>,
    /// The parent, and this node's key there, under which the drop removes it.
    parent: Option<(Arc<Node>, usize)>,
}

/// What a cancel acts on. Empty from the moment when `cancelled` is set.
#[derive(Default)]
struct Below {
    children: Slots<Weak<Node>>,
    hooks: Slots<(CancelStage, Hook)>,
}

/// Values by key. The first one needs no allocation: the tokens of most fetches have one child or one hook.
struct Slots<T> {
    /// Key 0.
    first: Option<T>,
    /// Their keys are one less here.
    others: Slab<T>,
}

/// Returns true if it has woken a thread.
type Hook = Foreign<Box<dyn FnOnce(CancelReason) -> bool + Send>>;

/// The order in which a cancel runs the hooks of a subtree: all of one stage before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CancelStage {
    /// Notifies a thread that only looks at the token and returns: see [`wake_on_cancel`](CancelToken::wake_on_cancel). First,
    /// because to close a socket takes 20 µs and wakes threads that compete with this one for the processor.
    Wake,
    /// Closes a socket on which a thread is blocked.
    Abort,
    /// Posts a message, whose handling may take a while, or runs code of the application.
    Report,
}

/// Runs `hook`. Returns true if it has woken a thread. A panic in it is logged and stopped here, because other hooks have to run
/// too.
fn run(hook: Hook, reason: CancelReason) -> bool {
    // The panic is logged already, and no caller waits for the hook.
    hook.consume("on_cancel", |hook| hook(reason)).unwrap_or(false)
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { first: None, others: Slab::new() }
    }
}

impl<T> Slots<T> {
    #[cfg(test)]
    fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    /// The key that the next value gets.
    fn next_key(&self) -> usize {
        if self.first.is_none() { 0 } else { 1 + self.others.vacant_key() }
    }

    /// Inserts a value. Returns its key.
    fn insert(&mut self, value: T) -> usize {
        if self.first.is_some() {
            return 1 + self.others.insert(value);
        }
        self.first = Some(value);
        0
    }

    fn remove(&mut self, key: usize) -> Option<T> {
        match key.checked_sub(1) {
            None => self.first.take(),
            Some(other) => self.others.try_remove(other),
        }
    }

    fn into_values(self) -> impl Iterator<Item = T> {
        self.first.into_iter().chain(self.others.into_iter().map(|(_, value)| value))
    }
}

impl CancelToken {
    /// The root of a new tree. Its `cancel` sets `reason`.
    pub(crate) fn new(reason: CancelReason) -> Self {
        Self(Arc::new(Node { reason, cancelled: AtomicU8::new(0), below: Mutex::default(), parent: None }))
    }

    /// A child of this token. It is cancelled with this token, and its own `cancel` sets `reason`.
    pub(crate) fn child(&self, reason: CancelReason) -> Self {
        let mut below = self.0.below.lock();
        // Under the lock: `cancel_as` sets this and takes the children under the same lock, so it can't miss this child.
        let cancelled = self.0.cancelled.load(Ordering::Acquire);
        if cancelled != 0 {
            return Self(Arc::new(Node {
                reason,
                cancelled: AtomicU8::new(cancelled),
                below: Mutex::default(),
                parent: None,
            }));
        }
        let child = Arc::new(Node {
            reason,
            cancelled: AtomicU8::new(0),
            below: Mutex::default(),
            // The key before the value: the node can't be changed once it is shared.
            parent: Some((Arc::clone(&self.0), below.children.next_key())),
        });
        below.children.insert(Arc::downgrade(&child));
        Self(child)
    }

    /// Cancels this token and its descendants. The first cancel sets the reason; later ones do nothing.
    ///
    /// Runs the hooks on this thread. Does not block on the network.
    pub(crate) fn cancel(&self) {
        Node::cancel_as(&self.0, self.0.reason);
    }

    /// True once this token or an ancestor was cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// The reason of the first cancel.
    pub(crate) fn reason(&self) -> Option<CancelReason> {
        match self.0.cancelled.load(Ordering::Acquire) {
            0 => None,
            n => Some(CancelReason::ALL[usize::from(n) - 1]),
        }
    }

    /// True if both are clones of one token.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Runs `hook` when this token is cancelled, on the cancelling thread, in its turn. If it is already cancelled, runs `hook`
    /// now.
    ///
    /// The hook must not block. The drop of the guard removes it, but does not wait for one that is running.
    pub(crate) fn on_cancel(
        &self,
        stage: CancelStage,
        hook: impl FnOnce(CancelReason) + Send + 'static,
    ) -> CancelGuard {
        self.add_hook(stage, move |reason| {
            hook(reason);
            false
        })
    }

    /// As [`on_cancel`](Self::on_cancel), before all other stages. `wake` notifies the threads that look at the token, and
    /// returns true if there were any: then they run before the next stage.
    pub(crate) fn wake_on_cancel(&self, wake: impl FnOnce() -> bool + Send + 'static) -> CancelGuard {
        self.add_hook(CancelStage::Wake, |_| wake())
    }

    fn add_hook(
        &self,
        stage: CancelStage,
        hook: impl FnOnce(CancelReason) -> bool + Send + 'static,
    ) -> CancelGuard {
        let hook: Hook = Foreign::new(Box::new(hook));
        let mut below = self.0.below.lock();
        if let Some(reason) = self.reason() {
            // Without the lock, since the hook may use this token.
            drop(below);
            run(hook, reason);
            return CancelGuard { node: Weak::new(), key: 0 };
        }
        let key = below.hooks.insert((stage, hook));
        CancelGuard { node: Arc::downgrade(&self.0), key }
    }
}

impl Node {
    fn cancel_as(this: &Arc<Node>, reason: CancelReason) {
        let mut pending = vec![Arc::clone(this)];
        let mut hooks = Vec::new();
        while let Some(node) = pending.pop() {
            let code = 1 + CancelReason::ALL.iter().position(|known| *known == reason).unwrap_or(0) as u8;
            let below = {
                let mut below = node.below.lock();
                // Atomic although the lock is held: `reason` reads it without the lock, once for each chunk of a body.
                if node.cancelled.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire).is_err() {
                    continue;
                }
                std::mem::take(&mut *below)
            };
            // Outside of the lock: hooks are foreign code, and a child's drop takes the parent's lock.
            pending.extend(below.children.into_values().filter_map(|child| child.upgrade()));
            hooks.extend(below.hooks.into_values());
        }
        // Stable: within a stage a parent's hooks stay before those of its children.
        hooks.sort_by_key(|(stage, _)| *stage);
        // Only now, when the whole subtree is marked: a hook that looks at another token of it finds it cancelled.
        let mut has_woken = false;
        for (stage, hook) in hooks {
            if stage != CancelStage::Wake && std::mem::take(&mut has_woken) && reason != CancelReason::Epoch {
                // Linux often puts the woken thread on this processor, where it would wait until all sockets are closed: 100 µs
                // to the return of a read instead of 40. Not for a seek, whose thread goes on itself: on a busy machine this
                // may cost a time slice. For the same reason not if no thread has waited.
                std::thread::yield_now();
            }
            has_woken |= run(hook, reason);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut entry = self.parent.take();
        while let Some((parent, key)) = entry {
            {
                let mut below = parent.below.lock();
                // A cancelled parent has no children any more.
                if parent.cancelled.load(Ordering::Acquire) == 0 {
                    below.children.remove(key);
                }
            }
            // If this was the last reference to the parent, continue with the grandparent in this loop. A recursive drop of a
            // long chain would overflow the stack.
            entry = Arc::into_inner(parent).and_then(|mut last| last.parent.take());
        }
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("reason", &self.reason()).finish_non_exhaustive()
    }
}

/// Keeps a hook of [`Epoch::on_cancel`](crate::downloader::Epoch::on_cancel). Its drop removes the hook.
///
/// ```
/// # let peer = windway::Downloader::global()?.register((), Default::default())?;
/// let epoch = peer.epoch();
/// let guard = epoch.on_cancel(|| println!("cancelled"));
/// drop(guard);
/// epoch.cancel(); // prints nothing
/// # Ok::<(), windway::Error>(())
/// ```
#[must_use = "dropping the guard removes the hook"]
pub struct CancelGuard {
    node: Weak<Node>,
    key: usize,
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        let Some(node) = self.node.upgrade() else { return };
        let hook = {
            let mut below = node.below.lock();
            // Its hooks were taken out when it was cancelled, so the key names none of them any more.
            if node.cancelled.load(Ordering::Acquire) != 0 {
                return;
            }
            below.hooks.remove(self.key)
        };
        // A hook may own tokens of this tree, whose drop takes the lock.
        drop(hook);
    }
}

impl fmt::Debug for CancelGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelGuard").finish_non_exhaustive()
    }
}

/// Cancels the opening of a URL from another thread: see [`OpenConfig::cancel`](crate::OpenConfig::cancel). Cheap to clone; the
/// clones are the same handle. Its drop cancels nothing.
///
/// ```no_run
/// use std::thread;
/// use windway::{CancelHandle, Downloader, OpenConfig};
///
/// let downloader = Downloader::global()?;
/// let cancel = CancelHandle::new(); // the window keeps it for its "stop" button
/// let config = OpenConfig::new().cancel(cancel.clone());
/// let opener = thread::spawn(move || downloader.open_any_with("https://example.com/from-the-user", config));
/// cancel.cancel();
/// if let Err(error) = opener.join().unwrap() {
///     assert!(error.is_cancelled() || !cancel.is_cancelled());
/// }
/// # Ok::<(), windway::Error>(())
/// ```
#[derive(Clone)]
pub struct CancelHandle(CancelToken);

impl CancelHandle {
    /// A handle that was not cancelled.
    #[must_use]
    pub fn new() -> Self {
        // As the errors of a stream that was cancelled by its handle.
        Self(CancelToken::new(CancelReason::Peer))
    }

    /// Ends the calls that use this handle, and those that will: they fail with
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled). What they have already returned goes on. Does not block on the
    /// network.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// True once it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Cancels `token` with this handle, for as long as the guard lives.
    pub(crate) fn cancels(&self, token: &CancelToken) -> CancelGuard {
        let token = token.clone();
        self.0.on_cancel(CancelStage::Abort, move |_| token.cancel())
    }

    /// The reason, once it was cancelled.
    pub(crate) fn reason(&self) -> Option<CancelReason> {
        self.0.reason()
    }
}

impl Default for CancelHandle {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle").field("is_cancelled", &self.is_cancelled()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_cancel_reaches_descendants_and_no_ancestors() {
        let root = CancelToken::new(CancelReason::Shutdown);
        let peer = root.child(CancelReason::Peer);
        let sibling = root.child(CancelReason::Peer);
        let fetch = peer.child(CancelReason::Fetch);
        peer.cancel();
        assert_eq!(fetch.reason(), Some(CancelReason::Peer));
        assert!(!root.is_cancelled() && !sibling.is_cancelled());
    }

    #[test]
    fn the_first_reason_stays() {
        let root = CancelToken::new(CancelReason::Shutdown);
        let epoch = root.child(CancelReason::Epoch);
        epoch.cancel();
        root.cancel();
        assert_eq!(epoch.reason(), Some(CancelReason::Epoch));
    }

    #[test]
    fn a_child_of_a_cancelled_token_is_cancelled() {
        let root = CancelToken::new(CancelReason::Peer);
        root.cancel();
        assert_eq!(root.child(CancelReason::Fetch).reason(), Some(CancelReason::Peer));
    }

    #[test]
    fn a_hook_runs_once_and_only_while_its_guard_lives() {
        let (ran, runs) = mpsc::channel();
        let token = CancelToken::new(CancelReason::Fetch);
        let kept = token.on_cancel(CancelStage::Wake, {
            let ran = ran.clone();
            move |_| ran.send("kept").unwrap()
        });
        drop(token.on_cancel(CancelStage::Wake, {
            let ran = ran.clone();
            move |_| ran.send("removed").unwrap()
        }));
        token.cancel();
        token.cancel();
        let _late = token.on_cancel(CancelStage::Wake, move |_| ran.send("late").unwrap());
        drop(kept);
        assert_eq!(runs.iter().collect::<Vec<_>>(), ["kept", "late"]);
    }

    #[test]
    fn blocked_threads_are_woken_before_sockets_are_closed() {
        use CancelStage::{Abort, Report, Wake};
        let root = CancelToken::new(CancelReason::Epoch);
        let fetch = root.child(CancelReason::Fetch);
        let (ran, runs) = mpsc::channel();
        let hooks = [(&fetch, Report), (&root, Report), (&fetch, Abort), (&root, Wake), (&fetch, Wake)];
        let _guards = hooks.map(|(token, stage)| {
            let ran = ran.clone();
            token.on_cancel(stage, move |_| ran.send(stage).unwrap())
        });
        root.cancel();
        assert_eq!(runs.try_iter().collect::<Vec<_>>(), [Wake, Wake, Abort, Report, Report]);
    }

    #[test]
    fn a_dropped_child_leaves_no_entry_in_its_parent() {
        let root = CancelToken::new(CancelReason::Peer);
        for _ in 0..1000 {
            drop(root.child(CancelReason::Fetch));
        }
        assert_eq!(root.0.below.lock().children.len(), 0);
    }

    #[test]
    fn a_long_chain_of_tokens_is_dropped_without_a_deep_stack() {
        let small = std::thread::Builder::new().stack_size(256 * 1024);
        let chain = small.spawn(|| {
            let root = CancelToken::new(CancelReason::Peer);
            let mut last = root.child(CancelReason::Fetch);
            for _ in 0..200_000 {
                last = last.child(CancelReason::Fetch);
            }
            drop(last);
            assert_eq!(root.0.below.lock().children.len(), 0);
        });
        chain.unwrap().join().unwrap();
    }

    #[test]
    fn a_hook_that_panics_does_not_stop_the_other_hooks() {
        let root = CancelToken::new(CancelReason::Peer);
        let (ran, runs) = mpsc::channel();
        let children: Vec<_> = (0..3).map(|_| root.child(CancelReason::Fetch)).collect();
        let hooks = [&root, &children[0], &root, &children[1], &children[2]];
        let _guards: Vec<_> = hooks
            .into_iter()
            .map(|token| {
                let ran = ran.clone();
                token.on_cancel(CancelStage::Wake, move |_| {
                    ran.send(()).unwrap();
                    panic!("as the test wants");
                })
            })
            .collect();
        root.cancel();
        assert!(children.iter().all(CancelToken::is_cancelled));
        assert_eq!(runs.try_iter().count(), hooks.len());
        // Also if it runs at once.
        let _late = root.on_cancel(CancelStage::Wake, |_| panic!("as the test wants"));
    }
}
