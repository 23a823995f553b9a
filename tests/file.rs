//! Files over HTTP, read as if they lay on the disk.

mod support;

use std::io::{Read, Seek, SeekFrom};

use support::{Content, Origin, assert_pattern};
use windway::{Downloader, DownloaderConfig};

fn downloader() -> Downloader {
    Downloader::new(DownloaderConfig::default()).unwrap()
}

#[test]
fn a_file_is_read_to_its_end() {
    let origin = Origin::serving(Content::pattern(5_000_000));
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    assert_eq!(stream.len(), Some(5_000_000));
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 5_000_000);
    assert_pattern(0, &all);
}

#[test]
fn a_far_seek_reads_there() {
    let origin = Origin::serving(Content::pattern(50_000_000));
    let mut stream = downloader().open(&origin.url("/a")).unwrap();
    let mut buf = [0; 1000];
    stream.seek(SeekFrom::End(-1000)).unwrap();
    stream.read_exact(&mut buf).unwrap();
    assert_pattern(49_999_000, &buf);
    assert_eq!(stream.read(&mut buf).unwrap(), 0);
    stream.seek(SeekFrom::Start(3)).unwrap();
    stream.read_exact(&mut buf).unwrap();
    assert_pattern(3, &buf);
}
