//! Requests on their streams: written, read, stopped, forgotten.

use std::time::Instant;

use quinn_proto::{Chunk, Dir, ReadError, StreamId, Transmit, VarInt, WriteError};

use super::request::{Broken, Request};
use super::state::{State, varint};
use crate::client::h3::code::Code;
use crate::client::h3::limits::WINDOWS;
use crate::error::{Error, ErrorKind};

/// Maximum number of streams whose end is waited for after their response was read. Servers send the end together with the last
/// bytes, so there are few; a server that never sends it must not make this client keep them all.
const MOST_RELEASED: usize = 64;

impl State {
    pub(super) fn handle_readable(&mut self, key: u64) {
        let Some(request) = self.requests.get(&key) else { return };
        if !request.is_released {
            return request.notify();
        }
        // Usually only the end of the stream was missing.
        self.finish(key);
        // Trailers, or frames of unknown types, of which there may be any number (RFC 9114, section 9). No caller reads them.
        if self.requests.contains_key(&key) {
            self.stop(key);
            self.forget(key);
        }
    }

    /// The requests whose response is still read.
    pub(super) fn open_requests(&self) -> impl Iterator<Item = &Request> {
        self.requests.values().filter(|request| !request.is_released)
    }

    /// Opens the streams that the server allows.
    pub(super) fn refill_credit(&mut self) {
        let Self { credit, quic, .. } = self;
        credit.refill(|| quic.streams().open(Dir::Bi));
    }

    /// A stream for a request, if it may have one now. Otherwise it is notified when that may have changed.
    fn take_stream(&mut self, key: u64) -> Option<StreamId> {
        self.refill_credit();
        let is_urgent = self.requests.get(&key)?.is_urgent;
        let is_awaited = self.requests.values().any(|request| request.is_urgent && request.awaits_stream);
        let stream = self.credit.take(is_urgent, self.by_stream.len(), is_awaited);
        self.requests.get_mut(&key)?.awaits_stream = stream.is_none();
        if stream.is_none() {
            self.stop_released();
        }
        stream
    }

    /// Stops the streams of which only the end is missing: a server that does not end them would keep their credit forever.
    fn stop_released(&mut self) {
        let released = self.requests.iter().filter(|(_, request)| request.is_released);
        let keys: Vec<u64> = released.map(|(key, _)| *key).collect();
        for key in keys {
            self.stop(key);
            self.forget(key);
        }
    }

    /// Lets the requests without a stream try again.
    fn notify_awaiting(&self) {
        for request in self.requests.values().filter(|request| request.awaits_stream) {
            request.notify();
        }
    }

    /// Opens a stream for a request and writes `head`. False if it may have no stream now.
    pub(super) fn open_stream(&mut self, key: u64, head: &[u8], now: Instant) -> bool {
        let Some(id) = self.take_stream(key) else { return false };
        let is_early = !self.is_ready;
        if is_early {
            self.open_control();
        }
        let Some(request) = self.requests.get_mut(&key) else { return false };
        (request.stream, request.unwritten, request.is_early) = (Some(id), head.to_vec(), is_early);
        // With a stream of its own it does not matter whether it becomes urgent.
        request.undecided = None;
        self.by_stream.insert(id, key);
        self.grow_window();
        self.last_sent = Some(now);
        self.write(key);
        true
    }

    /// Lets the server send what all streams and one more may hold: bodies that are not read must not take the credit of others
    /// (RFC 9000, section 4.1).
    fn grow_window(&mut self) {
        let streams = self.by_stream.len() as u64 + 1;
        let window = streams * u64::from(WINDOWS.0);
        // It never shrinks: credit that the server has got can't be taken back, and quinn-proto gives more with each growth. The
        // windows of the streams bound the memory.
        if window > self.window {
            self.window = window;
            // Far below the maximum: a server allows 2^60 streams at most (RFC 9000, section 4.6), and there is memory for few.
            self.quic.set_receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX));
        }
    }

    /// Writes what is left of a request.
    pub(super) fn write(&mut self, key: u64) {
        let Some(request) = self.requests.get_mut(&key) else { return };
        let Some(id) = request.stream else { return };
        let mut stream = self.quic.send_stream(id);
        while !request.unwritten.is_empty() {
            match stream.write(&request.unwritten) {
                Ok(written) => drop(request.unwritten.drain(..written)),
                Err(WriteError::Blocked) => return,
                // The server answers without the rest, or resets the response.
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => request.unwritten.clear(),
            }
        }
        // Fails if the server has stopped the stream. It answers without the rest then, or resets the response.
        drop(stream.finish());
    }

    /// Takes up to `most` bytes of a body that have arrived, or parses up to the head if that is missing. The pieces go to
    /// `taken`.
    pub(super) fn take(
        &mut self,
        key: u64,
        most: usize,
        taken: &mut Vec<Chunk>,
        now: Instant,
    ) -> Result<(), Error> {
        let Some(request) = self.requests.get_mut(&key) else { return Ok(()) };
        let mut got = request.take_pending(most, taken);
        let Some(id) = request.stream.filter(|_| !request.is_complete && got < most) else { return Ok(()) };
        let mut receiver = self.quic.recv_stream(id);
        // quinn-proto knows no such stream any more: it was read to its end, or stopped.
        let Ok(mut chunks) = receiver.read(true) else {
            request.is_complete = true;
            return Ok(());
        };
        let result = loop {
            let had_head = request.head.is_some();
            match chunks.next(most - got) {
                Ok(Some(chunk)) => match request.parse(chunk, taken) {
                    Ok(bytes) => got += bytes,
                    Err(violation) => break Err(Broken::Rule(violation)),
                },
                Ok(None) => break request.end().map_or(Ok(()), Err),
                Err(ReadError::Blocked) => break Ok(()),
                Err(ReadError::Reset(code)) => break Err(Broken::Reset(code)),
            }
            if !had_head && request.head.is_some() {
                self.served += 1;
                // What follows belongs to the first read of the body.
                request.pending.extend(taken.drain(..));
                break Ok(());
            }
            if got >= most {
                break Ok(());
            }
        };
        // Also for what is skipped: the server may wait for this credit.
        if chunks.finalize().should_transmit() && self.over.is_none() {
            self.flush(now);
        }
        result.map_err(|broken| self.handle_broken(key, broken, now))
    }

    /// The error of a request whose stream broke.
    pub(super) fn handle_broken(&mut self, key: u64, broken: Broken, now: Instant) -> Error {
        let error = match broken {
            Broken::Rule(violation) => {
                if violation.ends_connection() {
                    self.handle_violation(violation, now);
                }
                Error::new(ErrorKind::Protocol, "the response is not valid HTTP/3").with_cause(violation)
            }
            Broken::Cut => Error::new(
                ErrorKind::Disconnected,
                "the server ended the stream before the end of the response",
            ),
            Broken::Reset(code) => {
                // Nothing more comes on this stream, so `stop` need not end it.
                if let Some(request) = self.requests.get_mut(&key) {
                    request.is_complete = true;
                }
                let why = format!("the server reset the stream (HTTP/3 error {:#x})", code.into_inner());
                Error::new(ErrorKind::Disconnected, why)
            }
        };
        if let Some(request) = self.requests.get_mut(&key) {
            request.error.get_or_insert_with(|| error.clone());
        }
        error
    }

    /// Ends a request.
    pub(super) fn release(&mut self, key: u64, now: Instant) {
        self.used = now;
        let released = self.requests.values().filter(|request| request.is_released).count();
        let Some(request) = self.requests.get_mut(&key) else { return };
        request.is_released = true;
        request.pending.clear();
        let is_missing_end = request.reader.is_complete() && request.stream.is_some() && !request.is_aborted;
        let is_to_end = is_missing_end && released < MOST_RELEASED;
        // Only the end of the stream is missing. The thread waits for it, since to stop the stream would cost a packet.
        if is_to_end {
            self.finish(key);
        } else {
            self.stop(key);
            self.forget(key);
        }
        self.close_if_unused(now);
    }

    /// Reads the end of the stream of a released request, if it has arrived.
    pub(super) fn finish(&mut self, key: u64) {
        let mut unwanted = Vec::new();
        let result = self.take(key, 1, &mut unwanted, Instant::now());
        let is_complete = self.requests.get(&key).is_none_or(|request| request.is_complete);
        if result.is_err() || !unwanted.is_empty() {
            self.stop(key);
        } else if !is_complete {
            return;
        }
        self.forget(key);
    }

    /// Asks the server to stop sending the response (RFC 9114, section 4.1.1).
    pub(super) fn stop(&mut self, key: u64) {
        let Some(request) = self.requests.get_mut(&key) else { return };
        if let Some(id) = request.stream.filter(|_| !request.is_complete) {
            // Both fail if the stream is complete in that direction, which is as good.
            drop(self.quic.recv_stream(id).stop(varint(Code::REQUEST_CANCELLED)));
            if !request.unwritten.is_empty() {
                drop(self.quic.send_stream(id).reset(varint(Code::REQUEST_CANCELLED)));
            }
        }
        request.is_complete = true;
    }

    /// Ends a request, and wakes its thread. Returns the packet that asks the server to stop sending, whose bytes go to `out`.
    pub(super) fn abort(&mut self, key: u64, now: Instant, out: &mut Vec<u8>) -> Option<Transmit> {
        let request = self.requests.get_mut(&key)?;
        request.is_aborted = true;
        request.notify();
        if self.over.is_some() {
            return None;
        }
        self.stop(key);
        // Behind a packet that did not fit into the socket it is sent by the thread.
        if self.unsent.is_some() { None } else { self.quic.poll_transmit(now, 1, out) }
    }

    pub(super) fn forget(&mut self, key: u64) {
        if let Some(Request { stream: Some(id), .. }) = self.requests.remove(&key) {
            self.by_stream.remove(&id);
        }
        // A prefetch waits until the last stream is free, if the server allows few; or until no urgent request waits.
        self.notify_awaiting();
    }

    /// Why a request can't go on, apart from the end of its connection.
    pub(super) fn failure(&self, key: u64) -> Option<Error> {
        let request = self.requests.get(&key)?;
        // The exchange knows the reason of the abort.
        let aborted =
            || request.is_aborted.then(|| Error::new(ErrorKind::Disconnected, "the request was aborted"));
        if !request.pending.is_empty() {
            // It came before whatever happened then.
            return aborted();
        }
        aborted().or_else(|| request.error.clone())
    }
}
