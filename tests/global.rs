//! The global downloader. In a file of its own, because a process has only one.

use windway::{Downloader, DownloaderConfig, ErrorKind};

#[test]
fn the_global_downloader_is_configured_before_its_first_use_and_not_after() {
    let wrong = Downloader::configure_global(DownloaderConfig::new().max_concurrent(0)).unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::InvalidConfig);
    Downloader::configure_global(DownloaderConfig::new().max_concurrent(3)).unwrap();
    Downloader::configure_global(DownloaderConfig::new().max_concurrent(2)).unwrap();
    let workers = || {
        let global = Downloader::global().unwrap();
        let _peer = global.register((), Default::default()).unwrap();
        global.stats().idle_workers
    };
    assert_eq!(workers(), 2);
    let late = Downloader::configure_global(DownloaderConfig::default()).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::InvalidInput);
    // The last handle was dropped, so the downloader is made again, with the same options.
    assert_eq!(workers(), 2);
}
