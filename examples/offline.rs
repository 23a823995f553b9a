//! Keeps what is played in a cache, and plays it again without a network.
//!
//! ```text
//! cargo run --example offline --features cache -- DIRECTORY           lists what is there
//! cargo run --example offline --features cache -- DIRECTORY URL       reads it, from the cache as far as it is there
//! ```
//!
//! Run it with a URL, switch the network off, and run it again.

mod support;

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::Instant;

use windway::cache::{Cache, CacheConfig, CacheUse};
use windway::config::ReadAhead;
use windway::{Downloader, FileConfig};

const HELP: &str = "\
Reads a file through a cache: from the disk as far as it is there, also without a network.

    cargo run --features cache --example offline -- DIRECTORY [URL]

DIRECTORY  where the cache is; it is made if it does not exist
URL        a file; without it, the entries of the cache are listed

Exit code: 0 if all was read, 1 if not, 2 for wrong arguments.";

fn main() -> ExitCode {
    env_logger::init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (directory, url) = match arguments[..] {
        ["--help" | "-h"] => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        // Not a directory of that name: it would be made.
        [option, ..] if option.starts_with('-') => {
            return support::wrong_arguments(&format!("there is no option {option}"), HELP);
        }
        [url] if url.contains("://") => return support::wrong_arguments("a directory comes first", HELP),
        [directory] => (directory, None),
        [directory, url] => (directory, Some(url)),
        _ => return support::wrong_arguments("a directory is needed", HELP),
    };
    match run(directory, url) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => support::failed(&*error),
    }
}

fn run(directory: &str, url: Option<&str>) -> Result<(), Box<dyn Error>> {
    let cache = Cache::open(directory, CacheConfig::new())?;
    match url {
        Some(url) => read(&cache, url),
        None => list(&cache),
    }
}

fn list(cache: &Cache) -> Result<(), Box<dyn Error>> {
    for entry in cache.entries()? {
        println!(
            "{}  {} of {} bytes  {}  {}",
            entry.key, entry.stored, entry.len, entry.media_type, entry.label
        );
    }
    println!("{} bytes on disk", cache.size());
    Ok(())
}

fn read(cache: &Cache, url: &str) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let downloader = Downloader::global()?;
    // A label is stored as it is. This one says no more than the file's name.
    let label = url.rsplit('/').next().unwrap_or_default().split(['?', '#']).next().unwrap_or_default();
    let config = FileConfig::new().read_ahead(ReadAhead::Whole).cache(CacheUse::of(cache).label(label));
    let mut stream = downloader.open_with(url, config)?;
    println!("opened after {:.1?}, with {} requests", began.elapsed(), downloader.stats().requests);
    let bytes = io::copy(&mut stream, &mut io::sink())?;
    println!("{bytes} bytes after {:.1?}, {} requests", began.elapsed(), downloader.stats().requests);
    Ok(())
}
