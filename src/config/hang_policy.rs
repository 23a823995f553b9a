//! `HangPolicy`: what happens to a stalled fetch.

use std::fmt;
use std::sync::Arc;

#[cfg(doc)]
use crate::error::ErrorKind;
use crate::event::Hang;
use crate::foreign::Foreign;

/// What happens to a stalled fetch, in addition to the report.
///
/// ```
/// use windway::DownloaderConfig;
/// use windway::config::HangPolicy;
///
/// let config = DownloaderConfig::new().hang_policy(HangPolicy::CancelStalled);
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum HangPolicy {
    /// Nothing: the stall is only reported.
    #[default]
    Report,
    /// A stalled fetch fails with [`ErrorKind::Stalled`], which frees its worker.
    CancelStalled,
    /// Calls a function. [`HangPolicy::on_hang`] makes this variant.
    Call(OnHang),
}

impl HangPolicy {
    /// Calls `on_hang` once for each stall, on the watchdog's thread. A panic in it is caught and logged.
    ///
    /// ```
    /// let policy = windway::config::HangPolicy::on_hang(|hang| eprintln!("{hang}"));
    /// let config = windway::DownloaderConfig::new().hang_policy(policy);
    /// ```
    pub fn on_hang(on_hang: impl Fn(&Hang) + Send + Sync + 'static) -> Self {
        Self::Call(OnHang(Arc::new(Foreign::new(Box::new(on_hang)))))
    }
}

/// Function that is called for each stall. See [`HangPolicy::on_hang`].
///
/// ```
/// use windway::config::{HangPolicy, OnHang};
///
/// let policy = HangPolicy::on_hang(|hang| eprintln!("{hang}"));
/// assert!(matches!(policy, HangPolicy::Call(OnHang { .. })));
/// ```
#[derive(Clone)]
pub struct OnHang(Arc<Foreign<CallOnHang>>);

type CallOnHang = Box<dyn Fn(&Hang) + Send + Sync>;

impl OnHang {
    pub(crate) fn call(&self, hang: &Hang) {
        // `call_shared` logs a panic. The watchdog has nothing to undo.
        let _ = self.0.call_shared("on_hang", |on_hang| on_hang(hang));
    }
}

impl fmt::Debug for OnHang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnHang")
    }
}
