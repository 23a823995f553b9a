//! The thread of a radio: connects, separates titles from audio, stores both, and reconnects.
//!
//! [`Reconnect`] decides what follows a failure; the thread blocks in methods of [`Shared`].

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::icy::{IcyMetadata, IcyPart, IcySplitter, RadioInfo};
use super::reconnect::{Reconnect, Verdict};
use super::shared::{CHUNK, FlowControl, Shared};
use crate::client::retry;
use crate::downloader::{Fetch, PeerHandle, Response};
use crate::error::{Error, ErrorKind};
use crate::foreign::contain;

/// So many bytes tell a page from audio.
const TELLING: usize = 64;

/// Starts the thread. It ends when the radio is cancelled, or has ended for good.
pub(crate) fn start(shared: &Arc<Shared>, peer: &PeerHandle) -> Result<JoinHandle<()>, Error> {
    let (shared, peer) = (Arc::clone(shared), peer.clone());
    let named = thread::Builder::new().name("windway-radio".into());
    let spawned = named.spawn(move || {
        let receiver = Receiver { shared: &shared, peer: &peer, chunk: vec![0; CHUNK] };
        let error = contain("receiving a radio", || receiver.run()).unwrap_or_else(Error::from);
        shared.ended(error);
    });
    spawned.map_err(|error| {
        Error::new(ErrorKind::Io(error.kind()), "a thread could not be started").with_cause(error)
    })
}

struct Receiver<'a> {
    shared: &'a Arc<Shared>,
    peer: &'a PeerHandle,
    chunk: Vec<u8>,
}

/// How the receiving from a connection ended, if not by its failure.
enum Received {
    /// Another one took its place.
    Replaced,
    /// The connection was closed in a pause.
    LetGo,
}

impl Receiver<'_> {
    /// Receives until nothing more will come, and returns why.
    fn run(mut self) -> Error {
        let mut reconnect = Reconnect::new(&self.shared.config, Instant::now());
        loop {
            let failed = match self.receive(&mut reconnect) {
                Ok(()) => {
                    reconnect.handle_let_go();
                    self.shared.await_reader()
                }
                Err(error) => self.recover(&mut reconnect, error),
            };
            if let Err(error) = failed {
                return error;
            }
        }
    }

    /// Waits for the next attempt, if there is to be one.
    fn recover(&self, reconnect: &mut Reconnect, error: Error) -> Result<(), Error> {
        match reconnect.handle_failure(&error, Instant::now(), retry::random()) {
            Verdict::End(error) => Err(error),
            Verdict::Retry(after) => {
                log::debug!("the radio reconnects in {after:?}: {error}");
                self.shared.reconnecting(error, after);
                self.shared.pause(after)
            }
        }
    }

    /// One connection, from its making to its failure, and those that take its place while it is silent. Returns
    /// without one if it was closed in a pause.
    fn receive(&mut self, reconnect: &mut Reconnect) -> Result<(), Error> {
        let FlowControl::Read(mut room) = self.flow_control(reconnect)? else { return Ok(()) };
        let mut body = self.peer.execute(self.fetch())?;
        // While it is silent and the buffer runs low, another one may take its place.
        while let Received::Replaced = self.receive_from(&mut body, &mut room, reconnect)? {
            log::debug!("another connection to the radio was faster than a silent one");
        }
        Ok(())
    }

    fn receive_from(
        &mut self,
        body: &mut Response,
        room: &mut usize,
        reconnect: &mut Reconnect,
    ) -> Result<Received, Error> {
        let info = RadioInfo::from_headers(body.head().headers());
        let interval = info.metadata_interval;
        let Some(mut got) = self.read_first(body, *room, interval)? else { return Ok(Received::Replaced) };
        let audio = interval.map_or(got, |interval| got.min(interval.get()));
        self.shared.refuse_html_page(body.head(), &self.chunk[..audio])?;
        self.shared.connected(body.head(), info);

        let base = self.shared.end();
        let mut splitter = IcySplitter::new(interval);
        loop {
            let starved = self.shared.is_starved();
            self.store(&mut splitter, base, got)?;
            reconnect.handle_audio(got as u64, starved, Instant::now())?;
            *room = match self.flow_control(reconnect)? {
                FlowControl::Read(room) => room,
                FlowControl::LetGo => return Ok(Received::LetGo),
            };
            got = match body.read_live(&mut self.chunk[..*room])? {
                Some(0) => {
                    return Err(Error::new(ErrorKind::Disconnected, "the station ended its answer"));
                }
                Some(got) => got,
                None => return Ok(Received::Replaced),
            };
        }
    }

    fn flow_control(&self, reconnect: &Reconnect) -> Result<FlowControl, Error> {
        self.shared.flow_control(|idle_since| reconnect.let_go_at(idle_since))
    }

    fn fetch(&self) -> Fetch {
        // It is tried again here, not by the downloader: for as long as the user wishes, and while the buffer plays on.
        Fetch::new(self.shared.request.clone())
            .epoch(&self.shared.epoch)
            .max_retries(0)
            .live()
            .redial(Arc::clone(self.shared) as _)
    }

    /// Reads as many bytes as tell a page from audio, up to the first metadata, or fewer if there are no more. `None`
    /// if another connection took the place of this one.
    fn read_first(
        &mut self,
        body: &mut Response,
        room: usize,
        interval: Option<NonZeroUsize>,
    ) -> Result<Option<usize>, Error> {
        let telling = interval.map_or(TELLING, |interval| interval.get().min(TELLING)).min(room);
        let mut got = 0;
        while got < telling {
            match body.read_live(&mut self.chunk[got..room])? {
                Some(0) if got == 0 => {
                    return Err(Error::new(ErrorKind::Disconnected, "the station sent no audio"));
                }
                Some(0) => break,
                Some(more) => got += more,
                None => return Ok(None),
            }
        }
        Ok(Some(got))
    }

    /// Stores the first bytes of the chunk, of a connection whose audio begins at `base`.
    fn store(&self, splitter: &mut IcySplitter, base: u64, got: usize) -> Result<(), Error> {
        let mut input = &self.chunk[..got];
        while let Some(part) = splitter.next_part(&mut input) {
            match part {
                IcyPart::Audio(audio) => self.shared.store(audio)?,
                IcyPart::Metadata { position, block } => {
                    self.shared.add_metadata(base + position, IcyMetadata::parse(&block));
                }
            }
        }
        self.shared.trim();
        Ok(())
    }
}
