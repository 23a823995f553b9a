//! What an idle worker runs next, and whether it may run what a peer gave. The [module](super) gives the reasons.

use std::time::Instant;

use super::Schedule;
use super::backlog::Popped;
use super::preemption::missing_workers;
use super::types::{Admission, Assignment, Choice, FetchInfo, WorkerId};
use super::workers::Running;
use crate::types::Priority;

impl Schedule {
    /// What an idle worker runs next. The [module](self) gives the reasons.
    pub(super) fn choose(&self, now: Instant) -> Option<Choice> {
        let has_room = self.workers.has_room();
        let first = |peer, queue| {
            let peer = self.backlog.queues().first(peer, queue)?;
            Some(Choice { peer, queue, aged: None, protected: false })
        };
        let urgent = |peer| first(peer, Priority::High);
        if self.urgent_is_next && self.backlog.queues().urgent() > 0 {
            return urgent(Priority::High).or_else(|| urgent(Priority::Low));
        }
        if let Some(aged) = self.backlog.queues().aging().oldest_aged(now).filter(|_| has_room) {
            let protected = self.workers.may_protect(now);
            // Without protection it would only be preempted by the urgent work that waits.
            if protected || self.backlog.queues().urgent() == 0 {
                return Some(Choice {
                    peer: aged.peer,
                    queue: aged.queue,
                    aged: Some(aged.place),
                    protected,
                });
            }
        }
        let may_prefetch = has_room && self.throttle.is_open(now);
        let prefetch = |peer| if may_prefetch { first(peer, Priority::Low) } else { None };
        urgent(Priority::High)
            // Before urgent work of peers with low priority: the priority of the peer is the user's choice, that of the fetch
            // is within it.
            .or_else(|| prefetch(Priority::High))
            .or_else(|| urgent(Priority::Low))
            .or_else(|| prefetch(Priority::Low))
    }

    /// Takes what was chosen out of its queue, for `worker`. `None` if it is blocked on its origin.
    pub(super) fn take(&mut self, choice: Choice, worker: WorkerId, now: Instant) -> Option<Assignment> {
        let Choice { peer, queue, protected, .. } = choice;
        let (request, origin, since) = match self.backlog.pop(peer, queue, choice.aged)? {
            Popped::Pull => return self.ask(choice, worker, now),
            Popped::Blocked => return None,
            Popped::Fetch { request, origin, since } => (request, origin, since),
        };
        let running = Running {
            peer,
            priority: queue,
            fetch: Some((request, origin)),
            aborted: None,
            since: now,
            // If it is demoted, it has not waited as a prefetch yet.
            waiting_since: since.unwrap_or(now),
            protected,
        };
        self.workers.occupy(worker, running);
        Some(Assignment::Run { request, protected })
    }

    /// Lets `worker` ask the peer whose pull was chosen.
    pub(super) fn ask(&mut self, choice: Choice, worker: WorkerId, now: Instant) -> Option<Assignment> {
        let Choice { peer, protected, .. } = choice;
        // The peer may answer with anything admissible, so the room for a prefetch is taken beforehand.
        // A lent thread runs only what its own reader is blocked on.
        let may_prefetch = self.workers.has_room() && !self.workers.is_lent(worker);
        let admissible = if may_prefetch { Priority::Low } else { Priority::High };
        let waiting_since =
            self.backlog.update_pull(peer, |pull| pull.handle_asked(choice.serves()))?.unwrap_or(now);
        let asking = Running {
            peer,
            priority: admissible,
            fetch: None,
            aborted: None,
            since: now,
            waiting_since,
            protected,
        };
        self.workers.occupy(worker, asking);
        Some(Assignment::Ask { peer, admissible })
    }

    /// Lets `worker` run what the peer that it asked gave, or queues that.
    pub(super) fn admit(
        &mut self,
        worker: WorkerId,
        asking: Running,
        fetch_info: FetchInfo,
        now: Instant,
    ) -> Admission {
        let FetchInfo { request, priority, origin } = fetch_info;
        let is_low = priority == Priority::Low;
        let protected = is_low && asking.protected;
        if is_low && self.has_to_wait(worker, asking, now) {
            self.workers.release(worker);
            // It keeps the age of the announcement that brought it. Else the prefetches of a peer that is passed again and
            // again never age.
            let is_queued = self.backlog.push(asking.peer, fetch_info, asking.waiting_since);
            return if is_queued { Admission::Waits } else { Admission::Refused };
        }
        // The limit of an origin is one for prefetches. Urgent work never waits for it.
        if !is_low || self.backlog.try_enter(origin) {
            let fetch = Some((request, origin));
            // A turn begins only now: a peer that took long to answer has not used up the protection of its fetch.
            self.workers.occupy(worker, Running { fetch, priority, since: now, protected, ..asking });
            return Admission::Run { protected };
        }
        self.workers.release(worker);
        if self.backlog.block(asking.peer, fetch_info) { Admission::Waits } else { Admission::Refused }
    }

    /// True if a prefetch must not run now on the worker that asked its peer.
    pub(super) fn has_to_wait(&self, worker: WorkerId, asking: Running, now: Instant) -> bool {
        let priority = self.backlog.priority(asking.peer).unwrap_or(Priority::Low);
        // Urgent work came meanwhile, which goes before it and needs this worker.
        let is_passed = !asking.protected
            && self.backlog.queues().has_urgent_before_prefetches(priority)
            && missing_workers(self.backlog.queues().urgent(), &self.workers, now) > 0;
        // The peer was asked for urgent work only, because no other worker may run a prefetch.
        let has_no_room = asking.priority == Priority::High && !self.workers.has_room();
        is_passed || has_no_room || self.workers.is_lent(worker)
    }
}
