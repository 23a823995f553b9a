//! What the threads of a downloader send to the machine.

use std::sync::{OnceLock, Weak};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};

use super::job::Job;
use super::lent_thread::LentThread;
use super::preemption::Claim;
use super::task::Task;
use crate::downloader::schedule::{Answer, Fruitless, Origin, PeerKey, WorkerId};
use crate::types::{Priority, RequestId};

/// A message to the machine.
pub(crate) enum Message {
    /// There is something in the peer's channel.
    Submitted(PeerKey),
    Woken(PeerKey, Priority),
    /// What came of the worker's task.
    FromWorker(WorkerId, Report),
    /// The origin serves one connection at a time.
    SingleConnection(Origin),
    /// The origin has answered a request.
    Answered(Origin),
    Cancelled(RequestId),
    PeerCancelled(PeerKey),
    Prioritised(PeerKey, Priority),
    Promoted(RequestId, Priority),
    /// A blocked reader of the peer lends its thread.
    Lent(PeerKey, Weak<LentThread>),
    /// The worker's task, which no thread can take: the one that was to come is blocked where a fetch ends.
    Unserved(WorkerId, Task),
    /// A thread because of which a task was [unserved](Self::Unserved) comes for one.
    CameBack,
    /// A deadline that the schedule announced has come.
    Due,
    Stopped,
    /// A worker has ended, after `Stopped`.
    Left,
}

/// What came of a task. Afterwards its worker is idle.
pub(crate) enum Report {
    /// The worker did not ask the peer that it should ask.
    NotAsked,
    /// The peer that the worker asked gave nothing.
    Answered(Answer),
    /// The peer that the worker asked gave this job, and may have more.
    Fetched { job: Box<Job>, more: bool },
    /// The fetch has ended, or its body was handed over.
    Finished,
    /// The fetch was its peer's answer, and has ended with next to no bytes.
    Fruitless(Fruitless),
    /// The fetch is retried at this time. If it could not connect, an answer of its origin lets it start from the second time on.
    Retry(Box<Job>, Instant, Option<Instant>),
    /// The fetch makes room for urgent work. With the claim, if it took one of the core's `preemptions` at a chunk.
    Preempted { job: Box<Job>, claim: Option<Claim> },
}

/// The fetches that a peer's callers have submitted and the machine has not taken in. The peer's credits limit them.
///
/// The channel is made by the first fetch: its first block takes more than a kibibyte, most peers submit nothing, and there may
/// be very many of them.
#[derive(Default)]
pub(crate) struct Channel(OnceLock<Ends>);

type Ends = (Sender<Box<Job>>, Receiver<Box<Job>>);

impl Channel {
    pub(crate) fn send(&self, job: Box<Job>) {
        let (sender, _) = self.0.get_or_init(crossbeam_channel::unbounded);
        // This can't fail: the receiver is kept beside the sender.
        drop(sender.send(job));
    }

    /// Takes out what is there. Never blocks.
    pub(crate) fn take_all(&self) -> impl Iterator<Item = Box<Job>> + '_ {
        self.0.get().into_iter().flat_map(|(_, receiver)| receiver.try_iter())
    }
}
