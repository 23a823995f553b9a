//! A UDP socket: segmentation offload and ECN by quinn-udp, readiness by mio.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::BytesMut;
use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use quinn_proto::EcnCodepoint;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};

/// Size of a receive buffer in bytes: the largest datagram, or as many as the kernel joins.
const BUFFER: usize = 64 * 1024;

/// Number of receive buffers. Not the 32 that one system call may fill on Linux: these would be 2 MiB for each thread that
/// receives.
const BUFFERS: usize = if BATCH_SIZE < 8 { BATCH_SIZE } else { 8 };

/// Datagrams that share a buffer. As long as one of them is not read, all of them stay in memory.
const GROUP: usize = 8;

/// Most datagrams of one send. Linux takes 64, but no more than the 65,507 bytes of one large datagram: a longer send fails as a
/// whole, which is the loss of all its packets. A client sends requests, which are small.
const MAX_SEGMENTS: usize = 10;

/// Receive buffer of the socket in the kernel, in bytes. It has to hold what arrives while the thread does not run. The kernel
/// gives less if its limit is lower: 208 KiB on Linux by default.
const KERNEL_BUFFER: usize = 2 * 1024 * 1024;

/// A socket that is not bound to an interface: when the address of this machine changes, the kernel sends from the new one.
#[derive(Debug)]
pub(super) struct Socket {
    io: UdpSocket,
    sender: Arc<PacketSender>,
    /// Where the thread polls it.
    home: Option<(Arc<Registry>, Token)>,
    /// Where it is polled now: by the thread, or by a caller that waits.
    polled_at: Option<(Arc<Registry>, Token)>,
    /// A send has found the kernel's buffer full.
    is_full: bool,
}

/// Sends the packets of a socket, also without the lock of its connection.
#[derive(Debug)]
pub(super) struct PacketSender {
    /// A copy of the socket's descriptor, which is never polled.
    io: std::net::UdpSocket,
    state: UdpSocketState,
}

impl PacketSender {
    /// Sends datagrams. Fails with [`io::ErrorKind::WouldBlock`] if the socket's buffer is full.
    pub(super) fn send(&self, transmit: &quinn_proto::Transmit, contents: &[u8]) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: &contents[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        self.state.try_send((&self.io).into(), &transmit)
    }
}

/// A datagram, or several of the same size that the kernel has joined.
pub(super) struct Received<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: Option<IpAddr>,
    pub(super) ecn: Option<EcnCodepoint>,
    bytes: &'a [u8],
    stride: usize,
}

/// Buffers for datagrams. One serves all sockets of a thread.
pub(crate) struct Buffers {
    bytes: Vec<u8>,
    metas: [RecvMeta; BUFFERS],
}

impl Socket {
    /// A socket for packets to addresses of the family of `remote`.
    pub(super) fn bind(remote: SocketAddr) -> io::Result<Self> {
        let any = match remote {
            SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        let socket = std::net::UdpSocket::bind(any)?;
        socket.set_nonblocking(true)?;
        let io = UdpSocket::from_std(socket.try_clone()?);
        let sender = PacketSender { state: UdpSocketState::new((&socket).into())?, io: socket };
        // A small buffer loses packets under load, which QUIC repairs.
        drop(sender.state.set_recv_buffer_size((&sender.io).into(), KERNEL_BUFFER));
        let sender = Arc::new(sender);
        Ok(Self { io, sender, home: None, polled_at: None, is_full: false })
    }

    /// True if the system may split packets that are too large, because that can't be turned off.
    pub(super) fn may_fragment(&self) -> bool {
        self.sender.state.may_fragment()
    }

    /// Lets the thread poll it at `registry`.
    pub(super) fn register(&mut self, registry: &Arc<Registry>, token: Token) -> io::Result<()> {
        self.home = Some((Arc::clone(registry), token));
        self.poll_at(Arc::clone(registry), token)
    }

    /// Lets a caller poll it at `registry`, and no longer the thread.
    pub(super) fn take_from_thread(&mut self, registry: &Arc<Registry>) -> io::Result<()> {
        self.poll_at(Arc::clone(registry), Token(0))
    }

    /// Lets the thread poll it again. What has arrived since wakes the thread.
    pub(super) fn give_back(&mut self) -> io::Result<()> {
        let Some((registry, token)) = self.home.clone() else { return Ok(()) };
        self.poll_at(registry, token)
    }

    fn poll_at(&mut self, registry: Arc<Registry>, token: Token) -> io::Result<()> {
        self.deregister()?;
        registry.register(&mut self.io, token, interest(self.is_full))?;
        self.polled_at = Some((registry, token));
        Ok(())
    }

    pub(super) fn deregister(&mut self) -> io::Result<()> {
        self.polled_at.take().map_or(Ok(()), |(registry, _)| registry.deregister(&mut self.io))
    }

    /// Records whether the kernel's buffer is full.
    fn set_full(&mut self, is_full: bool) -> io::Result<()> {
        if std::mem::replace(&mut self.is_full, is_full) == is_full {
            return Ok(());
        }
        let Some((registry, token)) = &self.polled_at else { return Ok(()) };
        // Only while it is full: else each packet that leaves the buffer would wake the thread.
        registry.reregister(&mut self.io, *token, interest(is_full))
    }

    pub(super) fn sender(&self) -> &Arc<PacketSender> {
        &self.sender
    }

    /// Number of datagrams that one send may carry.
    pub(super) fn max_datagrams(&self) -> usize {
        self.sender.state.max_gso_segments().min(MAX_SEGMENTS)
    }

    /// Sends datagrams. Fails with [`io::ErrorKind::WouldBlock`] if the socket's buffer is full.
    pub(super) fn send(&mut self, transmit: &quinn_proto::Transmit, contents: &[u8]) -> io::Result<()> {
        let sent = self.io.try_io(|| self.sender.send(transmit, contents));
        self.set_full(matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock))?;
        sent
    }

    /// Receives datagrams, and passes them to `handle`. True if more may be there. Fails with [`io::ErrorKind::WouldBlock`] if
    /// there are none.
    pub(super) fn receive(
        &self,
        buffers: &mut Buffers,
        mut handle: impl FnMut(Received<'_>),
    ) -> io::Result<bool> {
        let Buffers { bytes, metas } = buffers;
        let mut rest = bytes.chunks_mut(BUFFER);
        let mut slices: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(rest.next().unwrap_or_default()));
        let count = self.io.try_io(|| self.sender.state.recv((&self.io).into(), &mut slices, metas))?;
        for (meta, slice) in metas.iter().zip(&slices).take(count) {
            handle(Received {
                from: meta.addr,
                to: meta.dst_ip,
                ecn: meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
                bytes: &slice[..meta.len],
                stride: meta.stride.max(1),
            });
        }
        // Fewer than fit: the system call has found the socket empty, and what comes later wakes the thread again.
        Ok(count == BUFFERS)
    }
}

fn interest(is_full: bool) -> Interest {
    if is_full { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE }
}

impl Received<'_> {
    /// The datagrams, in buffers that some of them share.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = BytesMut> {
        let (stride, mut shared) = (self.stride, BytesMut::new());
        // An allocation for each datagram would cost as much as to decrypt it.
        let mut groups = self.bytes.chunks(stride * GROUP);
        std::iter::from_fn(move || {
            if shared.is_empty() {
                shared = BytesMut::from(groups.next()?);
            }
            Some(shared.split_to(stride.min(shared.len())))
        })
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self { bytes: vec![0; BUFFERS * BUFFER], metas: [RecvMeta::default(); BUFFERS] }
    }
}
