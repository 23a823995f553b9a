//! When a peer is asked for work of its own.
//!
//! ```text
//!               woken                       it is chosen
//!  Resting ──────────────▶ Queued ─────────────────────▶ Asking ─▶ an answer ─▶ Resting
//!     │                      ▲  ▲                          │
//!     │ woken for prefetches │  │ woken, or the pause is over  it has more, but brought nothing too often
//!     └──▶ Blocked ──────────┘  └──────── Paused ◀─────────┘
//!          its fetches are blocked        Gone: it panicked, or was cancelled
//!          on the origin limit
//! ```
//!
//! The [schedule](super::Schedule) puts the pull into the queue that [`place`](Pull::place) names after each change.

use std::time::{Duration, Instant};

use super::queues::PullPlace;
use super::types::{Answer, FetchInfo, Fruitless};
use crate::types::Priority;

/// Cost of fetches in a row that bring nothing, after which their peer is asked only after a pause. Enough for a thousand fetches
/// of an epoch that is over, which a peer has to hand out before it comes to others, or for 16 dead tracks of a playlist.
const FREE_COST: u32 = 1024;

/// Each time that this cost is reached again, the pause doubles.
const DOUBLING_COST: u32 = 64;

/// Short answers in a row after which a peer is asked for prefetches only after a pause. Each of them wakes the peer, which has the
/// next bytes to fetch then.
const FREE_SHORT: u32 = 16;

/// Each time that there are this many more, the pause doubles.
const DOUBLING_SHORT: u32 = 4;

/// Answers of hardly a byte in a row after which a peer is asked for urgent work, too, only after a pause. A reader that is blocked
/// gains little by each of them, and none of its waits is long.
const FREE_TINY: u32 = 64;

/// Each time that there are this many more, the pause doubles.
const DOUBLING_TINY: u32 = 8;

/// The first pause, and the longest.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(250)];

/// What a peer has announced, and whether it is asked for it.
#[derive(Debug, Default)]
pub(super) struct Pull {
    state: State,
    /// Since when the prefetches that the peer announced have waited for a question. Goes on while the pull is in the queue for
    /// urgent work: otherwise the prefetches of a peer that is woken for urgent work again and again would never age.
    low_since: Option<Instant>,
    /// Fetches of the peer that are blocked on the origin limit. While there are any, its prefetches do not age and it is not
    /// asked for more of them.
    blocked: usize,
    /// Cost of its fetches that brought nothing, since the last one that brought something.
    cost: u32,
    /// Number of its fetches since the last full one whose answer was short.
    short: u32,
    /// Number of its fetches whose answer was tiny, since the last one with more bytes.
    tiny: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// The peer has announced nothing since it was asked.
    #[default]
    Resting,
    /// It is in the queue of this priority.
    Queued(Priority),
    /// The peer has prefetches, and those that it gave before are blocked on the origin limit.
    Blocked,
    /// The peer has work of this priority and is asked at this time.
    Paused(Instant, Priority),
    /// A worker asks. The pull was in the queue of the priority `from`. `serves` is the kind of work that the peer was chosen for.
    /// What wakes the peer meanwhile is kept.
    Asking { from: Priority, serves: Priority, woken: Option<Priority> },
    /// The peer panicked, or was cancelled.
    Gone,
}

impl Pull {
    /// The peer has work. The next piece has this priority.
    pub(super) fn handle_woken(&mut self, priority: Priority, now: Instant) {
        let announces_low = match self.state {
            State::Resting | State::Queued(_) | State::Paused(..) => priority == Priority::Low,
            // The wake for urgent work lets it be asked for the prefetches, too.
            State::Blocked => priority == Priority::High,
            State::Asking { .. } | State::Gone => false,
        };
        if announces_low {
            self.low_since.get_or_insert(now);
        }
        match self.state {
            State::Resting if priority == Priority::Low && self.blocked > 0 => {
                (self.state, self.low_since) = (State::Blocked, None);
            }
            // It is queued when the last of its fetches is not blocked any more.
            State::Blocked if priority == Priority::Low => {}
            State::Resting | State::Blocked => {
                self.state = match self.pause_of(priority) {
                    Some(pause) => State::Paused(now + pause, priority),
                    None => State::Queued(priority),
                }
            }
            // The end of each short answer wakes the peer, and so does the reader that has read it.
            State::Paused(until, queue) if self.pause_of(queue.max(priority)).is_some() => {
                self.state = State::Paused(until, queue.max(priority));
            }
            State::Paused(_, queue) | State::Queued(queue) => self.state = State::Queued(queue.max(priority)),
            // Kept for the end of the question: the peer may have been woken after it had looked for work.
            State::Asking { from, serves, woken } => {
                self.state = State::Asking { from, serves, woken: woken.max(Some(priority)) };
            }
            State::Gone => {}
        }
    }

    /// A worker asks the peer, which was chosen for its urgent work or for its prefetches. Returns since when the prefetches wait.
    pub(super) fn handle_asked(&mut self, serves: Priority) -> Option<Instant> {
        // Not always `serves`: a pull in the queue for urgent work may be chosen by the age of its prefetches.
        let from = if let State::Queued(queue) = self.state { queue } else { serves };
        self.state = State::Asking { from, serves, woken: None };
        self.low_since
    }

    /// The peer has answered. It was asked for work of at least the priority `asked`.
    pub(super) fn handle_answered(&mut self, asked: Priority, answer: Answer, now: Instant) {
        let woken = self.end_question(asked, answer);
        let more = match answer {
            Answer::Fetch { more, .. } => more,
            Answer::Ended { why, more } => {
                self.add_cost(why);
                more
            }
            // Asked for urgent work only, it may still have prefetches.
            Answer::Wait => asked == Priority::High,
            Answer::Gone => return self.stop(),
        };
        if more {
            self.low_since.get_or_insert(now);
        }
        match woken {
            Some(priority) if answer == Answer::Wait => {
                // A peer may wake itself in each question, and would be asked without end.
                self.add_cost(Fruitless::Nothing);
                self.ask_again(priority, now);
            }
            Some(priority) => self.handle_woken(priority, now),
            None if more => self.ask_again(Priority::Low, now),
            None => {}
        }
    }

    /// The peer was not asked after all, and waits as before. This costs nothing: it gave no fruitless answer.
    pub(super) fn handle_not_asked(&mut self, now: Instant) {
        let State::Asking { from, woken, .. } = self.state else { return };
        self.state = State::Queued(from);
        if let Some(priority) = woken {
            self.handle_woken(priority, now);
        }
    }

    /// A fetch of the peer brought bytes.
    pub(super) fn handle_fruitful(&mut self) {
        (self.cost, self.short, self.tiny) = (0, 0, 0);
    }

    /// A fetch that the peer gave ended without a byte, or with a few.
    pub(super) fn handle_fruitless(&mut self, why: Fruitless) {
        self.add_cost(why);
    }

    /// A fetch of the peer is blocked on the origin limit from now on.
    pub(super) fn handle_blocked(&mut self) {
        self.blocked += 1;
    }

    /// A blocked fetch of the peer is not blocked any more, for whatever reason.
    pub(super) fn handle_unblocked(&mut self, now: Instant) {
        self.blocked -= 1;
        if self.blocked > 0 {
            return;
        }
        if self.state != State::Queued(Priority::Low) {
            // It could not be asked before, so it has not waited either.
            self.low_since = self.low_since.map(|_| now);
        }
        if self.state == State::Blocked {
            self.low_since = Some(now);
            self.state = State::Queued(Priority::Low);
        }
    }

    /// Ends its pause if that is over.
    pub(super) fn handle_time(&mut self, now: Instant) {
        if let State::Paused(until, priority) = self.state {
            if until <= now {
                // A wake of a queued pull begins no other pause.
                let is_blocked = self.blocked > 0 && priority == Priority::Low;
                self.state = if is_blocked { State::Resting } else { State::Queued(priority) };
                self.handle_woken(priority, now);
            }
        }
    }

    /// The peer is never asked again.
    pub(super) fn stop(&mut self) {
        self.state = State::Gone;
    }

    /// The queue that the pull belongs into, if any.
    pub(super) fn place(&self) -> Option<PullPlace> {
        let State::Queued(queue) = self.state else { return None };
        Some(PullPlace { queue, since: self.low_since.filter(|_| self.blocked == 0) })
    }

    /// When its pause is over.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        if let State::Paused(until, _) = self.state { Some(until) } else { None }
    }

    /// Records what an answer shows of the announced prefetches. Returns what woke the peer meanwhile.
    fn end_question(&mut self, asked: Priority, answer: Answer) -> Option<Priority> {
        let State::Asking { serves, woken, .. } = self.state else { return None };
        self.state = State::Resting;
        let is_waiting = match answer {
            Answer::Fetch { fetch_info: FetchInfo { priority: Priority::Low, .. }, .. } => false,
            // Where the peer was chosen for its prefetches, urgent work and a fetch that has ended count as one, too. Otherwise a
            // peer with a thousand of these would always be the oldest one, and keep the others back.
            Answer::Fetch { more, .. } | Answer::Ended { more, .. } => more && serves == Priority::High,
            Answer::Wait => asked == Priority::High,
            Answer::Gone => false,
        };
        self.low_since = self.low_since.filter(|_| is_waiting);
        woken
    }

    /// Asks a peer that may have more work of this priority: now, or after a pause.
    fn ask_again(&mut self, priority: Priority, now: Instant) {
        let Some(cost) = self.cost.checked_sub(FREE_COST) else {
            return self.handle_woken(priority, now);
        };
        if self.state == State::Resting {
            self.state = State::Paused(now + pause(cost / DOUBLING_COST), priority);
        }
    }

    /// The pause before it is asked for work of this priority, after too many short answers.
    fn pause_of(&self, priority: Priority) -> Option<Duration> {
        let doublings = match priority {
            Priority::Low => self.short.checked_sub(FREE_SHORT)? / DOUBLING_SHORT,
            Priority::High => self.tiny.checked_sub(FREE_TINY)? / DOUBLING_TINY,
        };
        Some(pause(doublings))
    }

    fn add_cost(&mut self, why: Fruitless) {
        let cost = match why {
            Fruitless::Cancelled | Fruitless::Nothing => 1,
            // It may have reached a server, which should not be asked without end.
            Fruitless::Failed => 64,
            Fruitless::Short | Fruitless::Tiny => {
                (self.cost, self.short) = (0, self.short.saturating_add(1));
                self.tiny = if why == Fruitless::Tiny { self.tiny.saturating_add(1) } else { 0 };
                return;
            }
            Fruitless::Little => {
                self.cost = 0;
                return;
            }
        };
        self.cost = self.cost.saturating_add(cost);
    }
}

fn pause(doublings: u32) -> Duration {
    let [first, longest] = PAUSES;
    first.saturating_mul(2_u32.saturating_pow(doublings)).min(longest)
}

#[cfg(test)]
impl Pull {
    pub(super) fn state(&self) -> State {
        self.state
    }

    pub(super) fn has_blocked(&self) -> bool {
        self.blocked > 0
    }
}
