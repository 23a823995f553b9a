//! Builds a client from its configuration.

use std::sync::Arc;

use parking_lot::Mutex;
use ureq::Agent;
use ureq::http::{HeaderMap, HeaderValue, header};

use super::h1::agent::Http1;
use super::h1::head;
#[cfg(feature = "http3")]
use super::h3;
use super::header_fields::parse_headers;
use super::net::dial::Dialer;
use super::net::dns::Lookups;
use super::pool::ConnectionPool;
use super::pool::origin_pool::Limits;
use super::proxy::Proxy;
use super::sender::Sender;
use super::stats::Counters;
use super::tls::Tls;
#[cfg(feature = "http3")]
use crate::config::Http3;
use crate::config::{Auth, ClientConfig, DEFAULT_USER_AGENT};
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;
use crate::safe_url::HttpUrl;

/// Largest response head over HTTP/1.1, whatever `max_head` says: each connection has a buffer for it.
const LARGEST_HEAD: usize = 1 << 20;

/// Builds the sender. Starts no thread and opens no connection.
pub(super) fn sender(config: &ClientConfig) -> Result<Sender, Error> {
    let user_agent = user_agent(&config.user_agent)?;
    let counters = Arc::new(Counters::default());
    let lookups = Lookups::new(config.resolve_cache, config.resolve_timeout);
    let proxy = Proxy::new(config)?;
    let tls = Arc::new(Tls::new(config)?);
    // Never through a proxy: it forwards TCP only.
    #[cfg(feature = "http3")]
    let policy = http3_policy(config)?.filter(|_| proxy.is_none());
    let dialer = Dialer {
        lookups: Arc::clone(&lookups),
        counters: Arc::clone(&counters),
        connect_timeout: config.connect_timeout,
        proxy,
        tls: Arc::clone(&tls),
    };
    let options = agent_config(config);
    let pool = ConnectionPool::new(dialer, options.clone(), limits(config));
    let http1 = Http1::new(options, config.silence_timeout, &pool);
    let (headers, auth) = (default_headers(config, user_agent)?, authorizations(config)?);
    #[cfg(feature = "http3")]
    let http3 = policy.map(|policy| {
        let (lookups, pool, counters) = (Arc::clone(&lookups), Arc::clone(&pool), Arc::clone(&counters));
        Arc::new(h3::Http3::new(
            policy,
            config.early_data,
            http3_limits(config),
            tls,
            lookups,
            pool,
            counters,
        ))
    });
    Ok(Sender {
        http1,
        #[cfg(feature = "http3")]
        http3,
        pool,
        lookups,
        counters,
        alarms: Arc::default(),
        hedge_budget: Mutex::default(),
        headers,
        auth,
        cookies: config.cookies.clone(),
    })
}

fn limits(config: &ClientConfig) -> Limits {
    Limits { per_origin: config.max_idle_per_origin, over_all: config.max_idle, max_age: config.max_idle_age }
}

fn user_agent(name: &str) -> Result<HeaderValue, Error> {
    // Each request clones it. The clone of a static value changes no reference count, which the threads would share.
    if name == DEFAULT_USER_AGENT {
        return Ok(HeaderValue::from_static(DEFAULT_USER_AGENT));
    }
    HeaderValue::from_str(name).map_err(|_| {
        let why = "ClientConfig::user_agent has characters that HTTP does not allow";
        Error::new(ErrorKind::InvalidConfig, why)
    })
}

/// Header fields of every request. `Host` has no value.
fn default_headers(config: &ClientConfig, user_agent: HeaderValue) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    // RFC 9110, section 7.2: `Host` should come first. Each request sets its value in this place.
    headers.insert(header::HOST, HeaderValue::from_static(""));
    // Positions in an encoded body are not positions in the resource.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    // ureq would add these two itself, and `Host`, and build their values again for every request.
    headers.insert(header::USER_AGENT, user_agent);
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    // Configured fields replace the defaults of the same name.
    headers.extend(parse_headers("ClientConfig::default_headers", &config.default_headers)?);
    Ok(headers)
}

fn agent_config(config: &ClientConfig) -> ureq::config::Config {
    Agent::config_builder()
        // The opener handles statuses and redirects, because secrets must not follow a redirect to another origin.
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // The dialer opens tunnels itself. Without this ureq would read the environment.
        .proxy(None)
        .timeout_per_read(Some(config.silence_timeout))
        // A head that arrives one byte at a time never reaches the limit on a single read.
        .timeout_recv_response(Some(head::limit(config.silence_timeout)))
        .timeout_per_write(Some(config.silence_timeout))
        .timeout_connect(Some(config.resolve_timeout + config.connect_timeout))
        .max_response_header_size(config.max_head)
        // The head has to fit in. At least four TLS records of 16 KiB.
        .input_buffer_size(config.max_head.clamp(64 * 1024, LARGEST_HEAD))
        // Requests have no body, so this only has to hold a request head.
        .output_buffer_size(16 * 1024)
        // Idle connections are kept in our pool, not in ureq's.
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        .build()
}

fn authorizations(config: &ClientConfig) -> Result<Vec<(Origin, HeaderValue)>, Error> {
    let authorize = |(origin, auth): &(String, Auth)| {
        let wrong = |why: &str| Error::new(ErrorKind::InvalidConfig, format!("ClientConfig::auth {why}"));
        let url = HttpUrl::parse(origin)
            .map_err(|cause| wrong("has an entry without a valid origin").with_cause(cause))?;
        let value = auth.header().ok_or_else(|| wrong("has characters that HTTP does not allow"))?;
        Ok((url.origin().clone(), value))
    };
    config.auth.iter().map(authorize).collect()
}

#[cfg(feature = "http3")]
fn http3_limits(config: &ClientConfig) -> h3::Limits {
    h3::Limits {
        connect: config.connect_timeout,
        silence: config.silence_timeout,
        idle: config.max_idle_age,
        max_idle: config.max_idle,
        max_head: config.max_head,
    }
}

/// Which origins are requested over HTTP/3. `None` for none.
#[cfg(feature = "http3")]
fn http3_policy(config: &ClientConfig) -> Result<Option<h3::Policy>, Error> {
    let origin = |text: &String| {
        let wrong = |why: &str| Error::new(ErrorKind::InvalidConfig, format!("ClientConfig::http3 {why}"));
        let url = HttpUrl::parse(text)
            .map_err(|cause| wrong("has an entry without a valid origin").with_cause(cause))?;
        // An origin of `http` stands for a TCP port (RFC 9114, section 3.1.2).
        let origin = Some(url.origin().clone()).filter(|origin| origin.is_tls);
        origin.ok_or_else(|| wrong("has an origin that is not https"))
    };
    Ok(match &config.http3 {
        Http3::Off => None,
        Http3::Advertised => Some(h3::Policy::Advertised),
        Http3::Always(origins) => {
            Some(h3::Policy::Always(origins.iter().map(origin).collect::<Result<_, _>>()?))
        }
    })
}
