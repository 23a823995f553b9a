//! Names, addresses and sockets: what comes before the first byte.

pub(crate) mod dial;
pub(crate) mod dns;
pub(crate) mod happy_eyeballs;
pub(crate) mod socket;
