//! `Http3`: which origins are requested over HTTP/3.

/// Which origins are requested over HTTP/3. Needs the feature `http3`. [Its guide](crate::guide::http3) says when TCP is used all
/// the same.
///
/// Requests to an `http` URL, and all requests of a client with a proxy, use TCP.
///
/// ```
/// use windway::ClientConfig;
/// use windway::config::Http3;
///
/// let config = ClientConfig::new().http3(Http3::Always(vec!["https://media.example.com".into()]));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Http3 {
    /// None: all requests use TCP.
    #[default]
    Off,
    /// Those that advertise it in an `Alt-Svc` field (RFC 7838), from the second request on. Origins with private addresses
    /// use TCP: on a fast local network it is faster.
    Advertised,
    /// Those that advertise it, and these origins at once, also with private addresses. An origin that does not answer over
    /// QUIC in time is requested over TCP.
    Always(Vec<String>),
}
