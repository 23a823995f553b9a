//! What a client is made of, from its configuration.

use std::sync::Arc;

use ureq::Agent;
use ureq::http::{HeaderMap, HeaderValue, header};

use super::h1::connector::{Connect, NoAddresses};
use super::h1::proxy::HttpProxy;
use super::net::dial::Dialer;
use super::net::dns::Lookups;
use super::pool::ConnectionPool;
use super::pool::idle::Limits;
use super::request::parse_headers;
use super::sender::{HEAD_PATIENCE, Sender};
use super::stats::Counters;
use super::tls::Tls;
use crate::config::{Auth, ClientConfig};
use crate::error::{Error, ErrorKind};
use crate::origin::Origin;
use crate::safe_url::HttpUrl;

/// Starts no thread and opens nothing.
pub(super) fn sender(config: &ClientConfig) -> Result<Sender, Error> {
    let user_agent = HeaderValue::from_str(&config.user_agent).map_err(|_| {
        let why = "ClientConfig::user_agent has characters that HTTP does not allow";
        Error::new(ErrorKind::InvalidConfig, why)
    })?;
    let counters = Arc::new(Counters::default());
    let lookups = Lookups::new(config.resolve_cache, config.resolve_timeout);
    let proxy = proxy(config)?;
    let dialer = Dialer {
        lookups: Arc::clone(&lookups),
        counters: Arc::clone(&counters),
        connect_timeout: config.connect_timeout,
        proxy: proxy.as_ref().map(|proxy| HttpProxy::new(proxy, &config.user_agent)),
        tls: Tls::new(&config.extra_roots)?,
    };
    let limits = Limits {
        per_origin: config.max_idle_per_origin,
        over_all: config.max_idle,
        max_age: config.max_idle_age,
    };
    let options = agent_config(config, proxy);
    let pool = ConnectionPool::new(dialer, options.clone(), limits);
    let agent = Agent::with_parts(options, Connect(Arc::clone(&pool)), NoAddresses);
    let (headers, auth) = (default_headers(config, user_agent)?, authorizations(config)?);
    Ok(Sender { agent, pool, lookups, counters, alarms: Arc::default(), headers, auth })
}

/// What goes with every request. All that ureq would add by itself is here: it would make each value anew.
fn default_headers(config: &ClientConfig, user_agent: HeaderValue) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    // The offsets of an encoded body mean nothing.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(header::USER_AGENT, user_agent);
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    // Those of a configuration replace ours: each of its names takes the place of the same name here.
    headers.extend(parse_headers("ClientConfig::default_headers", &config.default_headers)?);
    Ok(headers)
}

fn agent_config(config: &ClientConfig, proxy: Option<ureq::Proxy>) -> ureq::config::Config {
    Agent::config_builder()
        // Statuses and redirects are judged by the opener: secrets must not follow a redirect to another origin.
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // With one set, ureq looks no origin's name up. The tunnel is opened here.
        .proxy(proxy)
        .timeout_per_read(Some(config.silence_timeout))
        // A head that comes a byte at a time is no sign of life.
        .timeout_recv_response(Some(config.silence_timeout.saturating_mul(HEAD_PATIENCE)))
        .timeout_per_write(Some(config.silence_timeout))
        .timeout_connect(Some(config.resolve_timeout + config.connect_timeout))
        .max_response_header_size(config.max_head)
        // As large as the largest head by default, which has to fit in; and as a chunk of a TLS record, four times over.
        .input_buffer_size(64 * 1024)
        // Requests have no body: one buffer takes all header fields of all but the strangest requests.
        .output_buffer_size(16 * 1024)
        // What would go into ureq's pool goes into our pool.
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

/// The proxy, if one is set; none is taken from the environment.
fn proxy(config: &ClientConfig) -> Result<Option<ureq::Proxy>, Error> {
    let Some(url) = &config.proxy else { return Ok(None) };
    let wrong = |why: &str| Error::new(ErrorKind::InvalidConfig, format!("ClientConfig::proxy {why}"));
    if !url.starts_with("http://") {
        return Err(wrong("is not an http:// URL"));
    }
    ureq::Proxy::new(url).map(Some).map_err(|cause| wrong("can't be used").with_cause(cause))
}
