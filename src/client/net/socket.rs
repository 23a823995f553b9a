//! A TCP socket with one owner.
//!
//! The owner of a [`Socket`] reads and writes. A [`ShutdownHandle`] ends the connection from any thread, but can't read or
//! write. So only the owner can read: the socket below TLS belongs to the TLS layer, and no other code can take its bytes.
//!
//! On Unix a shutdown ends the system calls that the owner is blocked in; `waiting.rs` does that on Windows.

#[cfg(windows)]
mod waiting;

use std::fmt;
use std::io;
#[cfg(not(windows))]
use std::io::{Read, Write};
#[cfg(unix)]
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Type};

#[cfg(windows)]
use self::waiting::{Ending, Waiting};

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
    #[cfg(windows)]
    ending: Arc<Ending>,
    /// `None` until it is connected.
    #[cfg(windows)]
    waiting: Option<Waiting>,
}

/// Ends a connection from any thread.
#[derive(Clone)]
pub(crate) struct ShutdownHandle {
    stream: Arc<TcpStream>,
    peer: SocketAddr,
    #[cfg(windows)]
    ending: Arc<Ending>,
}

impl Socket {
    /// An unconnected socket for a connection to `peer`.
    pub(crate) fn new(peer: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
        Ok(Self {
            stream: Arc::new(socket.into()),
            peer,
            #[cfg(windows)]
            ending: Arc::default(),
            #[cfg(windows)]
            waiting: None,
        })
    }

    /// Blocks until the socket is connected, for at most `limit`.
    pub(crate) fn connect(&mut self, limit: Duration) -> io::Result<()> {
        // Not `TcpStream::connect_timeout`, which makes its own socket: then no other thread could shut it down while it
        // connects.
        SockRef::from(&*self.stream).connect_timeout(&SockAddr::from(self.peer), limit)?;
        #[cfg(windows)]
        {
            self.waiting = Some(Waiting::new(&self.stream, &self.ending)?);
        }
        Ok(())
    }

    pub(crate) fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle {
            stream: Arc::clone(&self.stream),
            peer: self.peer,
            #[cfg(windows)]
            ending: Arc::clone(&self.ending),
        }
    }

    /// Turns Nagle's algorithm off, so that small writes are sent at once.
    pub(crate) fn set_nodelay(&mut self) -> io::Result<()> {
        self.stream.set_nodelay(true)
    }

    /// True if the connection is open and no unread byte has arrived. Sends nothing and does not block.
    pub(crate) fn is_open_and_silent(&mut self) -> bool {
        matches!(self.peek(), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

#[cfg(not(windows))]
impl Socket {
    pub(crate) fn set_read_timeout(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(limit)
    }

    pub(crate) fn set_write_timeout(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.stream.set_write_timeout(limit)
    }

    pub(crate) fn set_nonblocking(&mut self, is_nonblocking: bool) -> io::Result<()> {
        self.stream.set_nonblocking(is_nonblocking)
    }

    /// A single system call, because this runs before each request on a pooled connection.
    fn peek(&mut self) -> io::Result<usize> {
        SockRef::from(&*self.stream).recv_with_flags(&mut [MaybeUninit::uninit()], MSG_PEEK | MSG_DONTWAIT)
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

#[cfg(windows)]
impl Socket {
    pub(crate) fn set_read_timeout(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.waiting()?.set_read_timeout(limit);
        Ok(())
    }

    pub(crate) fn set_write_timeout(&mut self, limit: Option<Duration>) -> io::Result<()> {
        self.waiting()?.set_write_timeout(limit);
        Ok(())
    }

    pub(crate) fn set_nonblocking(&mut self, is_nonblocking: bool) -> io::Result<()> {
        self.waiting()?.set_nonblocking(is_nonblocking);
        Ok(())
    }

    fn peek(&mut self) -> io::Result<usize> {
        self.waiting()?.peek()
    }

    /// Reads the available bytes.
    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.waiting()?.read(buf)
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.waiting()?.write_all(bytes)
    }

    fn waiting(&mut self) -> io::Result<&mut Waiting> {
        self.waiting.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl ShutdownHandle {
    /// Shuts down both directions, which ends a blocked read or write on the socket.
    pub(crate) fn shut_down(&self) {
        // Not a close: another thread may be reading, and the number of a closed descriptor may be given to another file.
        drop(self.stream.shutdown(Shutdown::Both));
        #[cfg(windows)]
        self.ending.end();
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// A connection, and its other end.
    fn connected(listener: &TcpListener) -> (Socket, TcpStream) {
        let mut socket = Socket::new(listener.local_addr().unwrap()).unwrap();
        socket.connect(Duration::from_secs(60)).unwrap();
        (socket, listener.accept().unwrap().0)
    }

    #[test]
    fn a_shutdown_ends_a_read_and_a_write_of_another_thread_whether_they_have_begun_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for round in 0..100 {
            let ((mut socket, _other), is_write) = (connected(&listener), round % 2 == 0);
            let handle = socket.shutdown_handle();
            let owner = thread::spawn(move || {
                // More than the buffers of both ends hold.
                if is_write {
                    socket.write_all(&vec![0; 64 << 20]).is_err()
                } else {
                    socket.read(&mut [0; 9]).is_ok_and(|got| got == 0)
                }
            });
            handle.shut_down();
            assert!(owner.join().unwrap());
        }
    }

    #[test]
    fn a_read_waits_for_its_time_limit_and_goes_on_afterwards() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (mut socket, mut other) = connected(&listener);
        socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let error = socket.read(&mut [0; 9]).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock), "{error:?}");
        assert!(socket.is_open_and_silent());
        io::Write::write_all(&mut other, b"late").unwrap();
        socket.set_read_timeout(None).unwrap();
        let mut bytes = [0; 9];
        assert_eq!((socket.read(&mut bytes).unwrap(), &bytes[..4]), (4, &b"late"[..]));
        drop(other);
        assert_eq!(socket.read(&mut bytes).unwrap(), 0);
        assert!(!socket.is_open_and_silent());
    }
}
