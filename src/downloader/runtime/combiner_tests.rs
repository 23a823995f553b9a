//! Real threads at the combiner, in an order that the test decides. `models/` tries the interleavings of the locks.

use std::sync::mpsc;
use std::thread;

use super::combiner::Combiner;

#[test]
fn a_thread_sees_its_own_message_when_it_looks() {
    let sum = Combiner::<u32, u32>::new(0);
    let add = |sum: &mut u32, messages: &mut Vec<u32>| *sum += messages.drain(..).sum::<u32>();
    let (locks, locked) = mpsc::channel();
    let (posts, posted) = mpsc::channel();
    let (looks, looked) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let sum = &sum;
        scope.spawn(move || {
            let mut is_first = true;
            let step = |total: &mut u32, messages: &mut Vec<u32>| {
                add(total, messages);
                if std::mem::take(&mut is_first) {
                    locks.send(()).unwrap();
                    posted.recv().unwrap();
                }
            };
            // Carries out its actions until the other thread has looked, and applies no message meanwhile.
            sum.post(1, step, |()| _ = looked.recv());
        });
        locked.recv().unwrap();
        // The machine is locked, so this leaves the message to the other thread.
        sum.post(2, add, |()| ());
        posts.send(()).unwrap();
        let seen = sum.with(|sum| *sum, add, |()| ());
        drop(looks);
        assert_eq!(seen, 3);
    });
}
