//! Which threads are windway's own: those that may call user code, and that `stop` waits for.

use std::cell::Cell;

thread_local! {
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// True on windway's own threads.
pub(crate) fn on_own_thread() -> bool {
    IS_OURS.get()
}

/// Marks the current thread as one of windway's.
pub(crate) fn enter_own_thread() {
    IS_OURS.set(true);
}
