//! A tunnel through a proxy.

use ureq::unversioned::transport::{Buffers, NextTimeout, Transport};

use crate::client::h1::transport::Carrier;

/// The connection to a proxy once the proxy has opened the tunnel. It owns that connection, so no other code can read its bytes.
#[derive(Debug)]
pub(crate) struct Tunnel<T>(T);

impl<T: Carrier> Tunnel<T> {
    /// `carrier` leads to the proxy, whose whole answer has been read from it.
    pub(super) fn new(carrier: T) -> Self {
        Self(carrier)
    }
}

impl<T: Carrier> Carrier for Tunnel<T> {
    fn take_arrived(&mut self) -> bool {
        self.0.take_arrived()
    }
}

impl<T: Carrier> Transport for Tunnel<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.0.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    /// What matters is TLS to the origin, not TLS to the proxy.
    fn is_tls(&self) -> bool {
        false
    }
}
