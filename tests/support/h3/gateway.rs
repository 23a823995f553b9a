//! HTTP/3 in front of a scripted origin that speaks HTTP/1.1 over TCP. Each request gets a connection of its own to the origin,
//! and what that does wrong becomes the same fault of a stream.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::server::{Gone, Options, Reply, Request, Server};
use super::{data, head};

/// H3_INTERNAL_ERROR (RFC 9114, section 8.1).
const INTERNAL_ERROR: u32 = 0x102;

/// The gateway. Its drop closes it.
pub struct Gateway(pub Server);

impl Gateway {
    pub fn start(origin: SocketAddr) -> Self {
        Self::start_with(Options::default(), origin)
    }

    pub fn start_with(options: Options, origin: SocketAddr) -> Self {
        Self(Server::start_with(options, move |request, reply| {
            // The client may be gone, which is no concern of the gateway.
            let _ = match pass_on(origin, &request, &reply) {
                Err(Broken::Origin) => reply.reset(INTERNAL_ERROR),
                // Not a reset, which would take back the bytes that the client has not read yet.
                Err(Broken::Body) => reply.finish(),
                Ok(()) | Err(Broken::Client) => Ok(()),
            };
        }))
    }

    pub fn url(&self, path: &str) -> String {
        self.0.url(path)
    }
}

enum Broken {
    Origin,
    /// The origin ended a body before its Content-Length.
    Body,
    Client,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Origin
    }
}

impl From<Gone> for Broken {
    fn from(_: Gone) -> Self {
        Self::Client
    }
}

fn pass_on(origin: SocketAddr, request: &Request, reply: &Reply) -> Result<(), Broken> {
    let mut socket = TcpStream::connect(origin)?;
    let other = socket.try_clone()?;
    reply.on_stop(move || drop(other.shutdown(Shutdown::Both)));
    let authority = request.field(":authority").unwrap_or_default();
    let mut sent = format!("GET {} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n", request.path());
    for (name, value) in request.fields.iter().filter(|(name, _)| !name.starts_with(':')) {
        sent += &format!("{name}: {value}\r\n");
    }
    socket.write_all((sent + "\r\n").as_bytes())?;
    let mut input = BufReader::new(socket);
    loop {
        let (status, fields) = read_head(&mut input)?;
        let status = status.to_string();
        let passed = fields.iter().filter(|(name, _)| {
            !matches!(
                &name[..],
                "connection" | "keep-alive" | "transfer-encoding" | "upgrade" | "proxy-connection"
            )
        });
        let passed = passed.map(|(name, value)| (name.as_str(), value.as_str()));
        let all: Vec<(&str, &str)> = std::iter::once((":status", status.as_str())).chain(passed).collect();
        reply.send(head(&all))?;
        if !status.starts_with('1') {
            return pass_body(&mut input, &fields, reply);
        }
    }
}

/// Status and fields, names in lower case.
fn read_head(input: &mut impl BufRead) -> Result<(u16, Vec<(String, String)>), Broken> {
    let line = read_line(input)?;
    // A status that no response may have, where the origin does not speak HTTP.
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok()).unwrap_or(999);
    let mut fields: Vec<(String, String)> = Vec::new();
    loop {
        let line = read_line(input)?;
        if line.is_empty() {
            return Ok((status, fields));
        }
        match (line.split_once(':'), fields.last_mut()) {
            (_, Some((_, value))) if line.starts_with([' ', '\t']) => {
                *value += " ";
                *value += line.trim();
            }
            (Some((name, value)), _) => {
                fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
            (None, _) => {}
        }
    }
}

fn read_line(input: &mut impl BufRead) -> Result<String, Broken> {
    let mut line = Vec::new();
    input.take(1 << 20).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(Broken::Origin);
    }
    Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
}

fn pass_body(input: &mut impl BufRead, fields: &[(String, String)], reply: &Reply) -> Result<(), Broken> {
    let field = |name: &str| fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    if field("transfer-encoding").is_some_and(|coding| coding.contains("chunked")) {
        loop {
            let line = read_line(input)?;
            let len = line.split(';').next().and_then(|len| u64::from_str_radix(len.trim(), 16).ok());
            let len = len.ok_or(Broken::Origin)?;
            if len == 0 {
                return Ok(reply.finish()?);
            }
            pass_bytes(input, Some(len), reply)?;
            read_line(input)?;
        }
    }
    let len = field("content-length").and_then(|len| len.split(',').next()?.trim().parse().ok());
    pass_bytes(input, len, reply).map_err(|broken| match broken {
        Broken::Origin if len.is_some() => Broken::Body,
        other => other,
    })?;
    Ok(reply.finish()?)
}

/// Passes `len` bytes on, or all until the end.
fn pass_bytes(input: &mut impl BufRead, len: Option<u64>, reply: &Reply) -> Result<(), Broken> {
    let mut left = len.unwrap_or(u64::MAX);
    let mut buf = vec![0; 16 * 1024];
    while left > 0 {
        let most = left.min(buf.len() as u64) as usize;
        let got = input.read(&mut buf[..most])?;
        if got == 0 {
            return if len.is_none() { Ok(()) } else { Err(Broken::Origin) };
        }
        reply.send(data(&buf[..got]))?;
        left -= got as u64;
    }
    Ok(())
}
