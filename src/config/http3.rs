//! `Http3`: which origins are requested over HTTP/3. `EarlyData`: which requests do not wait for the handshake.

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
    /// QUIC in time, or fails there before its first response, is requested over TCP.
    Always(Vec<String>),
}

/// Which requests are sent before the handshake of a new QUIC connection is complete, if an earlier connection to the server has
/// brought a ticket (0-RTT, RFC 9001, section 4.6). That saves a round trip: the first byte comes after one.
///
/// Whoever records such a request can send it to the server again, as it is, although it can't be read or changed (RFC 8446,
/// section 8). All requests of windway are GETs, which change nothing on a server that follows RFC 9110, section 9.2.1. A repetition
/// may still have an effect: it can be counted, use up a URL or a token that is valid once, or show by its length and its time what
/// was requested. And a key that the server loses later reveals such requests of the past, which it does not do for others (RFC
/// 8446, section 2.3). A server can refuse with status 425 (RFC 8470): the request is then sent again after the handshake.
///
/// The URL, with its query, is sent early in any case.
///
/// ```
/// use windway::ClientConfig;
/// use windway::config::EarlyData;
///
/// // `X-Player: 7` says nothing that an attacker could use.
/// let config = ClientConfig::new().default_headers([("X-Player".into(), "7".into())]).early_data(EarlyData::Headers);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum EarlyData {
    /// Requests without header fields of the program.
    #[default]
    Plain,
    /// Those with header fields of the program as well, except `Authorization` and `Cookie`. windway can't
    /// know which other fields are secret, such as `X-Api-Key`.
    Headers,
    /// All, also with credentials. Only for servers that refuse repetitions (RFC 8446, section 8), or where a repetition of a request
    /// with them does no harm.
    Credentials,
}
