//! One connection of the scripted origin: reads requests, and sends each answer at its speed up to its end.

use std::io::{self, Read};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::answer::{Answer, Cut, Ending, Framing, Speed};
use super::framing::append;
use super::origin::Shared;
use super::request::read_request;
use super::wire::{Line, Wire};

/// Delay between the parts of a split response head, so that the client does not read them as one.
const SPLIT_GAP: Duration = Duration::from_millis(5);

impl Shared {
    pub(super) fn serve(&self, connection: usize, socket: &TcpStream) -> io::Result<()> {
        let accepted = Instant::now();
        socket.set_nodelay(true)?;
        let line = Line { socket, connection, black_holed: &self.black_holed, lost: &self.lost };
        let mut wire = match &self.identity {
            None => Wire::Plain(line),
            Some(identity) => {
                self.pause(2 * self.rtt)?;
                identity.accept(line)?
            }
        };
        self.lock().log.ready += 1;
        self.changed.notify_all();
        let mut unread = Vec::new();
        for on_connection in 0.. {
            let Some(mut request) = read_request(&mut wire, &mut unread)? else { return Ok(()) };
            request.connection = connection;
            request.on_connection = on_connection;
            {
                let mut state = self.lock();
                if request.suffix().is_some() {
                    request.number = usize::MAX;
                    state.log.suffixes.push(request.clone());
                } else {
                    request.number = state.forgotten + state.log.requests.len();
                    let seen = state.seen.entry(request.path.clone()).or_default();
                    request.again = *seen;
                    *seen += 1;
                    state.log.requests.push(request.clone());
                }
                self.changed.notify_all();
            }
            let answer = if self.serves(connection) { (self.handler)(&request) } else { Answer::status(503) };
            let is_first = on_connection == 0 && self.identity.is_none();
            // A preconnected connection has had its round trip already.
            let handshake =
                if is_first { self.rtt.saturating_sub(accepted.elapsed()) } else { Duration::ZERO };
            self.pause(handshake)?;
            if !answer.interim.is_empty() {
                wire.send(answer.interim_heads().as_bytes())?;
            }
            self.pause(answer.latency)?;
            self.await_requests(answer.awaited_requests)?;
            if answer.holds_head && !self.stall(socket) {
                return Ok(());
            }
            if !self.send(&mut wire, &answer)? {
                return hang_up(&mut wire, &answer);
            }
        }
        Ok(())
    }

    /// False if the server serves only its oldest open connection, and this is another one.
    fn serves(&self, connection: usize) -> bool {
        let state = self.lock();
        !state.serves_oldest || state.sockets.keys().all(|other| *other >= connection)
    }

    /// Sends an answer. False if the connection is to end with it.
    fn send(&self, wire: &mut Wire<'_>, answer: &Answer) -> io::Result<bool> {
        if let Some(raw) = &answer.raw {
            self.send_raw(wire, raw, answer.speed)?;
            return Ok(false);
        }
        let mut out = answer.head().into_bytes();
        if let Ending::InHead(bytes, cut) = answer.end {
            let rest = out.split_off(bytes.min(out.len()));
            wire.send(&out)?;
            if cut != Cut::Stall || !self.stall(wire.socket()) {
                return Ok(false);
            }
            out = rest;
        }
        if let Some(at) = answer.split {
            let rest = out.split_off(at.min(out.len()));
            wire.send(&out)?;
            self.pause(SPLIT_GAP)?;
            out = rest;
        }
        self.send_body(wire, answer, out)
    }

    fn send_raw(&self, wire: &mut Wire<'_>, raw: &[u8], speed: Speed) -> io::Result<()> {
        let (mut sent, began) = (0, Instant::now());
        for slice in raw.chunks(speed.slice() as usize) {
            self.pause(speed.wait(sent, began.elapsed()))?;
            wire.send(slice)?;
            sent += slice.len() as u64;
        }
        Ok(())
    }

    /// Sends `out`, the response head, together with the first bytes of the body, as most servers do, and then the rest.
    fn send_body(&self, wire: &mut Wire<'_>, answer: &Answer, mut out: Vec<u8>) -> io::Result<bool> {
        let mut at = answer.part.start;
        let limit = match answer.end {
            Ending::Whole | Ending::InHead(..) => u64::MAX,
            Ending::InBody(bytes, _) | Ending::InChunk(bytes) => bytes,
        };
        let stop = at.saturating_add(limit).min(answer.part.end);
        let began = Instant::now();
        loop {
            let end = stop.min(at.saturating_add(answer.speed.slice()));
            let is_cut = end == stop && matches!(answer.end, Ending::InChunk(_));
            append(&mut out, answer, at..end, is_cut);
            if end == answer.part.end && answer.framing != Framing::Chunked {
                answer.append_extra(&mut out);
            }
            wire.send(&out)?;
            out.clear();
            self.lock().log.sent += end - at;
            self.changed.notify_all();
            at = end;
            if at == stop {
                break;
            }
            self.pause(answer.speed.wait(at - answer.part.start, began.elapsed()))?;
        }
        match answer.end {
            Ending::InBody(_, Cut::Close | Cut::Reset) | Ending::InChunk(_) => return Ok(false),
            Ending::InBody(_, Cut::Stall) => {
                if self.stall(wire.socket()) {
                    append(&mut out, answer, stop..answer.part.end, false);
                    wire.send(&out)?;
                }
                return Ok(false);
            }
            Ending::Whole | Ending::InHead(..) => {}
        }
        if answer.framing == Framing::Chunked {
            wire.send(&answer.chunked_end())?;
        }
        Ok(answer.keeps_connection())
    }

    /// Waits for `time`. Fails if the server stops in between.
    fn pause(&self, time: Duration) -> io::Result<()> {
        if time.is_zero() {
            return Ok(());
        }
        let deadline = Instant::now() + time;
        let mut state = self.lock();
        loop {
            if state.stopping {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            state = self.changed.wait_timeout(state, left).expect("no panic under this lock").0;
        }
    }

    /// Blocks until the server has had `requests` requests. Fails if it stops before.
    fn await_requests(&self, requests: usize) -> io::Result<()> {
        let mut state = self.lock();
        while state.forgotten + state.log.requests.len() < requests {
            if state.stopping {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            state = self.changed.wait(state).expect("no panic under this lock");
        }
        Ok(())
    }

    /// Keeps a connection of the black hole open until it is shut down.
    pub(super) fn outlast_black_hole(&self, connection: usize) {
        if connection >= self.black_holed.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.lock();
        while state.sockets.contains_key(&connection) {
            state = self.changed.wait(state).expect("no panic under this lock");
        }
    }

    /// Blocks until the origin is released. False if the client closes the connection or the server stops first.
    fn stall(&self, mut socket: &TcpStream) -> bool {
        if !self.lock().released {
            // `release` shuts the reading half down. A waiting client sends nothing.
            while matches!(socket.read(&mut [0; 256]), Ok(got) if got > 0) {}
        }
        let state = self.lock();
        state.released && !state.stopping && state.listening
    }
}

/// Prepares the end of a connection after its last response. The drop of the socket closes it: a shutdown would send a FIN before a
/// reset.
fn hang_up(wire: &mut Wire<'_>, answer: &Answer) -> io::Result<()> {
    match answer.end {
        Ending::InHead(_, Cut::Reset) | Ending::InBody(_, Cut::Reset) => {
            socket2::SockRef::from(wire.socket()).set_linger(Some(Duration::ZERO))
        }
        _ if answer.notifies_close => wire.notify_close(),
        _ => Ok(()),
    }
}
