//! A UDP socket: segmentation offload and ECN by quinn-udp, readiness by mio.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use quinn_proto::EcnCodepoint;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};

/// Size of a receive buffer in bytes: the largest datagram, or as many as the kernel joins.
const BUFFER: usize = 64 * 1024;

/// Number of receive buffers.
const BUFFERS: usize = if BATCH_SIZE < 8 { BATCH_SIZE } else { 8 };

/// Receive buffer of the socket in the kernel, in bytes. It has to hold what arrives while the thread does not run. The kernel
/// gives less if its limit is lower: 208 KiB on Linux by default.
const KERNEL_BUFFER: usize = 2 * 1024 * 1024;

/// A socket that is not bound to an interface: when the address of this machine changes, the kernel sends from the new one.
#[derive(Debug)]
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
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
pub(super) struct Buffers {
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
        let io = UdpSocket::bind(any)?;
        let state = UdpSocketState::new((&io).into())?;
        // A small buffer loses packets under load, which QUIC repairs.
        drop(state.set_recv_buffer_size((&io).into(), KERNEL_BUFFER));
        Ok(Self { io, state })
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        registry.register(&mut self.io, token, Interest::READABLE | Interest::WRITABLE)
    }

    pub(super) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.io)
    }

    /// Number of datagrams that one send may carry.
    pub(super) fn max_datagrams(&self) -> usize {
        self.state.max_gso_segments()
    }

    /// Sends datagrams. Fails with [`io::ErrorKind::WouldBlock`] if the socket's buffer is full.
    pub(super) fn send(&self, transmit: &quinn_proto::Transmit, contents: &[u8]) -> io::Result<()> {
        let transmit = quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: &contents[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        };
        self.io.try_io(|| self.state.try_send((&self.io).into(), &transmit))
    }

    /// Receives datagrams, and passes them to `handle`. Fails with [`io::ErrorKind::WouldBlock`] if there are none.
    pub(super) fn receive(
        &self,
        buffers: &mut Buffers,
        mut handle: impl FnMut(Received<'_>),
    ) -> io::Result<()> {
        let Buffers { bytes, metas } = buffers;
        let mut rest = bytes.chunks_mut(BUFFER);
        let mut slices: [IoSliceMut<'_>; BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(rest.next().unwrap_or_default()));
        let count = self.io.try_io(|| self.state.recv((&self.io).into(), &mut slices, metas))?;
        for (meta, slice) in metas.iter().zip(&slices).take(count) {
            handle(Received {
                from: meta.addr,
                to: meta.dst_ip,
                ecn: meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8)),
                bytes: &slice[..meta.len],
                stride: meta.stride.max(1),
            });
        }
        Ok(())
    }
}

impl Received<'_> {
    pub(super) fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(self.stride)
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self { bytes: vec![0; BUFFERS * BUFFER], metas: [RecvMeta::default(); BUFFERS] }
    }
}
