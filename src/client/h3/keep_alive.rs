//! Keeps the connection to an origin alive, though it carries no request.

use std::fmt;
use std::sync::Arc;

use super::Http3;
use crate::origin::Origin;

/// The connection to this origin is kept alive until the drop of the last of these.
pub(crate) struct KeepAlive {
    http3: Arc<Http3>,
    origin: Origin,
}

impl KeepAlive {
    /// Keeps the connection to `origin` alive, if there is one, and those that take its place.
    pub(crate) fn new(http3: &Arc<Http3>, origin: &Origin) -> Self {
        let connection = {
            let mut state = http3.state.lock();
            *state.kept_alive.entry(origin.clone()).or_default() += 1;
            state.connections.get(origin).map(|known| Arc::clone(&known.connection))
        };
        if let Some(connection) = connection {
            connection.keep_alive(true);
        }
        Self { http3: Arc::clone(http3), origin: origin.clone() }
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        let connection = {
            let mut state = self.http3.state.lock();
            let Some(count) = state.kept_alive.get_mut(&self.origin) else { return };
            *count -= 1;
            if *count > 0 {
                return;
            }
            state.kept_alive.remove(&self.origin);
            state.connections.get(&self.origin).map(|known| Arc::clone(&known.connection))
        };
        if let Some(connection) = connection {
            connection.keep_alive(false);
        }
    }
}

impl fmt::Debug for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeepAlive").field("origin", &self.origin).finish()
    }
}
