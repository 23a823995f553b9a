//! A UDP relay between clients and a server: it can drop packets, go silent, and show the server other addresses of the clients.
//! Each connection of windway has a socket of its own, and is a client here.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;

/// The relay. Clients connect to its address.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// Refuses connections over TCP.
    _tcp: Socket,
}

struct Shared {
    server: SocketAddr,
    /// Faces the clients.
    inner: Arc<UdpSocket>,
    /// Faces the server, one for each client. Replaced by a change of address.
    outer: Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>,
    is_silent: AtomicBool,
    /// Clients whose connections the server has forgotten.
    forgotten: Mutex<HashSet<SocketAddr>>,
    /// Packets of the client that were dropped while the relay was silent.
    unheard: Mutex<u64>,
    /// Notified when that changes.
    dropped: Condvar,
    /// Packets of each thousand that are dropped.
    loss: AtomicU64,
    /// Packets of each thousand that arrive twice, and those that arrive behind the next one.
    disorder: AtomicU64,
    random: AtomicU64,
    stopping: AtomicBool,
    /// Packets that arrive later, in order.
    delayed: Option<mpsc::Sender<Delayed>>,
    delay: Duration,
}

struct Delayed {
    due: Instant,
    socket: Arc<UdpSocket>,
    bytes: Vec<u8>,
    to: SocketAddr,
}

impl Relay {
    pub fn start(server: SocketAddr) -> Self {
        Self::start_with_rtt(server, Duration::ZERO)
    }

    /// A relay that delays each packet by half of `rtt`.
    pub fn start_with_rtt(server: SocketAddr, rtt: Duration) -> Self {
        let (inner, tcp) = super::bind();
        let inner = Arc::new(inner);
        let address = inner.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            server,
            inner,
            outer: Mutex::default(),
            is_silent: AtomicBool::new(false),
            forgotten: Mutex::default(),
            unheard: Mutex::default(),
            dropped: Condvar::new(),
            loss: AtomicU64::new(0),
            disorder: AtomicU64::new(0),
            random: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
            stopping: AtomicBool::new(false),
            delayed: (!rtt.is_zero()).then(begin_delay),
            delay: rtt / 2,
        });
        let up = Arc::clone(&shared);
        thread::spawn(move || up.pass_up());
        Self { address, shared, _tcp: tcp }
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// From now on the server sees other addresses of the clients.
    pub fn change_address(&self) {
        let mut outer = self.shared.outer.lock().expect("no panic");
        for (client, socket) in outer.iter_mut() {
            let old = std::mem::replace(socket, self.shared.begin_down(*client));
            // Ends its thread.
            let _ = old.send_to(&[], old.local_addr().expect("bound"));
        }
    }

    /// From now on, a packet of a client of that moment gets an answer that the client can't verify: RFC 9000, section 10.3.3, a
    /// stateless reset of a server that has begun again, with another key. The server itself sees only new clients.
    pub fn forget_connections(&self) {
        let outer = self.shared.outer.lock().expect("no panic");
        self.shared.forgotten.lock().expect("no panic").extend(outer.keys());
    }

    /// Passes nothing on from now on, or again.
    pub fn set_silent(&self, is_silent: bool) {
        self.shared.is_silent.store(is_silent, Ordering::Release);
    }

    /// Blocks until so many packets of the client were dropped because the relay was silent.
    pub fn await_unheard(&self, packets: u64) {
        let mut unheard = self.shared.unheard.lock().expect("no panic");
        while *unheard < packets {
            unheard = self.shared.dropped.wait(unheard).expect("no panic");
        }
    }

    /// Drops so many packets of each thousand, at random.
    pub fn set_loss(&self, per_mille: u64) {
        self.shared.loss.store(per_mille, Ordering::Release);
    }

    /// Of each thousand packets passes so many on twice, and as many behind the next one, at random.
    pub fn set_disorder(&self, per_mille: u64) {
        self.shared.disorder.store(per_mille, Ordering::Release);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        // The threads wake, see that, and end.
        for socket in self.shared.outer.lock().expect("no panic").values().chain([&self.shared.inner]) {
            let _ = socket.send_to(&[], socket.local_addr().expect("bound"));
        }
    }
}

/// Starts the thread that sends delayed packets. It ends with the relay.
fn begin_delay() -> mpsc::Sender<Delayed> {
    let (sender, packets) = mpsc::channel::<Delayed>();
    thread::spawn(move || {
        for Delayed { due, socket, bytes, to } in packets {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let _ = socket.send_to(&bytes, to);
        }
    });
    sender
}

impl Shared {
    /// A number below 1,000.
    fn roll(&self) -> u64 {
        // An LCG: the same sequence in each run.
        let step = |state: u64| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        let random =
            self.random.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).expect("always a step");
        (random >> 33) % 1000
    }

    fn drops(&self) -> bool {
        self.roll() < self.loss.load(Ordering::Acquire) || self.is_silent.load(Ordering::Acquire)
    }

    /// Passes a packet on, mostly. `late` is the one that the next one overtakes.
    fn pass(&self, socket: &Arc<UdpSocket>, bytes: &[u8], to: SocketAddr, late: &mut Option<Vec<u8>>) {
        if self.drops() {
            return;
        }
        let (disorder, roll) = (self.disorder.load(Ordering::Acquire), self.roll());
        if roll < disorder && late.is_none() {
            *late = Some(bytes.to_vec());
            return;
        }
        self.send(socket, bytes, to);
        if roll >= 1000 - disorder {
            self.send(socket, bytes, to);
        }
        if let Some(late) = late.take() {
            self.send(socket, &late, to);
        }
    }

    /// Sends a packet, now or later. An error is a lost packet.
    fn send(&self, socket: &Arc<UdpSocket>, bytes: &[u8], to: SocketAddr) {
        let Some(delayed) = &self.delayed else {
            let _ = socket.send_to(bytes, to);
            return;
        };
        let (due, socket, bytes) = (Instant::now() + self.delay, Arc::clone(socket), bytes.to_vec());
        let _ = delayed.send(Delayed { due, socket, bytes, to });
    }

    fn pass_up(self: &Arc<Self>) {
        let (mut buf, mut late) = (vec![0; 65536], None);
        while let Ok((len, from)) = self.inner.recv_from(&mut buf) {
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            if self.forgotten.lock().expect("no panic").contains(&from) {
                // The form of a stateless reset: the header of a packet without a known key, and bytes that look random.
                let reset: Vec<u8> = (0..43).map(|at| if at == 0 { 0x40 } else { 0x5a ^ at }).collect();
                self.send(&self.inner, &reset, from);
                continue;
            }
            if len > 0 && self.is_silent.load(Ordering::Acquire) {
                *self.unheard.lock().expect("no panic") += 1;
                self.dropped.notify_all();
            }
            if len > 0 {
                let begin = || self.begin_down(from);
                let outer =
                    Arc::clone(self.outer.lock().expect("no panic").entry(from).or_insert_with(begin));
                self.pass(&outer, &buf[..len], self.server, &mut late);
            }
        }
    }

    /// A socket that faces the server for `client`, and its thread.
    fn begin_down(self: &Arc<Self>, client: SocketAddr) -> Arc<UdpSocket> {
        let (shared, outer) = (Arc::clone(self), bind());
        let own = Arc::clone(&outer);
        thread::spawn(move || {
            let (mut buf, mut late) = (vec![0; 65536], None);
            while let Ok((len, _)) = own.recv_from(&mut buf) {
                let is_current = shared
                    .outer
                    .lock()
                    .expect("no panic")
                    .get(&client)
                    .is_some_and(|now| Arc::ptr_eq(now, &own));
                if shared.stopping.load(Ordering::Acquire) || !is_current {
                    return;
                }
                if shared.forgotten.lock().expect("no panic").contains(&client) {
                    continue;
                }
                if len > 0 {
                    shared.pass(&shared.inner, &buf[..len], client, &mut late);
                }
            }
        });
        outer
    }
}

fn bind() -> Arc<UdpSocket> {
    Arc::new(UdpSocket::bind("127.0.0.1:0").expect("a port on loopback"))
}
