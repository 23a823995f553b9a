//! Name resolution, connects and sockets: everything before the first byte is sent.

pub(crate) mod dial;
pub(crate) mod dns;
pub(crate) mod happy_eyeballs;
pub(crate) mod private;
pub(crate) mod socket;
