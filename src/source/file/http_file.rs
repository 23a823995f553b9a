//! A file that is being streamed: opens it, and ends its transfers when it is dropped.

use std::sync::Arc;

use super::peer::FilePeer;
use super::reader_id::ReaderId;
use super::shared::{Link, Shared};
use super::state::OpenCall;
use super::suffix::{self, Suffix};
use crate::cancel::CancelGuard;
use crate::client::Request;
use crate::config::{FileConfig, StorageConfig};
use crate::downloader::{BesideOpening, Downloader, Epoch, PeerHandle};
use crate::error::Error;
use crate::foreign::in_callback;
use crate::media;
use crate::types::Priority;

/// A file that is being streamed. Keeps its peer, and so the downloader, alive.
#[derive(Debug)]
pub(crate) struct HttpFile {
    shared: Arc<Shared>,
    _on_cancel: CancelGuard,
    /// Keeps the downloader alive. It is cancelled first of all in `drop`, and dropped last.
    peer: PeerHandle,
}

impl HttpFile {
    /// Opens the file of `request`. Blocks until its first bytes have shown that it is media, and returns the error if that
    /// fails.
    pub(crate) fn open(
        downloader: &Downloader,
        request: Request,
        config: FileConfig,
    ) -> Result<(Arc<Self>, ReaderId), Error> {
        Error::check_may_block("open")?;
        Self::register(downloader, Shared::new(request, config)?)?.await_opening()
    }

    /// Opens the file of `request` from the cache, as [`open`](Self::open) does. `None` if that would send a request first.
    #[cfg(feature = "cache")]
    pub(crate) fn open_cached(
        downloader: &Downloader,
        request: Request,
        config: FileConfig,
    ) -> Result<Option<(Arc<Self>, ReaderId)>, Error> {
        if config.cache.is_none() {
            return Ok(None);
        }
        let file = Self::register_cached(downloader, Shared::new(request, config)?)?;
        if file.shared.state.lock().mode.is_opening() {
            return Ok(None);
        }
        file.shared.replan(Priority::Low);
        file.await_opening().map(Some)
    }

    fn await_opening(self: Arc<Self>) -> Result<(Arc<Self>, ReaderId), Error> {
        let reader = self.shared.add_reader();
        self.shared.request_memory();
        self.shared.await_opening(reader)?;
        self.shared.state.lock().open_call = OpenCall::Over;
        Ok((self, reader))
    }

    /// Opens the file of `request` in the background.
    pub(crate) fn open_later(
        downloader: &Downloader,
        request: Request,
        config: FileConfig,
    ) -> Result<(Arc<Self>, ReaderId), Error> {
        Self::begin(downloader, Shared::new(request, config)?)
    }

    /// Opens a file in the background.
    pub(super) fn begin(downloader: &Downloader, shared: Shared) -> Result<(Arc<Self>, ReaderId), Error> {
        let file = Self::register(downloader, shared)?;
        let reader = file.shared.add_reader();
        file.shared.request_memory();
        {
            let mut state = file.shared.state.lock();
            // A file that was opened from the cache needs no request.
            state.open_call = if state.mode.is_opening() { OpenCall::Background } else { OpenCall::Over };
        }
        file.shared.replan(Priority::High);
        Ok((file, reader))
    }

    /// A file that requests nothing yet.
    fn register(downloader: &Downloader, shared: Shared) -> Result<Arc<Self>, Error> {
        let file = Self::register_cached(downloader, shared)?;
        let shared = &file.shared;
        if !shared.state.lock().mode.is_opening() {
            // Opened from the cache: bytes may be missing, or the entry may have to be confirmed.
            shared.replan(Priority::Low);
            return Ok(file);
        }
        if let Some(link) = shared.link.get() {
            match link.waker.beside_opening(&shared.request) {
                BesideOpening::Suffix => {
                    let foreseen = media::foreseen(shared.request.url().expose_text());
                    let bytes = suffix::size(shared.network(), foreseen.end);
                    shared.state.lock().suffix = Suffix::Due(bytes);
                    // Only until the response head arrives: `keep_preconnected` then decides by what it shows.
                    if foreseen.places > 0 {
                        shared.preconnect(foreseen.places);
                    }
                }
                BesideOpening::Preconnect => shared.preconnect(1),
                BesideOpening::Nothing => {}
            }
        }
        Ok(file)
    }

    /// A file that is opened from the cache, if it may be used before a request, and prepares no request.
    fn register_cached(downloader: &Downloader, shared: Shared) -> Result<Arc<Self>, Error> {
        let shared = Arc::new(shared);
        let peer = downloader.register(FilePeer(Arc::clone(&shared)), shared.config.priority)?;
        let epoch = peer.epoch().child_as_peer();
        let file = Self::link(downloader, shared, peer, epoch);
        #[cfg(feature = "cache")]
        file.shared.open_from_cache();
        Ok(file)
    }

    /// A file that fetches by `peer`. `epoch` is above everything that it fetches.
    pub(super) fn link(
        downloader: &Downloader,
        shared: Arc<Shared>,
        peer: PeerHandle,
        epoch: Epoch,
    ) -> Arc<Self> {
        let weak = Arc::downgrade(&shared);
        let on_cancel = epoch.token().wake_on_cancel(move || {
            let Some(shared) = weak.upgrade() else { return false };
            shared.let_none_wait_for_disk();
            shared.resource.notify()
        });
        // The other storages keep all, or keep it on disk: there is nothing that the budget could take back.
        let buffers = shared.config.storage == StorageConfig::Memory;
        let share = buffers.then(|| downloader.join_budget(Arc::downgrade(&shared) as _));
        shared.link.get_or_init(|| Link { waker: peer.waker(), epoch, share });
        Arc::new(Self { shared, _on_cancel: on_cancel, peer })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn peer(&self) -> &PeerHandle {
        &self.peer
    }
}

impl Drop for HttpFile {
    fn drop(&mut self) {
        // First: it ends the waits of the sequential thread, which is joined below.
        self.peer.cancel();
        let sequential = self.shared.sequential.lock().take();
        // A callback may run on the very thread that would be joined, and would wait for itself. The thread ends by itself.
        if in_callback() {
            return;
        }
        if sequential.is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread of a sequential body panicked");
        }
        self.shared.close();
    }
}
