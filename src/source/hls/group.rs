//! The HLS streams of one downloader, which share its network: each knows what the others need.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::abr::Demand;

/// The streams of one downloader.
#[derive(Debug, Default)]
pub(super) struct Group(Mutex<Members>);

#[derive(Debug, Default)]
struct Members {
    next: u64,
    members: Vec<Member>,
    /// Bytes of segments that all of them have received, also those that have left.
    received: u64,
}

#[derive(Debug)]
struct Member {
    id: u64,
    demand: Demand,
    /// Bytes of segments that it has received.
    received: u64,
}

/// The place of one stream in its group. Its drop leaves the group.
#[derive(Debug)]
pub(super) struct Membership {
    group: Arc<Group>,
    id: u64,
}

/// Bytes of segments that were received up to some time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Received {
    own: u64,
    all: u64,
}

impl Received {
    /// The share of all bytes since `before` that this stream has received. 1 if it was alone.
    pub(super) fn share_since(self, before: Self) -> f64 {
        self.share_of(self.own.saturating_sub(before.own), before)
    }

    /// The share of all bytes since `before` that these `bytes` of them are. 1 if there were no others.
    pub(super) fn share_of(self, bytes: u64, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all);
        if all == 0 { 1.0 } else { bytes as f64 / all as f64 }
    }
}

impl Membership {
    pub(super) fn join(group: Arc<Group>, demand: Demand) -> Self {
        let mut members = group.0.lock();
        let id = members.next;
        members.next += 1;
        members.members.push(Member { id, demand, received: 0 });
        drop(members);
        Self { group, id }
    }

    pub(super) fn set_demand(&self, demand: Demand) {
        let mut members = self.group.0.lock();
        if let Some(own) = members.members.iter_mut().find(|member| member.id == self.id) {
            own.demand = demand;
        }
    }

    /// What the others need.
    pub(super) fn others(&self) -> Vec<Demand> {
        let members = self.group.0.lock();
        members.members.iter().filter(|member| member.id != self.id).map(|member| member.demand).collect()
    }

    /// Counts bytes of a segment of this stream.
    pub(super) fn handle_received(&self, bytes: u64) {
        let mut members = self.group.0.lock();
        members.received += bytes;
        if let Some(own) = members.members.iter_mut().find(|member| member.id == self.id) {
            own.received += bytes;
        }
    }

    pub(super) fn received(&self) -> Received {
        let members = self.group.0.lock();
        let own = members.members.iter().find(|member| member.id == self.id).map_or(0, |own| own.received);
        Received { own, all: members.received }
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.group.0.lock().members.retain(|member| member.id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_know_what_the_others_need_and_have_received() {
        let group = Arc::<Group>::default();
        let one = Membership::join(Arc::clone(&group), Demand::new(1, 3.0));
        let other = Membership::join(Arc::clone(&group), Demand::new(0, 2.0));
        assert_eq!((one.others(), other.others()), (vec![Demand::new(0, 2.0)], vec![Demand::new(1, 3.0)]));
        let before = one.received();
        one.handle_received(30);
        assert_eq!(one.received().share_since(before), 1.0);
        other.handle_received(10);
        assert_eq!(one.received().share_since(before), 0.75);
        assert_eq!(one.received().share_of(20, before), 0.5);
        other.set_demand(Demand::new(1, 5.0));
        assert_eq!(one.others(), [Demand::new(1, 5.0)]);
        drop(other);
        assert_eq!(one.others(), []);
        // The bytes of a member that has left still count.
        assert_eq!(one.received().share_since(before), 0.75);
    }
}
