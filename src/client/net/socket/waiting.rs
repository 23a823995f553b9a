//! Reads and writes on Windows, where a shutdown does not end a read that is blocked (rust-lang/rust#121594). So the socket never
//! blocks: its owner waits for readiness, and another thread ends that wait by a waker.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token, Waker};

const SOCKET: Token = Token(0);
const SHUTDOWN: Token = Token(1);

/// Ends the owner's wait.
#[derive(Debug, Default)]
pub(super) struct Ending {
    is_shut_down: AtomicBool,
    /// Set once the socket is connected.
    waker: OnceLock<Waker>,
}

impl Ending {
    /// Makes the owner's read and write return, now and later. To be called after the shutdown.
    pub(super) fn end(&self) {
        self.is_shut_down.store(true, Ordering::SeqCst);
        if let Some(Err(error)) = self.waker.get().map(Waker::wake) {
            log::debug!("a wait for a socket can't be ended: {error}");
        }
    }
}

/// A connected socket, and how long its owner waits.
pub(super) struct Waiting {
    stream: mio::net::TcpStream,
    poll: Poll,
    events: Events,
    ending: Arc<Ending>,
    read_limit: Option<Duration>,
    write_limit: Option<Duration>,
    /// Reads and writes do not wait.
    is_nonblocking: bool,
}

impl Waiting {
    /// `ending` may have ended already.
    pub(super) fn new(stream: &TcpStream, ending: &Arc<Ending>) -> io::Result<Self> {
        // Another handle of the same socket: the first one is shared with other threads, and mio needs one of its own.
        let stream = stream.try_clone()?;
        stream.set_nonblocking(true)?;
        let mut stream = mio::net::TcpStream::from_std(stream);
        let poll = Poll::new()?;
        poll.registry().register(&mut stream, SOCKET, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), SHUTDOWN)?;
        // A socket is connected once.
        drop(ending.waker.set(waker));
        Ok(Self {
            stream,
            poll,
            events: Events::with_capacity(2),
            ending: Arc::clone(ending),
            read_limit: None,
            write_limit: None,
            is_nonblocking: false,
        })
    }

    pub(super) fn set_read_timeout(&mut self, limit: Option<Duration>) {
        self.read_limit = limit;
    }

    pub(super) fn set_write_timeout(&mut self, limit: Option<Duration>) {
        self.write_limit = limit;
    }

    pub(super) fn set_nonblocking(&mut self, is_nonblocking: bool) {
        self.is_nonblocking = is_nonblocking;
    }

    pub(super) fn peek(&mut self) -> io::Result<usize> {
        self.stream.peek(&mut [0])
    }

    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.repeat(Interest::READABLE, self.read_limit, |mut stream| stream.read(buf))
    }

    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.repeat(Interest::WRITABLE, self.write_limit, |mut stream| stream.write(bytes))? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }

    /// Calls `act` until it does not return `WouldBlock`. Returns 0 once the socket is shut down.
    fn repeat(
        &mut self,
        interest: Interest,
        limit: Option<Duration>,
        mut act: impl FnMut(&mio::net::TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        // One beyond the range of the clock is none.
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            // A shutdown after this look wakes the wait below: the waker's event stays until it is polled.
            if self.ending.is_shut_down.load(Ordering::SeqCst) {
                return Ok(0);
            }
            match act(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.is_nonblocking => {}
                done => return done,
            }
            self.wait(interest, deadline)?;
        }
    }

    fn wait(&mut self, interest: Interest, deadline: Option<Instant>) -> io::Result<()> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // Only for what it waits for: a socket that can be written would end each wait for bytes at once.
        self.poll.registry().reregister(&mut self.stream, SOCKET, interest)?;
        match self.poll.poll(&mut self.events, left) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            polled => polled,
        }
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stream.fmt(f)
    }
}
