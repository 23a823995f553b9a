//! The thread of a download: waits until all bytes are there, begins again if the file has changed, and finishes the file.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{JoinHandle, ThreadId};

use parking_lot::{Condvar, Mutex};
use ring::digest::{Context, SHA256};

use super::config::{DownloadConfig, DownloadPhase, Progress};
use super::outcome::Outcome;
use crate::cache::PartFile;
use crate::cancel::CancelReason;
use crate::client::Request;
use crate::config::{FileConfig, ReadAhead, StorageConfig};
use crate::downloader::Downloader;
use crate::error::{Error, ErrorKind};
use crate::foreign::{contain, in_callback};
use crate::source::Source;
use crate::source::file::{FileReader, HttpFile};
use crate::thread;
use crate::types::Priority;

/// Maximum number of new beginnings because the file has changed. A file that changes more often never gets whole.
const MAX_RESTARTS: u32 = 3;

/// A download, as its handle, its thread and its streams share it.
pub(super) struct Running {
    downloader: Downloader,
    request: Request,
    config: DownloadConfig,
    part: Arc<PartFile>,
    state: Mutex<State>,
    /// Held while a change of the state is passed on to the file: see [`apply`](Self::apply).
    applying: Mutex<()>,
    /// Notified when the download has ended.
    ended: Condvar,
    /// For handles that outlive the download.
    outcome: Arc<Outcome>,
    thread: Mutex<Option<(ThreadId, JoinHandle<()>)>>,
}

#[derive(Default)]
struct State {
    file: Option<Arc<HttpFile>>,
    /// Fetches all there is. `None` while the download is paused.
    fetcher: Option<FileReader>,
    is_paused: bool,
    is_cancelled: bool,
    is_finishing: bool,
    /// Streams of the file.
    players: usize,
    /// Bytes that were there when it ended. The file then drops those that only its memory has.
    stored: Option<u64>,
    /// The length of the file, or why there is none.
    end: Option<Result<u64, Error>>,
}

impl Running {
    pub(super) fn start(
        downloader: &Downloader,
        request: Request,
        path: &Path,
        config: DownloadConfig,
    ) -> Result<Arc<Self>, Error> {
        // `symlink_metadata` also finds a link that leads nowhere, which the rename at the end would replace. A directory is refused
        // as a wrong path, also if a file may be overwritten.
        let has_file = path.symlink_metadata().is_ok_and(|metadata| !metadata.is_dir());
        if has_file && !config.overwrite {
            let error = io::Error::new(io::ErrorKind::AlreadyExists, "it is not to be overwritten");
            return Err(storage_error("there is a file at", path, error));
        }
        let part = PartFile::open(path)
            .map_err(|error| storage_error("the download can't write to", path, error))?;
        let running = Arc::new(Self {
            downloader: downloader.clone(),
            request,
            config,
            part: Arc::new(part),
            state: Mutex::default(),
            applying: Mutex::default(),
            ended: Condvar::new(),
            outcome: Outcome::new(path),
            thread: Mutex::default(),
        });
        running.open(path)?;
        let (runs, path) = (Arc::clone(&running), path.to_owned());
        let thread = thread::start("download", move || runs.run(&path))?;
        *running.thread.lock() = Some((thread.thread().id(), thread));
        Ok(running)
    }

    /// Begins to fetch, in the place of an earlier version.
    fn open(&self, path: &Path) -> Result<Arc<HttpFile>, Error> {
        // Only a body without a length goes there.
        let folder = path.parent().map(PathBuf::from).filter(|folder| !folder.as_os_str().is_empty());
        let config = FileConfig::new()
            .priority(Priority::Low)
            .read_ahead(ReadAhead::Whole)
            .storage(StorageConfig::TempFile(Some(folder.unwrap_or_else(|| PathBuf::from(".")))))
            .headers(self.config.headers.clone())
            .mirrors(self.config.mirrors.clone())
            .hook(self.config.hook.clone());
        let (file, reader) =
            HttpFile::download(&self.downloader, self.request.clone(), config, Arc::clone(&self.part))?;
        let fetcher = FileReader::new((Arc::clone(&file), reader));
        let replaced = {
            let mut state = self.state.lock();
            (state.file.replace(Arc::clone(&file)), state.fetcher.replace(fetcher))
        };
        // Outside of the lock: it waits for a thread.
        drop(replaced);
        self.apply();
        Ok(file)
    }

    fn run(&self, path: &Path) {
        let end = contain("a download", || self.fetch(path)).unwrap_or_else(|panic| Err(panic.into()));
        // First: a thread that sees the end may begin another download to the path.
        self.close_part();
        let file = self.state.lock().file.clone();
        let stored = file.map(|file| bytes_of(&file.shared().buffered()));
        let fetcher = {
            let mut state = self.state.lock();
            state.is_finishing = false;
            state.stored = stored;
            state.end = Some(end.clone());
            state.fetcher.take()
        };
        // Before the waiting threads wake: its drop ends the transfers of the file.
        drop(fetcher);
        self.ended.notify_all();
        self.outcome.record(self.progress(), end);
    }

    pub(super) fn outcome(&self) -> &Arc<Outcome> {
        &self.outcome
    }

    /// Ends the lock on the files. What waits to be written gets there before.
    fn close_part(&self) {
        let file = self.state.lock().file.clone();
        if let Some(Err(error)) = file.map(|file| file.shared().flush()) {
            log::debug!("the last bytes of a download are not stored: {error}");
        }
        self.part.close();
    }

    fn fetch(&self, path: &Path) -> Result<u64, Error> {
        let mut restarts = 0;
        let first = self.state.lock().file.clone();
        let mut file = first.ok_or_else(|| Error::cancelled(CancelReason::Peer))?;
        loop {
            let len = match file.shared().await_whole() {
                Err(error) if error.kind() == ErrorKind::Changed && restarts < MAX_RESTARTS => {
                    restarts += 1;
                    log::info!("a download begins from the start: {error}");
                    file = self.open(path)?;
                    continue;
                }
                ended => ended?,
            };
            self.state.lock().is_finishing = true;
            if self.finish(path, &file, len)? {
                return Ok(len);
            }
            self.state.lock().is_finishing = false;
            // A cancel while it was being finished had nothing to stop. Now there is something to fetch again.
            self.apply();
        }
    }

    /// Checks the whole file and gives it its name. False if a part of it was lost on the disk.
    fn finish(&self, path: &Path, file: &HttpFile, len: u64) -> Result<bool, Error> {
        let is_in_place = file.shared().flush()?;
        let mut digest = self.config.sha256.map(|_| Context::new(&SHA256));
        let storage = |error| storage_error("the download can't write to", path, error);
        // A body without a length lies in an unnamed temporary file, which can't be renamed.
        let mut copy: Option<Arc<File>> =
            if is_in_place { None } else { Some(self.part.start_over().map_err(storage)?) };
        // Also without a digest what an earlier run has left is read: a block that a crash has damaged is found, and fetched
        // again.
        if digest.is_some() || copy.is_some() || self.part.was_continued() {
            let read = file.shared().read_whole(len, |bytes| {
                if let Some(digest) = &mut digest {
                    digest.update(bytes);
                }
                copy.as_mut().map_or(Ok(()), |copy| (&**copy).write_all(bytes)).map_err(storage)
            });
            if read.is_err() && copy.is_some() {
                // A copy has no checksums, so no download can continue with it. It would only fill the disk.
                self.part.discard().map_err(storage)?;
            }
            if !read? {
                return Ok(false);
            }
        }
        let digest = digest.map(Context::finish);
        if digest
            .is_some_and(|digest| Some(digest.as_ref()) != self.config.sha256.as_ref().map(|sum| &sum[..]))
        {
            self.part.discard().map_err(storage)?;
            let why = "the downloaded file does not have the SHA-256 digest that it should have";
            return Err(Error::new(ErrorKind::WrongDigest, why).with_url(file.shared().url()));
        }
        let sync_error = |error| storage_error("the disk has not taken the download to", path, error);
        self.part.sync(len).map_err(sync_error)?;
        let finished = self.part.finish(self.config.overwrite);
        finished
            .map_err(|error| storage_error("the downloaded file can't be given the name", path, error))?;
        Ok(true)
    }

    pub(super) fn wait(&self) -> Result<u64, Error> {
        Error::check_may_block("waiting for a download")?;
        let mut state = self.state.lock();
        loop {
            match &state.end {
                Some(end) => return end.clone(),
                None => self.ended.wait(&mut state),
            }
        }
    }

    pub(super) fn progress(&self) -> Progress {
        let (file, phase, stored, end) = {
            let state = self.state.lock();
            (state.file.clone(), state.phase(), state.stored, state.end.clone())
        };
        let shared = file.as_ref().map(|file| file.shared());
        let buffered = shared.map(|shared| shared.buffered()).unwrap_or_default();
        let last_error = match end {
            // As of streams: what the program has cancelled has not failed.
            Some(end) => end.err().filter(|error| !error.is_cancelled()),
            None => shared.and_then(|shared| shared.last_error()),
        };
        // Bytes that arrive clear the error.
        let is_retrying = phase == DownloadPhase::Fetching && last_error.is_some();
        Progress {
            phase: if is_retrying { DownloadPhase::Retrying } else { phase },
            stored: stored.unwrap_or_else(|| bytes_of(&buffered)),
            len: shared.and_then(|shared| shared.len()),
            bandwidth: shared.and_then(|shared| shared.bandwidth()),
            last_error,
        }
    }

    pub(super) fn set_paused(&self, is_paused: bool) {
        self.state.lock().is_paused = is_paused;
        self.apply();
    }

    pub(super) fn cancel(&self) {
        self.state.lock().is_cancelled = true;
        self.apply();
    }

    /// Makes the file do what the state says.
    fn apply(&self) {
        // One after another, or an earlier state could be applied last.
        let _applying = self.applying.lock();
        let (file, is_paused, is_cancelled, priority) = {
            let state = self.state.lock();
            let Some(file) = state.file.clone() else { return };
            // Once all bytes are there, a cancel has nothing to stop: the file is about to get its name.
            let is_running = !state.is_finishing && state.end.is_none();
            let priority = if state.players > 0 { Priority::High } else { Priority::Low };
            (file, state.is_paused, state.is_cancelled && is_running, priority)
        };
        if is_cancelled {
            return file.shared().cancel();
        }
        file.peer().set_priority(priority);
        self.set_fetcher(&file, !is_paused);
        // Of a paused download only what its streams are about to need.
        let read_ahead = if is_paused { FileConfig::default().read_ahead } else { ReadAhead::Whole };
        if let Err(error) = file.shared().set_read_ahead(read_ahead) {
            log::debug!("the read-ahead of a download can't be changed: {error}");
        }
    }

    /// Adds the reader that fetches all there is, or removes it.
    fn set_fetcher(&self, file: &Arc<HttpFile>, is_wanted: bool) {
        let has_one = self.state.lock().fetcher.is_some();
        let fetcher =
            (is_wanted && !has_one).then(|| FileReader::new((Arc::clone(file), file.shared().add_reader())));
        let replaced = {
            let mut state = self.state.lock();
            // The download may have ended while the reader was added: then nothing would ever remove it.
            let is_over = state.end.is_some() || !is_wanted;
            if is_over {
                state.fetcher.take()
            } else {
                fetcher.and_then(|fetcher| state.fetcher.replace(fetcher))
            }
        };
        // Without the lock, since the drop of the last reader of a file joins a thread.
        drop(replaced);
    }

    pub(super) fn stream(self: &Arc<Self>) -> Result<Player, Error> {
        let reader = {
            let mut state = self.state.lock();
            if let Some(Err(error)) = &state.end {
                return Err(error.clone());
            }
            let file = state.file.clone().ok_or_else(|| Error::cancelled(CancelReason::Peer))?;
            state.players += 1;
            let id = file.shared().add_reader();
            FileReader::new((file, id))
        };
        self.apply();
        Ok(Player { reader, download: Arc::clone(self) })
    }

    /// Waits for the thread, unless it is the calling one, or that could wait for it.
    pub(super) fn join(&self) {
        let thread = self.thread.lock().take();
        let Some((id, thread)) = thread.filter(|(id, _)| *id != std::thread::current().id()) else { return };
        // Not in a callback, whose end the thread may be waiting for.
        if !in_callback() && thread.join().is_err() {
            log::error!("the thread {id:?} of a download panicked");
        }
    }
}

impl State {
    fn phase(&self) -> DownloadPhase {
        match &self.end {
            Some(Ok(_)) => DownloadPhase::Done,
            Some(Err(error)) if error.is_cancelled() => DownloadPhase::Cancelled,
            Some(Err(_)) => DownloadPhase::Failed,
            None if self.is_finishing => DownloadPhase::Finishing,
            None if self.is_paused => DownloadPhase::Paused,
            None => DownloadPhase::Fetching,
        }
    }
}

/// A reader of a file that is downloaded.
pub(super) struct Player {
    reader: FileReader,
    download: Arc<Running>,
}

impl Source for Player {
    fn read_at(&self, position: u64, buf: &mut [u8]) -> Result<usize, Error> {
        self.reader.read_at(position, buf)
    }

    fn len(&self) -> Option<u64> {
        self.reader.len()
    }

    fn inner(&self) -> Option<&dyn Source> {
        Some(&self.reader)
    }

    fn reader(&self) -> Option<Arc<dyn Source>> {
        let reader = self.reader.again()?;
        // Nothing to apply: this player has made the file urgent, and the new one keeps it so.
        self.download.state.lock().players += 1;
        Some(Arc::new(Self { reader, download: Arc::clone(&self.download) }))
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.download.state.lock().players -= 1;
        self.download.apply();
    }
}

fn bytes_of(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// An error whose text names the path and the reason: without them it says nothing that the user could change.
pub(super) fn storage_error(what: &str, path: &Path, cause: io::Error) -> Error {
    let why = format!("{what} {}: {cause}", path.display());
    Error::new(ErrorKind::Storage, why).with_cause(cause)
}
