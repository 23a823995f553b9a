//! The thread of a radio: connects, separates titles from audio, stores both, and reconnects.
//!
//! [`Reconnect`] decides what follows a failure; the thread blocks in methods of [`Shared`].

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use super::icy::{IcyMetadata, IcyPart, IcySplitter, RadioInfo, is_station_header};
use super::reconnect::{Decision, Reconnect};
use super::shared::{FlowControl, Shared};
use super::window::CHUNK;
use crate::client::{ResponseHead, retry};
use crate::downloader::{Fetch, PeerHandle, Response};
use crate::error::{Error, ErrorKind};
use crate::event::In;
use crate::foreign::contain;
use crate::media::RECOGNIZABLE;
use crate::thread;

/// Starts the thread. It ends when the radio is cancelled or has ended permanently.
///
/// `first` is a response to the radio's request that is open already.
pub(crate) fn start(
    shared: &Arc<Shared>,
    peer: &PeerHandle,
    first: Option<Response>,
) -> Result<JoinHandle<()>, Error> {
    let (shared, peer) = (Arc::clone(shared), peer.clone());
    thread::start("radio", move || {
        let receiver = Receiver { shared: &shared, peer: &peer, first, chunk: vec![0; CHUNK] };
        // A panic must not end the thread in silence: the reader would block for ever.
        let ended = contain("receiving a radio", || receiver.run());
        match ended.unwrap_or_else(|panic| Ended::Failed(panic.into())) {
            Ended::Complete => shared.completed(),
            Ended::Failed(error) => shared.ended(error),
        }
    })
}

struct Receiver<'a> {
    shared: &'a Arc<Shared>,
    peer: &'a PeerHandle,
    /// The response to the first request, if that was sent before the URL was known to lead to a radio.
    first: Option<Response>,
    chunk: Vec<u8>,
}

/// How a connection ended without an error.
enum Received {
    /// A hedged connection answered first and replaced it.
    Replaced,
    /// The connection was closed because the reader was away, or goes live.
    Closed,
    /// All of a file was received.
    Complete,
}

/// Why a radio receives no more.
enum Ended {
    /// It was a file, and all of it was received.
    Complete,
    Failed(Error),
}

impl Receiver<'_> {
    /// Receives until the radio ends, and returns the reason.
    fn run(mut self) -> Ended {
        let mut reconnect = Reconnect::new(&self.shared.config, Instant::now());
        loop {
            let failed = match self.receive(&mut reconnect) {
                Ok(Received::Complete) => return Ended::Complete,
                // The connection was closed: `receive` itself goes on with a connection that replaced it.
                Ok(_) => {
                    reconnect.handle_close();
                    self.shared.await_reader()
                }
                Err(error) => self.recover(&mut reconnect, error),
            };
            if let Err(error) = failed {
                return Ended::Failed(error);
            }
        }
    }

    /// Blocks until the next attempt is due. Fails if there is to be none.
    fn recover(&self, reconnect: &mut Reconnect, error: Error) -> Result<(), Error> {
        // Several radios may play: each line of the log and each event says which one it is about.
        let error = error.with_url(self.shared.request.url());
        match reconnect.handle_failure(&error, Instant::now(), retry::random()) {
            Decision::End(error) => Err(error),
            Decision::Retry(after) => {
                log::debug!("a radio reconnects {}: {error}", In(after));
                self.shared.reconnecting(error, after);
                self.shared.pause(after)
            }
        }
    }

    /// Receives from one connection, and from those that replace it while it is silent. Fails when the connection does;
    /// returns `Ok` if it was closed because the reader was away, or if all of a file was received.
    fn receive(&mut self, reconnect: &mut Reconnect) -> Result<Received, Error> {
        // Before the request: while the reader is away no connection is opened.
        let FlowControl::Read(mut room) = self.flow_control(reconnect)? else { return Ok(Received::Closed) };
        let mut body = self.open()?;
        // While the connection is silent and the buffer runs low, the downloader opens another one.
        loop {
            match self.receive_from(&mut body, &mut room, reconnect)? {
                Received::Replaced => {
                    let url = self.shared.request.url();
                    log::debug!("another connection to the radio was faster than a silent one: {url}");
                }
                received => return Ok(received),
            }
        }
    }

    /// The response that is open already, or that to a new request.
    fn open(&mut self) -> Result<Response, Error> {
        let Some(mut body) = self.first.take() else { return self.peer.execute(self.fetch()) };
        // It was requested as a file may be. From now on a silence is hedged by a second connection, since a station can't be
        // resumed.
        body.make_live(Arc::clone(self.shared) as _);
        Ok(body)
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
        // Metadata is no part of a page.
        let audio = info.audio_of(&self.chunk[..got]);
        // Before `connected`, so that a document is not published as a connection of a station.
        self.shared.refuse_document(body.head(), audio)?;
        self.shared.connected(body.head(), &info, audio);

        // Once for each connection: positions in the metadata count from its first byte of audio.
        let base = self.shared.end();
        let mut splitter = IcySplitter::new(interval);
        loop {
            // Before the bytes are stored: afterwards the reader is not blocked any more.
            let starved = self.shared.is_starved();
            let audio = self.store(&mut splitter, base, got)?;
            reconnect.handle_audio(audio, starved, Instant::now())?;
            *room = match self.flow_control(reconnect)? {
                FlowControl::Read(room) => room,
                FlowControl::Close => return Ok(Received::Closed),
            };
            got = match body.read_live(&mut self.chunk[..*room])? {
                Some(0) if is_file(body.head()) => return Ok(Received::Complete),
                // A station has no end. Either the connection broke, or the source of the station has left.
                Some(0) => {
                    return Err(Error::new(ErrorKind::Disconnected, "the station ended the response"));
                }
                Some(got) => got,
                None => return Ok(Received::Replaced),
            };
        }
    }

    fn flow_control(&self, reconnect: &Reconnect) -> Result<FlowControl, Error> {
        self.shared.flow_control(|idle_since| reconnect.close_at(idle_since))
    }

    fn fetch(&self) -> Fetch {
        // `Reconnect` retries, not the downloader: the user chooses for how long, and the reader continues from the buffer
        // meanwhile.
        Fetch::new(self.shared.request.clone())
            .epoch(&self.shared.epoch)
            .max_retries(0)
            .live()
            .redial(Arc::clone(self.shared) as _)
    }

    /// Reads enough bytes to distinguish audio from a page, but not beyond the first metadata. Fewer if the body ends.
    /// `None` if a hedged connection replaced this one.
    fn read_first(
        &mut self,
        body: &mut Response,
        room: usize,
        interval: Option<NonZeroUsize>,
    ) -> Result<Option<usize>, Error> {
        // Without room for them an empty slice would be read, which looks like the end of the body.
        let wanted = interval.map_or(RECOGNIZABLE, |interval| interval.get().min(RECOGNIZABLE)).min(room);
        let mut got = 0;
        while got < wanted {
            match body.read_live(&mut self.chunk[got..room])? {
                Some(0) if got == 0 => {
                    return Err(Error::new(ErrorKind::Disconnected, "the station sent no audio"));
                }
                // Too short to show what it is. The read after this one finds whether it was a file or a broken connection.
                Some(0) => break,
                Some(more) => got += more,
                None => return Ok(None),
            }
        }
        Ok(Some(got))
    }

    /// Stores the first `got` bytes of the chunk. The connection's audio begins at `base`. Returns how many of them are audio.
    fn store(&self, splitter: &mut IcySplitter, base: u64, got: usize) -> Result<u64, Error> {
        let mut input = &self.chunk[..got];
        let mut stored = 0;
        while let Some(part) = splitter.next_part(&mut input) {
            match part {
                IcyPart::Audio(audio) => {
                    self.shared.store(audio)?;
                    stored += audio.len() as u64;
                }
                IcyPart::Metadata { position, block } => {
                    self.shared.add_metadata(base + position, IcyMetadata::parse(&block));
                }
            }
        }
        self.shared.trim();
        Ok(stored)
    }
}

/// True if the body that has ended was all of a file.
fn is_file(head: &ResponseHead) -> bool {
    // Some stations announce a length too, for players that expect a file. They are connected to again.
    let is_station = head.headers().any(|(name, _)| is_station_header(name));
    head.body_len().is_some() && !is_station
}
