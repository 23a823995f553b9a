use std::any::Any;
use std::io;
use std::time::Duration;

use super::ranged::Ranged;
use super::{ReadSeek, Subject, on_threads};
use crate::Failure;

pub(super) struct Ureq(ureq::Agent);

impl Ureq {
    pub(super) fn new() -> Self {
        Self(ureq::Agent::new_with_defaults())
    }
}

impl Subject for Ureq {
    fn get(&mut self, url: &str) -> Result<usize, Failure> {
        Ok(self.0.get(url).call()?.body_mut().read_to_vec()?.len())
    }

    fn open(&mut self, url: &str) -> Result<Box<dyn ReadSeek>, Failure> {
        let body = self.0.get(url).call()?.into_body();
        let len = body.content_length().unwrap_or(0);
        let (agent, url) = (self.0.clone(), url.to_owned());
        Ok(Box::new(Ranged::new(body.into_reader(), len, move |position| {
            let request = agent.get(&url).header("Range", format!("bytes={position}-"));
            Ok(request.call().map_err(io::Error::other)?.into_body().into_reader())
        })))
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
