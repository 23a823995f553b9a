//! A file whose first response was requested before it was known to be a file: its body goes on into the file's first
//! piece.

use std::sync::Arc;

use super::http_file::HttpFile;
use super::peer::FilePeer;
use super::piece::PieceSink;
use super::plan::OPENING;
use super::reader_id::ReaderId;
use super::shared::Shared;
use super::state::OpenCall;
use crate::config::FileConfig;
use crate::downloader::{Flow, Outcome, Response, Sink};
use crate::error::{Error, ErrorKind};
use crate::foreign::contain;
use crate::source::opening::Opening;
use crate::thread;
use crate::types::Priority;

/// Bytes that are read at once: a quarter of a block of storage, so that a reader gets them soon.
const CHUNK: usize = 64 * 1024;

/// Makes a file of an opening. Blocks until the first bytes are stored, which have been received already.
pub(crate) fn adopt(opening: Opening, config: FileConfig) -> Result<(Arc<HttpFile>, ReaderId), Error> {
    let Opening { downloader, request, peer, role, epoch, part, mut response, first, limit, .. } = opening;
    limit.end(Ok(()))?;
    let priority = config.priority;
    let shared = Arc::new(Shared::new(request, config)?);
    let file = HttpFile::link(&downloader, Arc::clone(&shared), peer.clone(), epoch);
    role.assign(FilePeer(Arc::clone(&shared)));
    peer.set_priority(priority);
    let reader = shared.add_reader();
    shared.request_memory();
    let key = {
        let mut state = shared.state.lock();
        // It supersedes nothing: no piece was requested before it.
        let (key, _) = state.add_piece(&(0..OPENING), Priority::High, part.token().clone(), false);
        key
    };
    // The response would keep the peer alive until its body ends. From now on the file keeps it alive, and its drop ends it.
    response.release_peer();
    let mut sink = PieceSink::new(Arc::clone(&shared), key, 0..OPENING, [None, None], false);
    // The request was accepted before this sink existed, so nothing else calls it.
    sink.accepted(response.request_id());
    let delivery = Delivery { sink: Some(Box::new(sink)), outcome: None };
    delivery.begin(&shared, response, &first)?;
    shared.await_opening(reader)?;
    shared.state.lock().open_call = OpenCall::Over;
    Ok((file, reader))
}

/// The sink of the first piece, until its body has ended. Its drop ends the piece.
struct Delivery {
    sink: Option<Box<PieceSink>>,
    outcome: Option<Outcome>,
}

impl Delivery {
    /// Stores the first bytes, and lets a thread store those that follow.
    fn begin(mut self, shared: &Arc<Shared>, mut response: Response, first: &[u8]) -> Result<(), Error> {
        match self.accept(&response, first) {
            Ok(Flow::Stream) => {}
            Ok(Flow::Detach) => {
                // The sequential thread reads the body from its start, and these bytes were taken from it to look at.
                response.unread(first);
                if let Some(sink) = self.sink.take() {
                    sink.detached(response);
                }
                return Ok(());
            }
            Err(error) => {
                self.outcome = Some(Outcome::from(Err(error.clone())));
                return Err(error);
            }
        }
        // All of it has come with the first bytes, so no thread is needed.
        if response.is_received() {
            self.outcome = Some(Outcome::Done);
            return Ok(());
        }
        let thread = thread::start("opening", move || {
            // So that a read or a drop in a sink does not count as one in an application's thread.
            crate::downloader::enter_own_thread();
            self.finish(response);
        })?;
        // The file's drop joins this thread, as it joins that of a sequential body. A file has one of them at most.
        *shared.sequential.lock() = Some(thread);
        Ok(())
    }

    fn accept(&mut self, response: &Response, first: &[u8]) -> Result<Flow, Error> {
        let Some(sink) = &mut self.sink else { return Ok(Flow::Stream) };
        let flow = sink.head(response.head())?;
        if flow == Flow::Stream {
            sink.write(0, first)?;
        }
        Ok(flow)
    }

    /// Stores the rest of the body, and ends the piece.
    fn finish(mut self, response: Response) {
        let result = contain("storing the first piece of a file", || self.store_rest(response));
        self.outcome = Some(Outcome::from(result.unwrap_or_else(|panic| Err(panic.into()))));
    }

    fn store_rest(&mut self, mut response: Response) -> Result<(), Error> {
        let Some(sink) = &mut self.sink else { return Ok(()) };
        let mut chunk = vec![0; CHUNK];
        loop {
            let offset = response.position();
            match response.read_chunk(&mut chunk)? {
                0 => return Ok(()),
                got => sink.write(offset, &chunk[..got])?,
            }
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(sink) = self.sink.take() {
            let unfinished =
                || Outcome::Failed(Error::new(ErrorKind::Panicked, "the first piece was not stored"));
            // Every sink is finished exactly once. Without it the plan would wait for this piece forever.
            sink.finish(self.outcome.take().unwrap_or_else(unfinished));
        }
    }
}
