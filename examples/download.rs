//! Downloads a file with a progress bar, and continues where an earlier run has stopped.
//!
//! ```text
//! cargo run --example download --features cache -- URL PATH [SHA-256]
//! ```
//!
//! Kill it at any time and run it again: it fetches what is missing, and checks what is there.

mod support;

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

use support::status_line::{StatusLine, bar};
use windway::Downloader;
use windway::download::DownloadConfig;

const HELP: &str = "\
Downloads a file with a progress bar, and continues where an earlier run has stopped.

    cargo run --features cache --example download -- URL PATH [SHA-256]

PATH     where the file goes; an existing one is not overwritten
SHA-256  64 hexadecimal digits; a file with another digest is refused

Exit code: 0 if the file is there, 1 if not, 2 for wrong arguments.";

fn main() -> ExitCode {
    env_logger::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["--help" | "-h"] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        [url, path] => download(url, path, None),
        [url, path, digest] => parse_digest(digest).and_then(|sha256| download(url, path, Some(sha256))),
        _ => return support::wrong_arguments("a URL and a path are needed", HELP),
    };
    result.map_or_else(|error| support::failed(&*error), |()| ExitCode::SUCCESS)
}

fn download(url: &str, path: &str, sha256: Option<[u8; 32]>) -> Result<(), Box<dyn Error>> {
    let download = Downloader::global()?.download(url, path, DownloadConfig::new().sha256(sha256))?;
    let download = Arc::new(download);

    // Draws as long as it lives.
    let line = StatusLine::start({
        let download = Arc::clone(&download);
        move |columns| {
            let progress = download.progress();
            let len = progress.len.unwrap_or(progress.stored);
            let error = progress.last_error.map_or(String::new(), |error| error.to_string());
            let stored = vec![0..progress.stored; 1];
            let bar = bar(columns.saturating_sub(30).min(40), len, progress.stored, &stored);
            format!("[{bar}] {} of {} {error}", support::bytes(progress.stored), support::bytes(len))
        }
    });
    let bytes = download.wait();
    drop(line);
    println!("{path}: {} bytes", bytes?);
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
