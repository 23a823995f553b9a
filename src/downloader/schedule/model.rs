//! The schedule against a model of it: all its inputs in random order, and after each step the same answer from plain
//! lists that are searched from end to end.
//!
//! Besides the agreement it is checked that nobody is passed over twice, that limits hold, that nothing is lost or comes
//! twice, and that deadlines are honest: nothing becomes possible before the announced one, and none is announced again
//! once it has come.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use super::*;

/// What may happen. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Register(Priority),
    Unregister(usize),
    Submit(usize, Priority, u64),
    Wake(usize, Priority),
    Cancel(usize),
    Prioritise(usize, Priority),
    Promote(usize, Priority),
    /// One assignment.
    Poll,
    /// All that can be done now.
    Settle,
    /// What is on the worker ends: a peer answers, or its fetch is over.
    Answer(usize, Reply),
    Finish(usize),
    Retry(usize, u64),
    SetAside(usize),
    /// Time passes, to just before the next deadline, to it, or by so many milliseconds.
    Pass(Until),
}

#[derive(Clone, Copy, Debug)]
enum Reply {
    Fetch { high: bool, origin: u64, more: bool },
    Wait,
    Gone,
}

#[derive(Clone, Copy, Debug)]
enum Until {
    Before,
    Deadline,
    After(u64),
}

fn priorities() -> impl Strategy<Value = Priority> {
    prop_oneof![Just(Priority::High), Just(Priority::Low)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let which = any::<usize>;
    let reply = prop_oneof![
        6 => any::<(bool, bool)>().prop_flat_map(|(high, more)| {
            (0..3_u64).prop_map(move |origin| Reply::Fetch { high, origin, more })
        }),
        2 => Just(Reply::Wait),
        1 => Just(Reply::Gone),
    ];
    let until = prop_oneof![
        2 => Just(Until::Before),
        3 => Just(Until::Deadline),
        2 => (0..20_u64).prop_map(Until::After),
        1 => (0..20_000_u64).prop_map(Until::After),
    ];
    let step = prop_oneof![
        2 => priorities().prop_map(Step::Register),
        1 => which().prop_map(Step::Unregister),
        8 => (which(), priorities(), 0..3_u64).prop_map(|(peer, fetch, origin)| Step::Submit(peer, fetch, origin)),
        4 => (which(), priorities()).prop_map(|(peer, fetch)| Step::Wake(peer, fetch)),
        2 => which().prop_map(Step::Cancel),
        1 => (which(), priorities()).prop_map(|(peer, to)| Step::Prioritise(peer, to)),
        2 => (which(), priorities()).prop_map(|(fetch, to)| Step::Promote(fetch, to)),
        4 => Just(Step::Poll),
        4 => Just(Step::Settle),
        5 => (which(), reply).prop_map(|(worker, reply)| Step::Answer(worker, reply)),
        5 => which().prop_map(Step::Finish),
        2 => (which(), 0..3000_u64).prop_map(|(worker, after)| Step::Retry(worker, after)),
        3 => which().prop_map(Step::SetAside),
        5 => until.prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..150)
}

fn some_limits() -> impl Strategy<Value = Limits> {
    (1..5_usize, 0..2_usize, 1..4_usize, prop_oneof![Just(0_u64), Just(50)], 1..3_u64).prop_map(
        |(workers, reserved, max_per_origin, throttle, max_wait)| Limits {
            workers,
            reserved: reserved.min(workers - 1),
            max_per_origin,
            demand_throttle: Duration::from_millis(throttle),
            max_wait: Duration::from_secs(max_wait),
        },
    )
}

/// Something that waits. `request` is `None` for a pull.
#[derive(Clone, Copy, Debug)]
struct Item {
    request: Option<RequestId>,
    peer: PeerKey,
    priority: Priority,
    origin: Origin,
    since: Instant,
    set_aside: bool,
}

#[derive(Clone, Debug)]
struct PeerModel {
    key: PeerKey,
    priority: Priority,
    /// Its turn in each of its queues; the lowest goes first.
    turns: [i64; 2],
    pull: PullModel,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PullModel {
    Resting,
    Queued,
    Held,
    Asking(Option<Priority>),
    Gone,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    /// `None` while the peer is asked.
    fetch: Option<(RequestId, Origin)>,
    peer: PeerKey,
    priority: Priority,
    evicted: bool,
    since: Instant,
    protected_until: Option<Instant>,
}

/// The schedule as plain as can be.
struct Model {
    limits: Limits,
    peers: Vec<PeerModel>,
    /// What is queued; of one peer and priority what comes first goes first.
    queue: Vec<Item>,
    retries: Vec<(Instant, Item)>,
    parked: Vec<Item>,
    running: Vec<Option<Running>>,
    last_awaited: Option<Instant>,
    pressed_since: Option<Instant>,
    turns: i64,
    first_turn: i64,
    /// Who was passed over, in which queue, by whom, since its last turn.
    passed: Vec<(PeerKey, Priority, PeerKey)>,
    /// Who stands in front because a fetch of it was set aside.
    boosted: Vec<(PeerKey, Priority)>,
}

impl Model {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            peers: Vec::new(),
            queue: Vec::new(),
            retries: Vec::new(),
            parked: Vec::new(),
            running: vec![None; limits.workers],
            last_awaited: None,
            pressed_since: None,
            turns: 0,
            first_turn: 0,
            passed: Vec::new(),
            boosted: Vec::new(),
        }
    }

    fn peer(&mut self, key: PeerKey) -> Option<&mut PeerModel> {
        self.peers.iter_mut().find(|peer| peer.key == key)
    }

    fn has_queued(&self, peer: PeerKey, priority: Priority) -> bool {
        self.queue.iter().any(|item| item.peer == peer && item.priority == priority)
    }

    fn class(&self, item: &Item) -> usize {
        let peer = self.peers.iter().find(|peer| peer.key == item.peer);
        class(peer.map_or(Priority::Low, |peer| peer.priority), item.priority)
    }

    fn push(&mut self, item: Item, in_front: bool) {
        if !self.has_queued(item.peer, item.priority) {
            self.turns += 1;
            let turn = self.turns;
            self.peer(item.peer).unwrap().turns[item.priority.rank()] = turn;
        }
        if in_front { self.queue.insert(0, item) } else { self.queue.push(item) }
    }

    /// Forgets who passed whom where nothing is queued any more.
    fn tidy(&mut self) {
        let queue = std::mem::take(&mut self.queue);
        let has = |peer: PeerKey, priority: Priority| {
            queue.iter().any(|item| item.peer == peer && item.priority == priority)
        };
        self.passed.retain(|(peer, priority, _)| has(*peer, *priority));
        self.boosted.retain(|(peer, priority)| has(*peer, *priority));
        self.queue = queue;
    }

    fn low(&self) -> usize {
        self.running.iter().flatten().filter(|running| running.priority == Priority::Low).count()
    }

    /// Low fetches of an origin that run or were set aside.
    fn active(&self, origin: Origin) -> usize {
        let running = self.running.iter().flatten().filter(|running| {
            running.priority == Priority::Low && running.fetch.is_some_and(|(_, at)| at == origin)
        });
        let aside = self.queue.iter().filter(|item| item.set_aside && item.origin == origin);
        running.count() + aside.count()
    }

    fn wake(&mut self, key: PeerKey, priority: Priority, now: Instant) {
        let holds = priority == Priority::Low && self.parked.iter().any(|item| item.peer == key);
        let Some(peer) = self.peer(key) else { return };
        match peer.pull {
            PullModel::Resting if holds => peer.pull = PullModel::Held,
            PullModel::Held if priority == Priority::Low => {}
            PullModel::Resting | PullModel::Held => self.queue_pull(key, priority, now),
            PullModel::Queued => {
                let pull = |item: &Item| item.peer == key && item.request.is_none();
                let index = self.queue.iter().position(pull).unwrap();
                if self.queue[index].priority < priority {
                    self.queue.remove(index);
                    self.queue_pull(key, priority, now);
                }
            }
            PullModel::Asking(woken) => peer.pull = PullModel::Asking(woken.max(Some(priority))),
            PullModel::Gone => {}
        }
    }

    fn queue_pull(&mut self, peer: PeerKey, priority: Priority, now: Instant) {
        self.peer(peer).unwrap().pull = PullModel::Queued;
        let item = Item { request: None, peer, priority, origin: Origin(0), since: now, set_aside: false };
        self.push(item, false);
    }

    /// A Low fetch of an origin is over: the first that waited for that is queued.
    fn leave(&mut self, origin: Origin, now: Instant) {
        let Some(index) = self.parked.iter().position(|item| item.origin == origin) else { return };
        let item = Item { since: now, ..self.parked.remove(index) };
        self.push(item, true);
        self.release(item.peer, now);
    }

    /// A peer is asked again once nothing of it is parked, wherever that went.
    fn release(&mut self, peer: PeerKey, now: Instant) {
        let holds = self.parked.iter().any(|other| other.peer == peer);
        if !holds && self.peer(peer).is_some_and(|peer| peer.pull == PullModel::Held) {
            self.queue_pull(peer, Priority::Low, now);
        }
    }

    /// Takes a fetch from where it waits.
    fn take_out(&mut self, request: RequestId, now: Instant) -> Option<Item> {
        let is_it = |item: &Item| item.request == Some(request);
        if let Some(index) = self.queue.iter().position(is_it) {
            let item = self.queue.remove(index);
            if item.set_aside {
                self.leave(item.origin, now);
            }
            return Some(item);
        }
        if let Some(index) = self.parked.iter().position(is_it) {
            return Some(self.parked.remove(index));
        }
        let index = self.retries.iter().position(|(_, item)| is_it(item))?;
        Some(self.retries.remove(index).1)
    }

    fn promote(&mut self, request: RequestId, priority: Priority, now: Instant) {
        let mut running = self.running.iter_mut().flatten();
        if let Some(running) = running.find(|running| running.fetch.is_some_and(|(id, _)| id == request)) {
            let old = std::mem::replace(&mut running.priority, priority);
            match running.fetch {
                Some((_, origin)) if old < priority => self.leave(origin, now),
                _ => {}
            }
            return;
        }
        if let Some((_, item)) = self.retries.iter_mut().find(|(_, item)| item.request == Some(request)) {
            item.priority = priority;
            return;
        }
        let waits = |item: &&Item| item.request == Some(request) && item.priority != priority;
        if self.queue.iter().chain(&self.parked).any(|item| waits(&item)) {
            let item = self.take_out(request, now).unwrap();
            let item = Item { priority, since: now, set_aside: false, ..item };
            self.push(item, priority == Priority::High);
            self.release(item.peer, now);
        }
    }

    /// What has to be done next.
    fn poll(&mut self, now: Instant) -> Result<Option<Assignment>, TestCaseError> {
        self.retries.sort_by_key(|(at, item)| (*at, item.request));
        while self.retries.first().is_some_and(|(at, _)| *at <= now) {
            let (_, item) = self.retries.remove(0);
            self.push(Item { since: now, ..item }, true);
        }
        loop {
            let idle = self.running.iter().any(Option::is_none);
            let room = self.low() < self.limits.workers - self.limits.reserved;
            let Some((index, overdue)) = self.choose(room, now).filter(|_| idle) else { return Ok(None) };
            let item = self.queue.remove(index);
            let Item { peer, priority, origin, .. } = item;
            self.note_turn(&item, overdue)?;
            let Some(request) = item.request else {
                self.peer(peer).unwrap().pull = PullModel::Asking(None);
                let admissible = if room { Priority::Low } else { Priority::High };
                self.last_awaited = if priority == Priority::High { Some(now) } else { self.last_awaited };
                self.occupy(None, peer, admissible, overdue, now);
                return Ok(Some(Assignment::Ask { peer, admissible }));
            };
            let is_full = self.active(origin) >= self.limits.max_per_origin;
            if priority == Priority::Low && !item.set_aside && is_full {
                self.parked.push(item);
                continue;
            }
            self.last_awaited = if priority == Priority::High { Some(now) } else { self.last_awaited };
            self.occupy(Some((request, origin)), peer, priority, overdue, now);
            return Ok(Some(Assignment::Run { request, protected: overdue }));
        }
    }

    /// Where in the queue the next one stands, and whether it has waited for too long.
    fn choose(&self, room: bool, now: Instant) -> Option<(usize, bool)> {
        let low = self.queue.iter().enumerate().filter(|(_, item)| item.priority == Priority::Low);
        if let Some((_, oldest)) = low.min_by_key(|(_, item)| item.since).filter(|_| room) {
            if oldest.since + self.limits.max_wait <= now {
                return self.oldest_of(oldest.since).map(|index| (index, true));
            }
        }
        let quiet = self.last_awaited.is_none_or(|last| last + self.limits.demand_throttle <= now);
        let throttled = !self.limits.demand_throttle.is_zero() && !quiet;
        let admissible = |item: &Item| item.priority == Priority::High || room && !throttled;
        let turn = |item: &Item| {
            let peer = self.peers.iter().find(|peer| peer.key == item.peer).unwrap();
            (self.class(item), peer.turns[item.priority.rank()])
        };
        let first = |admissible: &dyn Fn(&Item) -> bool| {
            let items = self.queue.iter().enumerate().filter(|(_, item)| admissible(item));
            items.min_by_key(|(index, item)| (turn(item), *index)).map(|(index, _)| index)
        };
        let next = first(&admissible)?;
        // What was set aside for awaited work does not come before it.
        let awaited = first(&|item| item.priority == Priority::High);
        let index = awaited.filter(|_| self.queue[next].set_aside).unwrap_or(next);
        Some((index, false))
    }

    /// Of what has waited since then the one of the first peer, and of that its first.
    fn oldest_of(&self, since: Instant) -> Option<usize> {
        let same = self.queue.iter().enumerate();
        let same = same.filter(|(_, item)| item.priority == Priority::Low && item.since == since);
        same.min_by_key(|(index, item)| (item.peer, *index)).map(|(index, _)| index)
    }

    /// Between two turns of one peer every equal one with work has its turn.
    fn note_turn(&mut self, item: &Item, overdue: bool) -> Result<(), TestCaseError> {
        let Item { peer, priority, .. } = *item;
        self.turns += 1;
        let turn = self.turns;
        self.peer(peer).unwrap().turns[priority.rank()] = turn;
        self.passed.retain(|(other, queue, _)| (*other, *queue) != (peer, priority));
        let boosted = self.boosted.contains(&(peer, priority));
        self.boosted.retain(|boosted| *boosted != (peer, priority));
        if overdue || boosted {
            return Ok(());
        }
        let class = self.class(item);
        let mut equals: Vec<PeerKey> = self
            .queue
            .iter()
            .filter(|other| other.peer != peer && self.class(other) == class)
            .map(|other| other.peer)
            .collect();
        equals.sort();
        equals.dedup();
        for other in equals {
            let passed = (other, priority, peer);
            prop_assert!(!self.passed.contains(&passed), "{peer:?} had two turns and {other:?} none");
            self.passed.push(passed);
        }
        Ok(())
    }

    fn occupy(
        &mut self,
        fetch: Option<(RequestId, Origin)>,
        peer: PeerKey,
        priority: Priority,
        overdue: bool,
        now: Instant,
    ) {
        let protected_until = (overdue && fetch.is_some()).then(|| now + PROTECTED);
        let running = Running { fetch, peer, priority, evicted: false, since: now, protected_until };
        let idle = self.running.iter_mut().find(|running| running.is_none());
        *idle.unwrap() = Some(running);
    }

    /// What the worker that the schedule calls so runs here: they are told apart by what they run only.
    fn find(&self, busy: &Busy) -> usize {
        let same = |running: &Option<Running>| {
            running.is_some_and(|running| {
                running.peer == busy.peer && running.fetch.map(|(id, _)| id) == busy.fetch.map(|(id, _)| id)
            })
        };
        self.running.iter().position(same).unwrap()
    }

    /// How many awaited ones find no worker, and how many Low bodies could yield.
    fn pressure(&self, now: Instant) -> (usize, usize) {
        let awaited = self.queue.iter().filter(|item| item.priority == Priority::High).count();
        let evicted = self.running.iter().flatten().filter(|running| running.evicted).count();
        let idle = self.running.iter().filter(|running| running.is_none()).count();
        let open = self.running.iter().flatten().filter(|running| can_yield(running, now)).count();
        (awaited.saturating_sub(evicted + idle), open)
    }

    fn yields(&mut self, now: Instant) -> usize {
        let (wanted, open) = self.pressure(now);
        self.pressed_since = (wanted.min(open) > 0).then(|| self.pressed_since.unwrap_or(now));
        wanted.min(open)
    }

    fn evicts(&self, now: Instant) -> bool {
        let (wanted, _) = self.pressure(now);
        let had_its_time = |running: &Running| can_yield(running, now) && running.since + YIELD_LIMIT <= now;
        let open = self.running.iter().flatten().any(had_its_time);
        wanted > 0 && open && self.pressed_since.is_some_and(|since| since + YIELD_LIMIT <= now)
    }

    fn counts(&self) -> Counts {
        let mut queued = [0; 4];
        self.queue.iter().for_each(|item| queued[self.class(item)] += 1);
        let busy = self.running.iter().flatten().count();
        Counts {
            queued,
            parked: self.parked.len(),
            retrying: self.retries.len(),
            set_aside: self.queue.iter().filter(|item| item.set_aside).count(),
            busy,
            idle: self.running.len() - busy,
            peers: self.peers.len(),
        }
    }
}

fn can_yield(running: &Running, now: Instant) -> bool {
    running.priority == Priority::Low
        && running.fetch.is_some()
        && !running.evicted
        && running.protected_until.is_none_or(|until| until <= now)
}

/// Both, side by side.
struct Pair {
    schedule: Schedule,
    model: Model,
    now: Instant,
    requests: u64,
}

impl Pair {
    fn run(&mut self, step: Step) -> Result<(), TestCaseError> {
        let now = self.now;
        match step {
            Step::Register(priority) => {
                let key = self.schedule.handle_registered(priority);
                let peer = PeerModel { key, priority, turns: [0; 2], pull: PullModel::Resting };
                self.model.peers.push(peer);
            }
            Step::Unregister(which) => {
                if let Some(key) = self.peer(which) {
                    self.unregister(key)?;
                }
            }
            Step::Submit(which, priority, origin) => {
                let Some(peer) = self.peer(which) else { return Ok(()) };
                let ticket = self.ticket(priority, origin);
                prop_assert!(self.schedule.handle_submitted(peer, ticket, now));
                let Ticket { request, origin, .. } = ticket;
                let request = Some(request);
                self.model
                    .push(Item { request, peer, priority, origin, since: now, set_aside: false }, false);
            }
            Step::Wake(which, priority) => {
                let Some(peer) = self.peer(which) else { return Ok(()) };
                self.schedule.handle_woken(peer, priority, now);
                self.model.wake(peer, priority, now);
            }
            Step::Cancel(which) => {
                let Some(request) = self.request(which) else { return Ok(()) };
                let waited = self.model.take_out(request, now);
                prop_assert_eq!(self.schedule.handle_cancelled(request, now), waited.is_some());
                waited.into_iter().for_each(|item| self.model.release(item.peer, now));
            }
            Step::Prioritise(which, priority) => {
                let Some(peer) = self.peer(which) else { return Ok(()) };
                self.schedule.set_priority(peer, priority);
                self.model.peer(peer).unwrap().priority = priority;
                self.model.passed.retain(|(passed, _, by)| *passed != peer && *by != peer);
            }
            Step::Promote(which, priority) => {
                let Some(request) = self.request(which) else { return Ok(()) };
                self.schedule.promote(request, priority, now);
                self.model.promote(request, priority, now);
            }
            Step::Poll => {
                self.poll()?;
            }
            Step::Settle => self.settle()?,
            Step::Answer(which, reply) => self.answer(which, reply)?,
            Step::Finish(which) => {
                if let Some((worker, running)) = self.take_running(which) {
                    self.schedule.handle_finished(worker, now);
                    self.leave(&running);
                }
            }
            Step::Retry(which, after) => self.retry(which, now + Duration::from_millis(after))?,
            Step::SetAside(which) => self.set_aside(which)?,
            Step::Pass(until) => self.pass(until)?,
        }
        self.model.tidy();
        self.check()
    }

    fn peer(&self, which: usize) -> Option<PeerKey> {
        let peers = &self.model.peers;
        (!peers.is_empty()).then(|| peers[which % peers.len()].key)
    }

    fn request(&self, which: usize) -> Option<RequestId> {
        (self.requests > 0).then(|| RequestId::new(1 + which as u64 % self.requests))?
    }

    fn ticket(&mut self, priority: Priority, origin: u64) -> Ticket {
        self.requests += 1;
        let request = RequestId::new(self.requests).unwrap();
        Ticket { request, priority, origin: Origin(origin) }
    }

    /// A worker that runs a fetch, which it is rid of in the model.
    fn take_running(&mut self, which: usize) -> Option<(WorkerId, Running)> {
        let worker = which % self.schedule.workers.len();
        let busy = self.schedule.workers[worker].filter(|busy| busy.fetch.is_some())?;
        let index = self.model.find(&busy);
        self.model.running[index].take().map(|running| (worker, running))
    }

    fn leave(&mut self, running: &Running) {
        if let (Priority::Low, Some((_, origin))) = (running.priority, running.fetch) {
            self.model.leave(origin, self.now);
        }
    }

    fn unregister(&mut self, key: PeerKey) -> Result<(), TestCaseError> {
        let mut orphans = self.schedule.handle_unregistered(key, self.now);
        let model = &mut self.model;
        let waits = model.queue.iter().chain(&model.parked).chain(model.retries.iter().map(|(_, item)| item));
        let mut left: Vec<_> =
            waits.filter(|item| item.peer == key).filter_map(|item| item.request).collect();
        // In the order of the schedule's: what is set aside makes room for what is parked, once for each.
        for request in orphans.clone() {
            model.take_out(request, self.now);
        }
        model.queue.retain(|item| item.peer != key);
        model.peers.retain(|peer| peer.key != key);
        model.passed.retain(|(_, _, by)| *by != key);
        orphans.sort();
        left.sort();
        prop_assert_eq!(orphans, left);
        Ok(())
    }

    fn answer(&mut self, which: usize, reply: Reply) -> Result<(), TestCaseError> {
        let worker = which % self.schedule.workers.len();
        let Some(busy) = self.schedule.workers[worker].filter(|busy| busy.fetch.is_none()) else {
            return Ok(());
        };
        let (peer, asked, now) = (busy.peer, busy.priority, self.now);
        let index = self.model.find(&busy);
        self.model.running[index] = None;
        let woken = match self.model.peer(peer) {
            None => None,
            Some(model) => match std::mem::replace(&mut model.pull, PullModel::Resting) {
                PullModel::Asking(woken) => woken,
                pull => return Err(TestCaseError::fail(format!("asked although {pull:?}"))),
            },
        };
        let (answer, fate, again) = match reply {
            Reply::Fetch { high, origin, more } => {
                let priority = if high { Priority::High } else { asked };
                let ticket = self.ticket(priority, origin);
                let fate = self.fate(peer, ticket);
                let again = woken.max(more.then_some(Priority::Low));
                (Answer::Fetch { ticket, more }, fate, again)
            }
            Reply::Wait => {
                let rest = (asked == Priority::High).then_some(Priority::Low);
                (Answer::Wait, Fate::Refused, woken.max(rest))
            }
            Reply::Gone => {
                if let Some(peer) = self.model.peer(peer) {
                    peer.pull = PullModel::Gone;
                }
                (Answer::Gone, Fate::Refused, None)
            }
        };
        prop_assert_eq!(self.schedule.handle_answered(worker, answer, now), fate);
        if let Some(priority) = again {
            self.model.wake(peer, priority, now);
        }
        Ok(())
    }

    /// What becomes of a fetch that a peer gave.
    fn fate(&mut self, peer: PeerKey, ticket: Ticket) -> Fate {
        let Ticket { request, priority, origin } = ticket;
        if priority == Priority::High || self.model.active(origin) < self.model.limits.max_per_origin {
            self.model.occupy(Some((request, origin)), peer, priority, false, self.now);
            return Fate::Run;
        }
        if self.model.peer(peer).is_none() {
            return Fate::Refused;
        }
        let request = Some(request);
        self.model.parked.push(Item { request, peer, priority, origin, since: self.now, set_aside: false });
        Fate::Parked
    }

    fn retry(&mut self, which: usize, at: Instant) -> Result<(), TestCaseError> {
        let Some((worker, running)) = self.take_running(which) else { return Ok(()) };
        let stays = self.model.peer(running.peer).is_some();
        prop_assert_eq!(self.schedule.handle_retry(worker, at, self.now), stays);
        self.leave(&running);
        if let (true, Some((request, origin))) = (stays, running.fetch) {
            let Running { peer, priority, .. } = running;
            let request = Some(request);
            let item = Item { request, peer, priority, origin, since: self.now, set_aside: false };
            self.model.retries.push((at, item));
        }
        Ok(())
    }

    fn set_aside(&mut self, which: usize) -> Result<(), TestCaseError> {
        let Some((worker, running)) = self.take_running(which) else { return Ok(()) };
        let Running { peer, priority, .. } = running;
        let stays = self.model.peer(peer).is_some();
        prop_assert_eq!(self.schedule.handle_set_aside(worker, self.now), stays);
        let Some((request, origin)) = running.fetch.filter(|_| stays) else {
            self.leave(&running);
            return Ok(());
        };
        let (request, set_aside) = (Some(request), priority == Priority::Low);
        self.model.push(Item { request, peer, priority, origin, since: self.now, set_aside }, true);
        self.model.first_turn -= 1;
        let turn = self.model.first_turn;
        self.model.peer(peer).unwrap().turns[priority.rank()] = turn;
        self.model.boosted.push((peer, priority));
        Ok(())
    }

    /// One assignment of both, which are the same. False if there is none.
    fn poll(&mut self) -> Result<bool, TestCaseError> {
        let low = self.model.low();
        let assigned = self.schedule.poll_assignment(self.now);
        prop_assert_eq!(assigned.map(|(_, assignment)| assignment), self.model.poll(self.now)?);
        let max_low = self.model.limits.workers - self.model.limits.reserved;
        prop_assert!(self.model.low() <= low.max(max_low), "too many Low ones on workers");
        Ok(assigned.is_some())
    }

    fn evict(&mut self) -> Result<bool, TestCaseError> {
        let expected = self.model.evicts(self.now);
        let evicted = self.schedule.poll_eviction(self.now, 0, |worker| worker);
        prop_assert_eq!(evicted.is_some(), expected);
        let Some(busy) = evicted.and_then(|worker| self.schedule.workers[worker]) else { return Ok(false) };
        let index = self.model.find(&busy);
        let running = self.model.running[index].as_mut().unwrap();
        prop_assert!(can_yield(running, self.now));
        running.evicted = true;
        Ok(true)
    }

    /// Does all that can be done now, as the one who has the turn does.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        while self.poll()? {}
        while self.evict()? {}
        prop_assert_eq!(self.schedule.poll_yields(self.now), self.model.yields(self.now));
        let deadline = self.schedule.next_deadline(self.now);
        prop_assert!(deadline.is_none_or(|at| at > self.now), "a deadline that has come is announced again");
        prop_assert!(!self.schedule.is_overlooking(self.now));
        Ok(())
    }

    fn pass(&mut self, until: Until) -> Result<(), TestCaseError> {
        if let Until::After(millis) = until {
            self.now += Duration::from_millis(millis);
            return Ok(());
        }
        self.settle()?;
        let deadline = self.schedule.next_deadline(self.now);
        let before = match deadline {
            Some(at) => at - Duration::from_nanos(1),
            None => self.now + Duration::from_secs(3600),
        };
        self.now = before.max(self.now);
        prop_assert!(!self.poll()?, "work that no deadline announced");
        prop_assert!(!self.evict()?, "an eviction that no deadline announced");
        if let (Until::Deadline, Some(at)) = (until, deadline) {
            self.now = at;
            // Progress: what was due is done, and no deadline is left that has come.
            self.settle()?;
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.schedule.counts(), self.model.counts());
        let mut waiting: Vec<RequestId> = self.schedule.waiting.keys().copied().collect();
        let model = &self.model;
        let items = model.queue.iter().chain(&model.parked).chain(model.retries.iter().map(|(_, item)| item));
        let mut expected: Vec<RequestId> = items.filter_map(|item| item.request).collect();
        waiting.sort();
        expected.sort();
        prop_assert_eq!(waiting, expected);
        for (origin, state) in &self.schedule.origins {
            prop_assert_eq!(state.active, model.active(*origin));
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn the_schedule_agrees_with_plain_lists(limits in some_limits(), steps in steps()) {
        let schedule = Schedule::new(limits);
        let mut pair = Pair { schedule, model: Model::new(limits), now: Instant::now(), requests: 0 };
        for step in steps {
            pair.run(step)?;
        }
    }
}
