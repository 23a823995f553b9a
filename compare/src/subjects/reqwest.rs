use std::any::Any;
use std::io;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::ranged::Ranged;
use super::{ReadSeek, Subject, on_threads};
use crate::Failure;

/// The async client, in tokio's runtime with a thread for each core.
pub(super) struct Reqwest {
    client: reqwest::Client,
    runtime: Runtime,
}

impl Reqwest {
    pub(super) fn new() -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        Ok(Self { client: reqwest::Client::new(), runtime })
    }
}

impl Subject for Reqwest {
    fn get(&mut self, url: &str) -> Result<usize, Failure> {
        let get = async { self.client.get(url).send().await?.bytes().await };
        Ok(self.runtime.block_on(get)?.len())
    }

    /// All in one `block_on`: a program that uses this client is async.
    fn gets(&mut self, url: &str, count: usize) -> Result<Vec<Duration>, Failure> {
        self.runtime.block_on(async {
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let began = Instant::now();
                self.client.get(url).send().await?.bytes().await?;
                times.push(began.elapsed());
            }
            Ok(times)
        })
    }

    /// In the pieces in which they come: it has no reads of a given length.
    fn bulk(&mut self, url: &str) -> Result<u64, Failure> {
        self.runtime.block_on(async {
            let (mut response, mut len) = (self.client.get(url).send().await?, 0);
            while let Some(chunk) = response.chunk().await? {
                len += chunk.len() as u64;
            }
            Ok(len)
        })
    }

    fn open(&mut self, _: &str) -> Result<Box<dyn ReadSeek>, Failure> {
        Err("the async client has no reader".into())
    }

    fn open_and_seek(&mut self, url: &str, to: u64) -> Result<(Duration, Duration), Failure> {
        let client = &self.client;
        let first = |range: Option<String>| async move {
            let began = Instant::now();
            let request = client.get(url);
            let request = if let Some(range) = range { request.header("Range", range) } else { request };
            let (mut response, mut len) = (request.send().await?, 0);
            while len < 4096 {
                len += response.chunk().await?.map_or(4096, |chunk| chunk.len());
            }
            // The response is dropped here, and with it its connection.
            Ok::<_, reqwest::Error>(began.elapsed())
        };
        self.runtime.block_on(async {
            let opened = first(None).await?;
            Ok((opened, first(Some(format!("bytes={to}-"))).await?))
        })
    }

    fn background(&mut self, url: &str, count: usize, at_once: usize) -> Result<Box<dyn Any>, Failure> {
        for _ in 0..at_once {
            let (client, url) = (self.client.clone(), url.to_owned());
            self.runtime.spawn(async move {
                for _ in 0..count / at_once {
                    let mut response = client.get(&url).send().await.ok()?;
                    while response.chunk().await.ok()?.is_some() {}
                }
                Some(())
            });
        }
        Ok(Box::new(()))
    }

    /// Aborts the task, which is how async code is cancelled.
    fn cancel(&mut self, url: &str) -> Result<Duration, Failure> {
        let (client, url) = (self.client.clone(), url.to_owned());
        let task = self.runtime.spawn(async move {
            let mut response = client.get(url).send().await.ok()?;
            while response.chunk().await.ok()?.is_some() {}
            Some(())
        });
        self.runtime.block_on(async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let began = Instant::now();
            task.abort();
            // Its error is that it was aborted.
            let _ = task.await;
            Ok(began.elapsed())
        })
    }
}

/// The blocking client, which drives a runtime on a thread of its own.
pub(super) struct Blocking(reqwest::blocking::Client);

impl Blocking {
    pub(super) fn new() -> Result<Self, Failure> {
        // Without a limit for the whole request, as a player has to set it: the default is 30 s.
        Ok(Self(reqwest::blocking::Client::builder().timeout(None).build()?))
    }
}

impl Subject for Blocking {
    fn get(&mut self, url: &str) -> Result<usize, Failure> {
        Ok(self.0.get(url).send()?.bytes()?.len())
    }

    fn open(&mut self, url: &str) -> Result<Box<dyn ReadSeek>, Failure> {
        let body = self.0.get(url).send()?;
        let len = body.content_length().unwrap_or(0);
        let (client, url) = (self.0.clone(), url.to_owned());
        Ok(Box::new(Ranged::new(body, len, move |position| {
            let request = client.get(&url).header("Range", format!("bytes={position}-"));
            request.send().map_err(io::Error::other)
        })))
    }

    fn background(&mut self, url: &str, count: usize, at_once: usize) -> Result<Box<dyn Any>, Failure> {
        let (client, url) = (self.0.clone(), url.to_owned());
        on_threads(count, at_once, move || {
            // An error is that of the end of the process.
            let _ = client.get(&url).send().map(|mut response| response.copy_to(&mut io::sink()));
        });
        Ok(Box::new(()))
    }

    fn cancel(&mut self, _: &str) -> Result<Duration, Failure> {
        Err("the blocking client has no cancel".into())
    }
}
