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
pub(crate) struct Socket(Arc<TcpStream>);

/// Ends a connection from any thread.
#[derive(Clone)]
pub(crate) struct ShutdownHandle(Arc<TcpStream>);

impl Socket {
    /// An unconnected socket of the family of `address`.
    pub(crate) fn new(address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        Ok(Self(Arc::new(socket.into())))
    }

    /// Blocks until the socket is connected, for at most `limit`.
    pub(crate) fn connect(&mut self, address: SocketAddr, limit: Duration) -> io::Result<()> {
        // Not `TcpStream::connect_timeout`, which makes its own socket: then no other thread could shut it down while it
        // connects.
        SockRef::from(&*self.0).connect_timeout(&SockAddr::from(address), limit)
    }

    pub(crate) fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle(Arc::clone(&self.0))
    }

    /// Turns Nagle's algorithm off, so that small writes are sent at once.
    pub(crate) fn set_nodelay(&mut self) -> io::Result<()> {
        self.0.set_nodelay(true)
    }

    pub(crate) fn set_read_timeout(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(limit)
    }

    pub(crate) fn set_write_timeout(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.0.set_write_timeout(limit)
    }

    pub(crate) fn set_nonblocking(&mut self, is_nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(is_nonblocking)
    }

    /// True if the connection is open and no unread byte has arrived. Sends nothing and does not block.
    pub(crate) fn is_open_and_silent(&mut self) -> bool {
        matches!(self.peek(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// A single system call where the flag is known, because this runs before each request on a pooled connection.
    #[cfg(unix)]
    fn peek(&mut self) -> io::Result<usize> {
        SockRef::from(&*self.0).recv_with_flags(&mut [MaybeUninit::uninit()], MSG_PEEK | MSG_DONTWAIT)
    }

    #[cfg(not(unix))]
    fn peek(&mut self) -> io::Result<usize> {
        self.set_nonblocking(true)?;
        let peeked = self.0.peek(&mut [0]);
        self.set_nonblocking(false)?;
        peeked
    }

    /// Reads the available bytes. Repeats the read if a signal interrupts it.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&*self.0).read(buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        (&*self.0).write_all(bytes)
    }
}

impl ShutdownHandle {
    /// Shuts down both directions, which ends a blocked read or write on the socket.
    pub(crate) fn shut_down(&self) {
        // Not a close: another thread may be reading, and the number of a closed descriptor may be given to another file.
        drop(self.0.shutdown(Shutdown::Both));
    }

    /// As [`shut_down`](Self::shut_down), and makes the following close reset the connection.
    pub(crate) fn reset(&self) {
        // A server that is blocked on a full window would notice a normal close only when the kernel forgets the socket, a
        // minute later. An error means that the connection is already down.
        drop(SockRef::from(&*self.0).set_linger(Some(Duration::ZERO)));
        self.shut_down();
    }

    /// The remote address. `None` if the connection is already down.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.0.peer_addr().ok()
    }

    /// True if both handles end the same connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Debug for ShutdownHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
