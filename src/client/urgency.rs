//! Whether a reader is blocked on what a request brings.

/// Whether a reader is blocked on the requested bytes. This changes while the request runs.
pub(crate) trait Urgency: Send + Sync {
    fn is_urgent(&self) -> bool;
}
