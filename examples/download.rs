//! Downloads a file with a progress bar, and continues where an earlier run has stopped.
//!
//! ```text
//! cargo run --example download --features cache -- URL PATH [SHA-256]
//! ```
//!
//! Kill it at any time and run it again: it fetches what is missing, and checks what is there.

use std::error::Error;
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use windway::Downloader;
use windway::download::{DownloadConfig, DownloadPhase};

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, path, digest @ ..] = &arguments[..] else {
        return Err("usage: download URL PATH [SHA-256]".into());
    };
    let sha256 = digest.first().map(|digest| parse_digest(digest)).transpose()?;
    let download = Downloader::global()?.download(url, path, DownloadConfig::new().sha256(sha256))?;

    let style = "{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {msg}";
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(style)?);
    loop {
        let progress = download.progress();
        bar.set_length(progress.len.unwrap_or(progress.stored));
        bar.set_position(progress.stored);
        bar.set_message(progress.error.map(|error| error.to_string()).unwrap_or_default());
        if matches!(progress.phase, DownloadPhase::Done | DownloadPhase::Failed | DownloadPhase::Cancelled) {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    bar.finish();
    println!("{path}: {} bytes", download.wait()?);
    Ok(())
}

fn parse_digest(text: &str) -> Result<[u8; 32], Box<dyn Error>> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return Err("a SHA-256 digest has 64 hexadecimal digits".into());
    }
    for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16)?;
    }
    Ok(digest)
}
