//! Happy eyeballs: connects to the address that answers first (RFC 8305, section 5).
//!
//! Each address is tried on a thread of its own, so that several blocking connects run in parallel. Where a shutdown of the
//! socket does not end a connect, it is left to its thread.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, slice};

use crossbeam_channel::{Receiver, Sender, never, select, unbounded};

use super::socket::{ShutdownHandle, Socket};
use crate::error::{Error, ErrorKind};
use crate::foreign::contain;
use crate::thread;

/// Pause before the next address is tried in parallel: the connection attempt delay that RFC 8305, section 8, recommends.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// After this long without an answer the first addresses are tried again, in parallel to the attempts that wait. The system
/// repeats a lost SYN only after 1, 3 and 7 s, and always from the source address of the network on which the attempt began.
const REDIAL_DELAY: Duration = Duration::from_millis(2500);

/// Maximum number of such rounds, so that an unreachable host gets few packets.
const MAX_REDIALS: u32 = 3;

/// Number of addresses that are tried again in each round.
const REDIAL_ADDRESSES: usize = 2;

/// Upper bound of a connect's time limit, so that every system can represent it.
const MAX_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// On these systems a shutdown of the socket ends a blocking connect. On others the connect ends later, by itself; its thread
/// then owns only the socket.
const SHUTDOWN_ENDS_CONNECT: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// The running connects.
struct Attempts {
    /// Deadline of all attempts. `None` if an `Instant` can't represent it.
    limit: Option<Instant>,
    under_way: Vec<(ShutdownHandle, JoinHandle<()>)>,
    done: Sender<Ended>,
    ended: Receiver<Ended>,
}

/// What [`connect`] has found.
#[derive(Debug)]
pub(crate) struct Connected {
    pub(crate) socket: Socket,
    /// Addresses that were tried before that of `socket`, and have failed or not answered yet.
    pub(crate) unresponsive: Vec<SocketAddr>,
}

/// Result of one attempt.
struct Ended {
    address: SocketAddr,
    result: io::Result<Socket>,
}

/// Connects to the first of `addresses` that answers. Tries them in order: the next one when the one before has failed or has
/// not answered for 250 ms, and the first ones again if none has answered for 2.5 s. Blocks until one is connected, all have
/// failed, `timeout` has passed, or the sender of `released` is dropped. Calls `begun` for each attempt.
pub(crate) fn connect(
    addresses: &[SocketAddr],
    timeout: Duration,
    released: &Receiver<()>,
    mut begun: impl FnMut(),
) -> Result<Connected, Error> {
    let mut attempts = Attempts::new(timeout);
    let mut plan = Plan { addresses, left: addresses.iter(), redials: 0 };
    let (mut pending, mut last) = (0, Error::new(ErrorKind::Unreachable, "the host has no address"));
    loop {
        if let Some(address) = plan.left.next() {
            begun();
            pending += 1;
            attempts.begin(*address);
        }
        if pending == 0 {
            return Err(last);
        }
        // Again after each result: an address that fails at once is followed at once, and the next one gets its whole delay.
        let pause = plan.pause().map_or_else(never, crossbeam_channel::after);
        select! {
            recv(attempts.ended) -> ended => match ended {
                Ok(Ended { address, result: Ok(socket) }) => {
                    let before = addresses.iter().take_while(|other| **other != address);
                    return Ok(Connected { socket: attempts.keep(socket), unresponsive: before.copied().collect() });
                }
                Ok(Ended { address, result: Err(error) }) => {
                    pending -= 1;
                    last = describe(address, error, timeout);
                }
                Err(_) => unreachable!("`attempts` owns a sender of this channel"),
            },
            recv(pause) -> _ => plan.handle_pause_over(),
            recv(released) -> _ => return Err(Error::new(ErrorKind::Unreachable, "connecting was cancelled")),
        }
    }
}

/// Which address is tried next.
struct Plan<'a> {
    addresses: &'a [SocketAddr],
    /// Addresses that were not tried in this round.
    left: slice::Iter<'a, SocketAddr>,
    /// Number of rounds after the first one.
    redials: u32,
}

impl Plan<'_> {
    /// Time after which the next address is tried although no attempt has failed. `None` if nothing follows.
    fn pause(&self) -> Option<Duration> {
        if !self.left.as_slice().is_empty() {
            return Some(ATTEMPT_DELAY);
        }
        (self.redials < MAX_REDIALS).then_some(REDIAL_DELAY)
    }

    /// Begins the next round if all addresses of this one were tried.
    fn handle_pause_over(&mut self) {
        if self.left.as_slice().is_empty() {
            self.redials += 1;
            self.left = self.addresses[..self.addresses.len().min(REDIAL_ADDRESSES)].iter();
        }
    }
}

impl Attempts {
    fn new(timeout: Duration) -> Self {
        let (done, ended) = unbounded();
        Self { limit: Instant::now().checked_add(timeout), under_way: Vec::new(), done, ended }
    }

    /// Takes the connection of one attempt out. The drop shuts down all that are left.
    fn keep(&mut self, socket: Socket) -> Socket {
        let winner = socket.shutdown_handle();
        // Its thread has sent its result, and ends without a join.
        self.under_way.retain(|(other, _)| !other.is_same(&winner));
        socket
    }

    fn begin(&mut self, address: SocketAddr) {
        if let Err(error) = self.try_begin(address) {
            // Sent like the result of a thread, so that the next address is tried.
            self.done.send(Ended { address, result: Err(error) }).unwrap_or_default();
        }
    }

    fn try_begin(&mut self, address: SocketAddr) -> io::Result<()> {
        let mut socket = Socket::new(address)?;
        let (handle, done) = (socket.shutdown_handle(), self.done.clone());
        // `connect_timeout` refuses a limit of zero.
        let left = self.limit.map_or(MAX_LIMIT, |limit| limit.saturating_duration_since(Instant::now()));
        let limit = left.clamp(Duration::from_millis(1), MAX_LIMIT);
        let connect = move || {
            // `connect` counts results, so each attempt must send one, even after a panic.
            let result = contain("a connect", || socket.connect(limit));
            let result = result.unwrap_or_else(|panic| Err(io::Error::other(panic.to_string())));
            let result = result.map(|()| socket);
            // The send fails if another attempt was faster: then nothing receives it.
            done.send(Ended { address, result }).unwrap_or_default();
        };
        // Wrapped: on Unix its kind is that of a connect that timed out, which would be blamed on the server.
        let thread = thread::start("connect", connect).map_err(io::Error::other)?;
        self.under_way.push((handle, thread));
        Ok(())
    }
}

impl Drop for Attempts {
    fn drop(&mut self) {
        for (socket, thread) in self.under_way.drain(..) {
            socket.shut_down();
            // Elsewhere the join would block until the system gives up the connect.
            if SHUTDOWN_ENDS_CONNECT && thread.join().is_err() {
                log::error!("a connect panicked");
            }
        }
    }
}

/// `limit` is the time limit of the whole connect.
fn describe(address: SocketAddr, error: io::Error, limit: Duration) -> Error {
    let (kind, what) = match error.kind() {
        io::ErrorKind::ConnectionRefused => (ErrorKind::Refused, "refused the connection"),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
            let why = format!("{address} did not accept the connection within {limit:?}");
            return Error::new(ErrorKind::ConnectTimedOut, why).with_cause(error);
        }
        _ => (ErrorKind::Unreachable, "can't be reached"),
    };
    Error::new(kind, format!("{address} {what}")).with_cause(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;
    use socket2::{Domain, SockAddr, Type};
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_connect_without_a_thread_fails_at_once() {
        let (_refusal, (_release, released)) = (thread::refuse("connect"), bounded(0));
        let error = connect(&[refusing(); 2], LONG, &released, || ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        let shown = format!("{error:?}");
        assert!(shown.contains("windway-connect could not be started"), "{shown}");
    }

    /// An address whose accept queue is full, so that a connect to it hangs.
    struct Hanging {
        address: SocketAddr,
        _listener: socket2::Socket,
        _first: TcpStream,
    }

    impl Hanging {
        fn new() -> Self {
            let listener = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            listener.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
            listener.listen(0).unwrap();
            let address = listener.local_addr().unwrap().as_socket().unwrap();
            Self { address, _listener: listener, _first: TcpStream::connect(address).unwrap() }
        }
    }

    /// A bound port on which nothing listens. It stays bound to the end of the process, so that no other test listens on it.
    fn refusing() -> SocketAddr {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        std::mem::forget(socket);
        address
    }

    fn connect_to(addresses: &[SocketAddr], timeout: Duration) -> (Result<Socket, Error>, usize) {
        let (_held, released) = bounded(0);
        let mut begun = 0;
        let result = connect(addresses, timeout, &released, || begun += 1);
        (result.map(|connected| connected.socket), begun)
    }

    #[test]
    fn the_address_that_answers_is_taken_if_others_refuse_or_hang() {
        let (listener, hanging) = (TcpListener::bind("127.0.0.1:0").unwrap(), Hanging::new());
        let good = listener.local_addr().unwrap();
        for (addresses, attempts) in [
            (vec![good], 1),
            (vec![good, hanging.address], 1),
            (vec![refusing(), refusing(), good], 3),
            (vec![hanging.address, refusing(), good, hanging.address], 3),
        ] {
            let (socket, begun) = connect_to(&addresses, LONG);
            assert_eq!(begun, attempts);
            // The winner was not shut down with the others.
            socket.unwrap().write_all(b"a").unwrap();
            let (mut accepted, _) = listener.accept().unwrap();
            accepted.read_exact(&mut [0]).unwrap();
        }
    }

    #[test]
    fn addresses_that_were_tried_before_are_unresponsive() {
        let (listener, hanging) = (TcpListener::bind("127.0.0.1:0").unwrap(), Hanging::new());
        let (good, silent, gone) = (listener.local_addr().unwrap(), hanging.address, refusing());
        let (_held, released) = bounded(0);
        for (addresses, unresponsive) in [
            (vec![gone, silent, good, gone], vec![gone, silent]),
            (vec![silent, good], vec![silent]),
            (vec![good, silent], vec![]),
        ] {
            let connected = connect(&addresses, LONG, &released, || ()).unwrap();
            assert_eq!(connected.unresponsive, unresponsive);
        }
    }

    #[test]
    fn the_last_failure_is_returned() {
        let gone = refusing();
        let (error, begun) = connect_to(&[gone, gone], LONG);
        let error = error.unwrap_err();
        assert_eq!((error.kind(), begun), (ErrorKind::Refused, 2));
        assert!(error.to_string().contains(&gone.to_string()), "{error}");
        let hanging = Hanging::new();
        // In this order the refusal comes first, however busy the machine is.
        let (error, _) = connect_to(&[gone, hanging.address], Duration::from_millis(300));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::ConnectTimedOut);
        assert_eq!(connect_to(&[], LONG).0.unwrap_err().kind(), ErrorKind::Unreachable);
    }

    /// The system repeats a lost SYN only after 1, 3 and 7 s; a new attempt sends one at once.
    #[test]
    fn an_address_that_does_not_answer_is_tried_again() {
        let hanging = Hanging::new();
        let timeout = REDIAL_DELAY + Duration::from_millis(500);
        let (error, begun) = connect_to(&[hanging.address], timeout);
        assert_eq!((error.unwrap_err().kind(), begun), (ErrorKind::ConnectTimedOut, 2));
    }

    #[test]
    fn a_cancel_ends_hanging_connects() {
        let hanging = Hanging::new();
        let (held, released) = bounded(0);
        let addresses = [hanging.address; 3];
        let blocked = std::thread::spawn(move || connect(&addresses, LONG, &released, || ()));
        drop(held);
        assert_eq!(blocked.join().unwrap().unwrap_err().kind(), ErrorKind::Unreachable);
    }
}
