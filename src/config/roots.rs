//! `Roots`: trusted certificate authorities.

/// Which certificate authorities are trusted, beside [`ClientConfig::extra_roots`](crate::ClientConfig::extra_roots).
///
/// ```
/// use windway::ClientConfig;
/// use windway::config::Roots;
///
/// // A server at home: its certificate, and no other.
/// let pem = b"-----BEGIN CERTIFICATE-----..".to_vec();
/// let client = ClientConfig::new().roots(Roots::ExtraOnly).extra_roots([pem]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Roots {
    /// Mozilla's, which are part of the program: the same on every system.
    #[default]
    BuiltIn,
    /// Those of the operating system, which also checks the certificates by its own rules. They include what a company or a
    /// user has added. On Android the application has to initialise the crate `rustls-platform-verifier` first. Needs the
    /// feature `platform-roots`.
    #[cfg(feature = "platform-roots")]
    Platform,
    /// None: only `extra_roots`, which must not be empty. This pins the servers to them.
    ExtraOnly,
}
