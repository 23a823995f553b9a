//! The libraries, each used as its documentation shows.

mod libcurl;
mod ranged;
mod reqwest;
mod stream_download;
mod ureq;
mod windway;

use std::any::Any;
use std::io::{Read, Seek};
use std::thread;
use std::time::{Duration, Instant};

use crate::Failure;

pub(crate) trait ReadSeek: Read + Seek + Send {
    fn byte_len(&self) -> Option<u64>;
}

/// What is measured of a library. What one does not offer is not in the list of the measure.
pub(crate) trait Subject {
    /// Gets a small body and reads all of it.
    fn get(&mut self, url: &str) -> Result<usize, Failure>;

    /// Times of `count` calls of `get`.
    fn gets(&mut self, url: &str, count: usize) -> Result<Vec<Duration>, Failure> {
        let get = |_| {
            let began = Instant::now();
            self.get(url).map(|_| began.elapsed())
        };
        (0..count).map(get).collect()
    }

    /// Reads a long body in pieces of 64 KiB, as far as the library lets its user choose. Returns the length.
    fn bulk(&mut self, url: &str) -> Result<u64, Failure> {
        let mut reader = self.open(url)?;
        let (mut buf, mut len) = (vec![0; 64 * 1024], 0);
        loop {
            match reader.read(&mut buf)? {
                0 => return Ok(len),
                got => len += got as u64,
            }
        }
    }

    fn open(&mut self, url: &str) -> Result<Box<dyn ReadSeek>, Failure>;

    /// Times to the first 4 KiB of a file, and to 4 KiB at `to` after a seek.
    fn open_and_seek(&mut self, url: &str, to: u64) -> Result<(Duration, Duration), Failure> {
        let (mut buf, began) = ([0; 4096], Instant::now());
        let mut reader = self.open(url)?;
        reader.read_exact(&mut buf)?;
        let (opened, began) = (began.elapsed(), Instant::now());
        reader.seek(std::io::SeekFrom::Start(to))?;
        reader.read_exact(&mut buf)?;
        Ok((opened, began.elapsed()))
    }

    /// Starts `count` downloads in the background, which read all that comes. The value keeps them running. The program runs
    /// `at_once` of them at the same time: as many as there are, unless it limits them.
    fn background(&mut self, url: &str, count: usize, at_once: usize) -> Result<Box<dyn Any>, Failure>;

    /// Time from a cancel until the read of a silent body, which another thread is blocked in, has returned.
    fn cancel(&mut self, url: &str) -> Result<Duration, Failure>;
}

/// Reads on another thread until `cancel` ends it. Returns the time that this takes.
fn time_cancel(mut reader: impl Read + Send + 'static, cancel: impl FnOnce()) -> Result<Duration, Failure> {
    let reading = thread::spawn(move || {
        let mut buf = [0; 4096];
        while reader.read(&mut buf).is_ok_and(|got| got > 0) {}
        Instant::now()
    });
    // Until it is blocked in a read of the silent body.
    thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    cancel();
    let ended = reading.join().map_err(|_| "the reader panicked")?;
    Ok(ended.duration_since(began))
}

/// Runs `download` on `at_once` threads, `count` times in all.
fn on_threads(count: usize, at_once: usize, download: impl Fn() + Clone + Send + 'static) {
    for _ in 0..at_once {
        let download = download.clone();
        thread::spawn(move || (0..count / at_once).for_each(|_| download()));
    }
}

pub(crate) fn make(name: &str) -> Result<Box<dyn Subject>, Failure> {
    Ok(match name {
        "windway" => Box::new(windway::Windway::new()?),
        "ureq" => Box::new(ureq::Ureq::new()),
        "reqwest" => Box::new(reqwest::Reqwest::new()?),
        "reqwest blocking" => Box::new(reqwest::Blocking::new()?),
        "stream-download" => Box::new(stream_download::Streams::new()?),
        "libcurl easy" => Box::new(libcurl::Libcurl::new()),
        _ => return Err(format!("there is no subject {name}").into()),
    })
}
