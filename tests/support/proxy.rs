//! A scripted proxy that opens tunnels by HTTP and by SOCKS 5, and may change the bytes that it forwards.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

/// What the proxy does with a request for a tunnel.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Opens the tunnel.
    Tunnel,
    /// Opens the tunnel, and answers with these bytes. With SOCKS they follow the choice of a method.
    TunnelWith(Vec<u8>),
    /// Opens no tunnel: sends these bytes and closes the connection.
    Refuse(Vec<u8>),
    /// Sends these bytes and falls silent.
    Silent(Vec<u8>),
}

/// A request for a tunnel, as the proxy saw it.
#[derive(Clone, Debug)]
pub struct Connect {
    pub target: String,
    /// User and password that a client of SOCKS has shown.
    pub credentials: Option<(String, String)>,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Connect {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Debug, Default)]
pub struct ProxyLog {
    /// Requests for tunnels.
    pub connects: Vec<Connect>,
    /// Connections accepted.
    pub connections: usize,
    /// Connections open now.
    pub open: usize,
}

/// Changes bytes on their way to the client. The argument is the offset of the first one in the tunnel.
type Tamper = dyn Fn(u64, &mut [u8]) + Send + Sync;

struct Shared {
    reply: Box<dyn Fn(&Connect) -> Reply + Send + Sync>,
    tamper: Box<Tamper>,
    address: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    log: ProxyLog,
    /// Second handles of the open sockets, by the number of their connection, to be shut down at the end.
    sockets: Vec<(usize, TcpStream)>,
    threads: Vec<JoinHandle<()>>,
    is_stopping: bool,
}

/// The proxy. Its drop closes all tunnels and ends its threads.
pub struct Proxy {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
    /// Keeps the port until the acceptor has ended.
    _listener: TcpListener,
}

impl Proxy {
    /// Forwards all bytes unchanged.
    pub fn start() -> Self {
        Self::start_as(|_| Reply::Tunnel, |_, _| ())
    }

    pub fn replying(reply: impl Fn(&Connect) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_as(reply, |_, _| ())
    }

    /// Overwrites the bytes of an origin from offset `from` of a tunnel on.
    pub fn rewriting(from: u64) -> Self {
        Self::start_as(
            |_| Reply::Tunnel,
            move |offset, bytes| {
                let own = from.saturating_sub(offset).min(bytes.len() as u64) as usize;
                bytes[own..].fill(b'!');
            },
        )
    }

    fn start_as(
        reply: impl Fn(&Connect) -> Reply + Send + Sync + 'static,
        tamper: impl Fn(u64, &mut [u8]) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let shared = Arc::new(Shared {
            reply: Box::new(reply),
            tamper: Box::new(tamper),
            address: listener.local_addr().expect("a bound socket has an address"),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let accepting = (Arc::clone(&shared), listener.try_clone().expect("a descriptor is left"));
        let acceptor = thread::spawn(move || accepting.0.accept(&accepting.1));
        Self { shared, acceptor: Some(acceptor), _listener: listener }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// The same proxy by SOCKS. It asks for user and password if the client has them.
    pub fn socks_url(&self) -> String {
        format!("socks5://{}", self.shared.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    pub fn log(&self) -> ProxyLog {
        self.shared.lock().log.clone()
    }

    /// Blocks until `wanted` holds for the log. Panics with the log when `PATIENCE` is over.
    pub fn wait_until(&self, what: &str, wanted: impl FnMut(&ProxyLog) -> bool) {
        super::wait_until(self.shared.lock(), &self.shared.changed, |state| &state.log, what, wanted);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let sockets = {
            let mut state = self.shared.lock();
            state.is_stopping = true;
            std::mem::take(&mut state.sockets)
        };
        for (_, socket) in sockets {
            // Fails if it is closed already, which is the aim.
            drop(socket.shutdown(Shutdown::Both));
        }
        // Wakes the acceptor.
        drop(TcpStream::connect(self.shared.address));
        if let Some(acceptor) = self.acceptor.take() {
            drop(acceptor.join());
        }
        let threads = std::mem::take(&mut self.shared.lock().threads);
        for thread in threads {
            drop(thread.join());
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for socket in listener.incoming() {
            let Ok(socket) = socket else { continue };
            let mut state = self.lock();
            if state.is_stopping {
                return;
            }
            let connection = state.log.connections;
            state.log.connections += 1;
            state.log.open += 1;
            state.sockets.push((connection, socket.try_clone().expect("a descriptor is left")));
            self.changed.notify_all();
            let shared = Arc::clone(self);
            let thread = thread::spawn(move || {
                // Fails if the client closes its connection, which it may do.
                drop(shared.serve(connection, &socket));
                // The second handle keeps the socket open.
                drop(socket.shutdown(Shutdown::Both));
                let mut state = shared.lock();
                state.log.open -= 1;
                state.sockets.retain(|(of, _)| *of != connection);
                drop(state);
                shared.changed.notify_all();
            });
            state.threads.retain(|thread| !thread.is_finished());
            state.threads.push(thread);
        }
    }

    fn serve(self: &Arc<Self>, connection: usize, mut client: &TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut first = [0];
        let (connect, opened) = match client.peek(&mut first)? {
            0 => return Ok(()),
            _ if first == [5] => (read_socks(client)?, [&[5, 0, 0, 1][..], &[0; 6]].concat()),
            _ => {
                let Some(connect) = read_connect(client)? else { return Ok(()) };
                (connect, b"HTTP/1.1 200 Connection established\r\n\r\n".to_vec())
            }
        };
        {
            let mut state = self.lock();
            state.log.connects.push(connect.clone());
            self.changed.notify_all();
        }
        let answer = match (self.reply)(&connect) {
            Reply::Tunnel => opened,
            Reply::TunnelWith(answer) => answer,
            Reply::Refuse(answer) => return client.write_all(&answer),
            Reply::Silent(answer) => {
                client.write_all(&answer)?;
                // Ends when the client closes its connection, or the proxy is dropped.
                return io::copy(&mut client, &mut io::sink()).map(drop);
            }
        };
        let origin = TcpStream::connect(&connect.target)?;
        origin.set_nodelay(true)?;
        {
            let mut state = self.lock();
            if state.is_stopping {
                return Ok(());
            }
            state.sockets.push((connection, origin.try_clone()?));
        }
        client.write_all(&answer)?;
        thread::scope(|scope| {
            scope.spawn(|| {
                drop(io::copy(&mut &*client, &mut &origin));
                drop(origin.shutdown(Shutdown::Both));
            });
            drop(self.forward(&origin, client));
            drop(client.shutdown(Shutdown::Both));
        });
        Ok(())
    }

    /// Forwards the bytes of an origin.
    fn forward(&self, mut origin: &TcpStream, mut client: &TcpStream) -> io::Result<()> {
        let (mut buf, mut offset) = (vec![0; 32 * 1024], 0);
        loop {
            let got = origin.read(&mut buf)?;
            if got == 0 {
                return Ok(());
            }
            (self.tamper)(offset, &mut buf[..got]);
            client.write_all(&buf[..got])?;
            offset += got as u64;
        }
    }
}

/// A request for a tunnel. `None` if the client sent nothing. Any other request is an error.
fn read_connect(mut client: &TcpStream) -> io::Result<Option<Connect>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if client.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.split("\r\n");
    let target = lines.next().and_then(|line| line.strip_prefix("CONNECT ")?.strip_suffix(" HTTP/1.1"));
    let Some(target) = target else { return Err(io::ErrorKind::InvalidData.into()) };
    let headers = super::header_fields(lines);
    Ok(Some(Connect { target: target.to_owned(), credentials: None, headers }))
}

/// A request for a tunnel by SOCKS 5 (RFC 1928), up to the answer to it.
fn read_socks(mut client: &TcpStream) -> io::Result<Connect> {
    let [_, methods] = take(client)?;
    let mut offered = vec![0; methods.into()];
    client.read_exact(&mut offered)?;
    let has_credentials = offered.contains(&2);
    client.write_all(&[5, if has_credentials { 2 } else { 0 }])?;
    let mut credentials = None;
    if has_credentials {
        let [_version] = take(client)?;
        credentials = Some((take_text(client)?, take_text(client)?));
        client.write_all(&[1, 0])?;
    }
    let host = match take(client)? {
        [5, 1, 0, 1] => std::net::Ipv4Addr::from(take(client)?).to_string(),
        [5, 1, 0, 3] => take_text(client)?,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let target = format!("{host}:{}", u16::from_be_bytes(take(client)?));
    Ok(Connect { target, credentials, headers: Vec::new() })
}

fn take<const N: usize>(mut client: &TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A text behind a byte with its length.
fn take_text(mut client: &TcpStream) -> io::Result<String> {
    let [len] = take(client)?;
    let mut text = vec![0; len.into()];
    client.read_exact(&mut text)?;
    String::from_utf8(text).map_err(io::Error::other)
}
