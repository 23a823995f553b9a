//! Who fetches next.

/// How urgent something is: a peer beside other peers, a fetch beside the others of its class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Nobody waits for it yet.
    Low,
    /// Somebody waits for it.
    #[default]
    High,
}
