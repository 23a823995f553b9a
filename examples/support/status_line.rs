//! A line at the bottom of the terminal that is drawn again ten times a second, also while the program waits for bytes.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use std::sync::mpsc::{self, RecvTimeoutError, Sender};

const INTERVAL: Duration = Duration::from_millis(100);

/// Without a terminal it draws nothing, and `print` is `println`.
pub(crate) struct StatusLine {
    /// Held while something is written, so that the line does not end up within other text.
    writing: Arc<Mutex<()>>,
    drawing: Option<(Sender<()>, JoinHandle<()>)>,
}

impl StatusLine {
    /// `compose` gets the number of columns, and returns the line. What is longer is cut off.
    pub(crate) fn start(mut compose: impl FnMut(usize) -> String + Send + 'static) -> Self {
        let writing = Arc::new(Mutex::new(()));
        let drawing = io::stdout().is_terminal().then(|| {
            let (stop, stopped) = mpsc::channel::<()>();
            let writing = Arc::clone(&writing);
            let thread = thread::spawn(move || {
                while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                    // The last column stays empty: some terminals begin a new line after it.
                    let columns = columns().saturating_sub(1);
                    let line: String = compose(columns).chars().take(columns).collect();
                    let _guard = writing.lock();
                    write(&format!("\r\x1b[K{line}"));
                }
                write("\r\x1b[K");
            });
            (stop, thread)
        });
        Self { writing, drawing }
    }

    /// Prints a line above it.
    pub(crate) fn print(&self, line: &str) {
        let _guard = self.writing.lock();
        if self.drawing.is_some() {
            write(&format!("\r\x1b[K{line}\n"));
        } else {
            println!("{line}");
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.drawing.take() {
            drop(stop);
            // Fails if `compose` panicked, which has printed its message.
            let _ = thread.join();
        }
    }
}

fn write(text: &str) {
    let mut out = io::stdout();
    // A terminal that is gone shows no line, and the program goes on.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(unix)]
fn columns() -> usize {
    rustix::termios::tcgetwinsize(io::stdout()).map_or(80, |size| size.ws_col.max(20).into())
}

#[cfg(not(unix))]
fn columns() -> usize {
    80
}

/// `━` where bytes are stored, `╸` where the reader is. `ranges` and `position` are of `len` bytes.
pub(crate) fn bar(cells: usize, len: u64, position: u64, ranges: &[std::ops::Range<u64>]) -> String {
    let (len, cells) = (len.max(1), cells as u64);
    let cell = |cell: u64| {
        let (start, end) = (cell * len / cells, (cell + 1) * len / cells);
        let is_stored = ranges.iter().any(|range| range.start < end && start < range.end);
        match (start <= position && position < end.max(start + 1), is_stored) {
            (true, _) => '╸',
            (false, true) => '━',
            (false, false) => ' ',
        }
    };
    (0..cells).map(cell).collect()
}
