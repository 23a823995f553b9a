//! Connects on a thread of its own: for systems on which a connect that is under way is not released by a shutdown of its
//! socket. Linux is none of them; the test runs there all the same.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};
use socket2::{SockAddr, SockRef};

/// Connects `socket`. Blocks until that is done, `limit` has passed, or `released` has lost its sender. In the last case the
/// thread ends by itself later; it holds the socket and nothing else.
pub(super) fn connect(
    socket: &Arc<TcpStream>,
    address: SocketAddr,
    limit: Duration,
    released: &Receiver<()>,
) -> io::Result<()> {
    let (done, connected) = bounded(1);
    let socket = Arc::clone(socket);
    thread::Builder::new().name("windway-connect".to_owned()).spawn(move || {
        let result = SockRef::from(&*socket).connect_timeout(&SockAddr::from(address), limit);
        // Nobody listens any more if it was released.
        done.send(result).unwrap_or_default();
    })?;
    let gone = || io::Error::from(io::ErrorKind::ConnectionAborted);
    select! {
        recv(connected) -> result => result.unwrap_or_else(|_| Err(gone())),
        recv(released) -> _ => Err(gone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};

    fn socket() -> Arc<TcpStream> {
        Arc::new(TcpStream::from(Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()))
    }

    #[test]
    fn it_connects_or_says_why_not() {
        let (_held, released) = bounded(0);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connected = socket();
        connect(&connected, address, Duration::from_secs(60), &released).unwrap();
        assert_eq!(connected.peer_addr().unwrap(), address);
        drop(listener);
        let error = connect(&socket(), address, Duration::from_secs(60), &released).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_connect_that_hangs_is_released() {
        // Nobody accepts, and the queue is full: the next one hangs.
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let _first = TcpStream::connect(address).unwrap();
        let (held, released) = bounded(0);
        let blocked = thread::spawn(move || connect(&socket(), address, Duration::from_secs(60), &released));
        drop(held);
        assert_eq!(blocked.join().unwrap().unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
