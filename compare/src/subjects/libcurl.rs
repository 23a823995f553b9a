use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use curl::easy::{Easy, WriteError};

use super::{ReadSeek, Subject, on_threads};
use crate::Failure;

/// One easy handle, used again: it keeps its connection.
pub(super) struct Libcurl(Easy);

impl Libcurl {
    pub(super) fn new() -> Self {
        Self(Easy::new())
    }

    /// Reads until `most` bytes have come, and gives the rest up.
    fn read(&mut self, url: &str, range: Option<&str>, most: u64) -> Result<u64, Failure> {
        self.0.url(url)?;
        match range {
            Some(range) => self.0.range(range)?,
            None => self.0.range("0-")?,
        }
        let mut len = 0;
        let mut transfer = self.0.transfer();
        transfer.write_function(|bytes| {
            len += bytes.len() as u64;
            // Fewer than were given end the transfer.
            Ok::<_, WriteError>(if len >= most { 0 } else { bytes.len() })
        })?;
        let result = transfer.perform();
        drop(transfer);
        if len < most {
            result?;
        }
        Ok(len)
    }
}

impl Subject for Libcurl {
    fn get(&mut self, url: &str) -> Result<usize, Failure> {
        self.0.url(url)?;
        let mut body = Vec::new();
        let mut transfer = self.0.transfer();
        transfer.write_function(|bytes| {
            body.extend_from_slice(bytes);
            Ok(bytes.len())
        })?;
        transfer.perform()?;
        drop(transfer);
        Ok(body.len())
    }

    /// In the pieces in which its callback gets them.
    fn bulk(&mut self, url: &str) -> Result<u64, Failure> {
        self.0.url(url)?;
        let mut len = 0;
        let mut transfer = self.0.transfer();
        transfer.write_function(|bytes| {
            len += bytes.len() as u64;
            Ok(bytes.len())
        })?;
        transfer.perform()?;
        drop(transfer);
        Ok(len)
    }

    fn open(&mut self, _: &str) -> Result<Box<dyn ReadSeek>, Failure> {
        Err("libcurl pushes: it has no reader".into())
    }

    fn open_and_seek(&mut self, url: &str, to: u64) -> Result<(Duration, Duration), Failure> {
        let began = Instant::now();
        self.read(url, None, 4096)?;
        let (opened, began) = (began.elapsed(), Instant::now());
        self.read(url, Some(&format!("{to}-")), 4096)?;
        Ok((opened, began.elapsed()))
    }

    fn background(&mut self, url: &str, count: usize, at_once: usize) -> Result<Box<dyn Any>, Failure> {
        let url = url.to_owned();
        on_threads(count, at_once, move || {
            // An error is that of the end of the process.
            let _ = Self::new().bulk(&url);
        });
        Ok(Box::new(()))
    }

    /// By the progress callback, which libcurl calls about once a second while nothing comes.
    fn cancel(&mut self, url: &str) -> Result<Duration, Failure> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let (url, seen) = (url.to_owned(), Arc::clone(&cancelled));
        let reader = thread::spawn(move || {
            let mut easy = Easy::new();
            easy.url(&url)?;
            easy.progress(true)?;
            let mut transfer = easy.transfer();
            transfer.write_function(|bytes| Ok(bytes.len()))?;
            transfer.progress_function(|_, _, _, _| !seen.load(Ordering::Relaxed))?;
            // Its error is that it was aborted.
            let _ = transfer.perform();
            Ok::<_, curl::Error>(Instant::now())
        });
        thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        cancelled.store(true, Ordering::Relaxed);
        let ended = reader.join().map_err(|_| "the reader panicked")??;
        Ok(ended.duration_since(began))
    }
}
