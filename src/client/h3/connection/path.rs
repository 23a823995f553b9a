//! Decides when a path that has gone silent is tested, and when it is dead. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Least time without a packet, while a reader waits, after which the path is tested by a PING. As long again without an
/// answer, and the connection is given up. Longer than most servers think.
pub(super) const PATH_SILENCE: Duration = Duration::from_millis(500);

/// The same in round trips: two for a lost packet and its repetition, twice.
const PATH_SILENCE_RTTS: u32 = 4;

/// What is to be done about the silence of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing before this time.
    Wait(Instant),
    /// Send a PING, and ask again at this time.
    Ping(Instant),
    /// The path is dead: silent for this time, also after a PING.
    Dead(Duration),
}

/// Watches the path of a connection while a reader waits. Without one, silence costs nothing.
#[derive(Debug)]
pub(super) struct PathWatch {
    /// When the last packet arrived.
    heard: Option<Instant>,
    /// When the path was tested. `None` once a packet has arrived since.
    tested: Option<Instant>,
    /// Readers that wait, and since when there has always been one.
    waiting: u32,
    waiting_since: Instant,
}

impl PathWatch {
    pub(super) fn new(now: Instant) -> Self {
        Self { heard: None, tested: None, waiting: 0, waiting_since: now }
    }

    /// Records that packets have arrived, which the server has sent.
    pub(super) fn handle_packets(&mut self, now: Instant) {
        (self.heard, self.tested) = (Some(now), None);
    }

    /// Records that a reader begins to wait.
    pub(super) fn handle_wait(&mut self, now: Instant) {
        self.waiting += 1;
        if self.waiting == 1 {
            self.waiting_since = now;
        }
    }

    /// Records that a reader waits no longer.
    pub(super) fn handle_wait_end(&mut self) {
        self.waiting -= 1;
    }

    /// True if a reader waits.
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting > 0
    }

    /// When the last packet arrived.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// True if a packet has arrived at `time` or later.
    pub(super) fn has_heard_since(&self, time: Instant) -> bool {
        self.heard.is_some_and(|heard| heard >= time)
    }

    /// What is to be done now, for a reader that waits.
    pub(super) fn poll(&mut self, now: Instant, rtt: Duration) -> Step {
        let silence = PATH_SILENCE.max(rtt * PATH_SILENCE_RTTS);
        let quiet_since = self.heard.map_or(self.waiting_since, |heard| heard.max(self.waiting_since));
        // The present readers get a test of their own: an older one was for a path that was not watched since.
        match self.tested.filter(|tested| *tested >= self.waiting_since) {
            None if now < quiet_since + silence => Step::Wait(quiet_since + silence),
            None => {
                self.tested = Some(now);
                Step::Ping(now + silence)
            }
            Some(tested) if now < tested + silence => Step::Wait(tested + silence),
            Some(_) => Step::Dead(now - quiet_since),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(40);
    const SILENCE: Duration = PATH_SILENCE;

    fn watch() -> (PathWatch, Instant) {
        let start = Instant::now();
        let mut watch = PathWatch::new(start);
        watch.handle_wait(start);
        (watch, start)
    }

    #[test]
    fn a_silent_path_is_tested_once_and_then_dead() {
        let (mut watch, start) = watch();
        assert_eq!(watch.poll(start, RTT), Step::Wait(start + SILENCE));
        assert_eq!(watch.poll(start + SILENCE, RTT), Step::Ping(start + 2 * SILENCE));
        assert_eq!(watch.poll(start + SILENCE + RTT, RTT), Step::Wait(start + 2 * SILENCE));
        assert_eq!(watch.poll(start + 2 * SILENCE, RTT), Step::Dead(2 * SILENCE));
    }

    #[test]
    fn a_path_that_returns_is_tested_again_only_after_another_silence() {
        let (mut watch, start) = watch();
        assert_eq!(watch.poll(start + SILENCE, RTT), Step::Ping(start + 2 * SILENCE));
        let back = start + SILENCE + RTT;
        watch.handle_packets(back);
        assert_eq!(watch.poll(start + 2 * SILENCE, RTT), Step::Wait(back + SILENCE));
        assert_eq!(watch.poll(back + SILENCE, RTT), Step::Ping(back + 2 * SILENCE));
    }

    #[test]
    fn a_long_path_gets_the_time_of_its_round_trips() {
        let (mut watch, start) = watch();
        let rtt = Duration::from_secs(1);
        assert_eq!(watch.poll(start + SILENCE, rtt), Step::Wait(start + 4 * rtt));
    }

    #[test]
    fn silence_before_a_reader_came_does_not_count() {
        let (mut watch, start) = watch();
        watch.handle_packets(start);
        watch.handle_wait_end();
        let later = start + Duration::from_secs(60);
        watch.handle_wait(later);
        assert_eq!(watch.poll(later, RTT), Step::Wait(later + SILENCE));
    }

    #[test]
    fn a_test_for_earlier_readers_does_not_count_for_later_ones() {
        let (mut watch, start) = watch();
        assert_eq!(watch.poll(start + SILENCE, RTT), Step::Ping(start + 2 * SILENCE));
        watch.handle_wait_end();
        let later = start + Duration::from_secs(60);
        watch.handle_wait(later);
        assert_eq!(watch.poll(later, RTT), Step::Wait(later + SILENCE));
        assert_eq!(watch.poll(later + SILENCE, RTT), Step::Ping(later + 2 * SILENCE));
    }
}
