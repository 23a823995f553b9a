//! A TCP socket with one owner.
//!
//! The owner of a [`Socket`] reads and writes. A [`ShutdownHandle`] ends the connection from any thread, but can't read or
//! write. So only the owner can read: the socket below TLS belongs to the TLS layer, and no other code can take its bytes.

use std::fmt;
use std::io::{self, Read, Write};
#[cfg(unix)]
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Type};

/// Flags of `recv`, from the system's `sys/socket.h`: return the next bytes but leave them in the queue; do not wait.
#[cfg(unix)]
const MSG_PEEK: i32 = 2;
#[cfg(any(target_os = "linux", target_os = "android"))]
const MSG_DONTWAIT: i32 = 0x40;
#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
const MSG_DONTWAIT: i32 = 0x80;

/// Reads and writes a TCP connection. Not `Clone`, and never gives its stream away.
pub(crate) struct Socket {
    stream: Arc<TcpStream>,
    /// The remote address. Kept, because each request looks at it, and to ask the system takes a call.
    peer: SocketAddr,
}

/// Ends a connection from any thread.
#[derive(Clone)]
pub(crate) struct ShutdownHandle {
    stream: Arc<TcpStream>,
    peer: SocketAddr,
}

impl Socket {
    /// An unconnected socket for a connection to `peer`.
    pub(crate) fn new(peer: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
        Ok(Self { stream: Arc::new(socket.into()), peer })
    }

    /// Blocks until the socket is connected, for at most `limit`.
    pub(crate) fn connect(&mut self, limit: Duration) -> io::Result<()> {
        // Not `TcpStream::connect_timeout`, which makes its own socket: then no other thread could shut it down while it
        // connects.
        SockRef::from(&*self.stream).connect_timeout(&SockAddr::from(self.peer), limit)
    }

    pub(crate) fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle { stream: Arc::clone(&self.stream), peer: self.peer }
    }

    /// Turns Nagle's algorithm off, so that small writes are sent at once.
    pub(crate) fn set_nodelay(&mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)
    }

    pub(crate) fn set_read_timeout(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(limit)
    }

    pub(crate) fn set_write_timeout(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.stream.set_write_timeout(limit)
    }

    pub(crate) fn set_nonblocking(&mut self, is_nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(is_nonblocking)
    }

    /// True if the connection is open and no unread byte has arrived. Sends nothing and does not block.
    pub(crate) fn is_open_and_silent(&mut self) -> bool {
        matches!(self.peek(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// A single system call where the flag is known, because this runs before each request on a pooled connection.
    #[cfg(unix)]
    fn peek(&mut self) -> io::Result<usize> {
        SockRef::from(&*self.stream).recv_with_flags(&mut [MaybeUninit::uninit()], MSG_PEEK | MSG_DONTWAIT)
    }

    #[cfg(not(unix))]
    fn peek(&mut self) -> io::Result<usize> {
        self.set_nonblocking(true)?;
        let peeked = self.stream.peek(&mut [0]);
        // Before the result is returned: a socket that stays non-blocking would make the next read fail.
        self.set_nonblocking(false)?;
        peeked
    }

    /// Reads the available bytes.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&*self.stream).read(buf) {
                // A signal of the program is no failure of the connection.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&*self.stream).write_all(bytes)
    }
}

impl ShutdownHandle {
    /// Shuts down both directions, which ends a blocked read or write on the socket. On Windows a blocked read only ends when the
    /// server closes the connection in turn, or at its time limit (rust-lang/rust#121594).
    pub(crate) fn shut_down(&self) {
        // Not a close: another thread may be reading, and the number of a closed descriptor may be given to another file.
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// As [`shut_down`](Self::shut_down), and makes the following close reset the connection.
    pub(crate) fn reset(&self) {
        // A server that is blocked on a full window would notice a normal close only when the kernel forgets the socket, a
        // minute later. An error means that the connection is already down.
        drop(SockRef::from(&*self.stream).set_linger(Some(Duration::ZERO)));
        self.shut_down();
    }

    /// The remote address.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// True if both handles end the same connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.stream, &other.stream)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.stream, f)
    }
}

impl fmt::Debug for ShutdownHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.stream, f)
    }
}
