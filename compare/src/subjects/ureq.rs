use std::any::Any;
use std::io::{self, Read, Seek, SeekFrom};
use std::time::Duration;

use super::{ReadSeek, Subject, on_threads};
use crate::Failure;

pub(super) struct Ureq(ureq::Agent);

impl Ureq {
    pub(super) fn new() -> Self {
        Self(ureq::Agent::new_with_defaults())
    }
}

/// What one writes around ureq to seek: a new request from the position on. The rest of the old body is dropped, and with it
/// its connection.
struct Ranged {
    agent: ureq::Agent,
    url: String,
    position: u64,
    len: u64,
    body: Option<ureq::BodyReader<'static>>,
}

impl Ranged {
    fn open(agent: &ureq::Agent, url: &str) -> Result<Self, Failure> {
        let response = agent.get(url).call()?;
        let len = response.body().content_length().unwrap_or(0);
        let body = Some(response.into_body().into_reader());
        Ok(Self { agent: agent.clone(), url: url.into(), position: 0, len, body })
    }
}

impl Read for Ranged {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let body = match &mut self.body {
            Some(body) => body,
            None => {
                let request = self.agent.get(&self.url).header("Range", format!("bytes={}-", self.position));
                let response = request.call().map_err(io::Error::other)?;
                self.body.insert(response.into_body().into_reader())
            }
        };
        let got = body.read(buf)?;
        self.position += got as u64;
        Ok(got)
    }
}

impl Seek for Ranged {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(to) => to,
            SeekFrom::Current(by) => self.position.saturating_add_signed(by),
            SeekFrom::End(by) => self.len.saturating_add_signed(by),
        };
        self.body = None;
        Ok(self.position)
    }
}

impl ReadSeek for Ranged {
    fn byte_len(&self) -> Option<u64> {
        Some(self.len)
    }
}

impl Subject for Ureq {
    fn get(&mut self, url: &str) -> Result<usize, Failure> {
        Ok(self.0.get(url).call()?.body_mut().read_to_vec()?.len())
    }

    fn open(&mut self, url: &str) -> Result<Box<dyn ReadSeek>, Failure> {
        Ok(Box::new(Ranged::open(&self.0, url)?))
    }

    fn background(&mut self, url: &str, count: usize, at_once: usize) -> Result<Box<dyn Any>, Failure> {
        let (agent, url) = (self.0.clone(), url.to_owned());
        on_threads(count, at_once, move || {
            // An error is that of the end of the process.
            let response = agent.get(&url).call();
            let _ =
                response.map(|response| io::copy(&mut response.into_body().into_reader(), &mut io::sink()));
        });
        Ok(Box::new(()))
    }

    fn cancel(&mut self, _: &str) -> Result<Duration, Failure> {
        Err("ureq has no cancel".into())
    }
}
