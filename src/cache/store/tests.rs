//! Entries while other threads and processes open, make and remove the same ones. A second store of a directory stands for a
//! second process: the two share nothing but the files.

use std::sync::mpsc;
use std::thread;

use proptest::prelude::*;

use super::*;
use crate::cache::format::tests::header;

const LEN: u64 = 1000;

/// A directory, as two processes have it open.
fn processes() -> (tempfile::TempDir, [Arc<Store>; 2]) {
    let temporary = tempfile::tempdir().unwrap();
    let open = || Arc::new(Store::open(temporary.path(), CacheConfig::new().keep_free(0)).unwrap());
    let stores = [open(), open()];
    (temporary, stores)
}

fn enter(store: &Arc<Store>) -> Arc<Entry> {
    store.enter(header(LEN), Stamp::default()).unwrap()
}

fn name() -> String {
    header(LEN).file_name()
}

#[test]
fn the_first_entry_does_not_wait_until_the_others_are_counted() {
    let (_temporary, [store, _]) = processes();
    // As a count that takes long.
    let scanning = store.scanning.lock();
    let (ends, end) = mpsc::channel();
    let entering = Arc::clone(&store);
    let thread = thread::spawn(move || {
        ends.send(enter(&entering).write(0, 0, &[7; 1000]).is_ok()).unwrap();
    });
    assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(true));
    drop(scanning);
    thread.join().unwrap();
    // The count has seen it.
    let used = store.used();
    assert!(used >= 1000 && store.usage.lock().since_scan() == 0, "{used}");
}

#[test]
fn an_entry_that_is_removed_while_it_is_opened_is_not_found_again() {
    let (_temporary, [store, _]) = processes();
    drop(enter(&store));
    let removals = store.open.lock().removals;
    let opened = store.open_file(&name()).unwrap().unwrap();
    store.remove_entry(&name()).unwrap();
    assert!(store.register(&name(), opened, removals).is_none());
    assert!(store.open_entry(&name()).unwrap().is_none());
    assert!(!enter(&store).is_removed());
}

#[test]
fn an_entry_that_another_process_removes_is_not_found_again() {
    let (_temporary, [store, other]) = processes();
    let held = enter(&store);
    other.remove_entry(&name()).unwrap();
    assert!(store.newest(&header(LEN).key, "").is_none());
    let new = enter(&store);
    assert!(!new.is_removed() && !Arc::ptr_eq(&held, &new));
    // From now on it is the one of the process.
    assert!(Arc::ptr_eq(&new, &enter(&store)));
}

#[test]
fn how_long_an_entry_is_used_unasked_depends_on_the_clock_and_the_stamp() {
    let (_temporary, [store, _]) = processes();
    let key = header(LEN).key;
    let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs((1000 + days) * 86_400);
    let stamp = |must_revalidate| Stamp { validated_at: seconds(at(0)), fresh_for: 86_400, must_revalidate };
    let usable = |now| store.lookup(&key, "", now).map(|(_, usable)| usable);
    let _held = store.enter(header(LEN), stamp(false)).unwrap();
    // `max_age` has 30 days. A clock that was set back says nothing about the age.
    let expected = [Some(Use::Fresh), Some(Use::Stale), Some(Use::Stale), None, None];
    assert_eq!([at(0), at(1), at(30), at(31), at(0) - Duration::from_secs(1)].map(usable), expected);
    assert!(store.newest(&key, "").is_some());
    store.enter(header(LEN), stamp(true)).unwrap();
    assert_eq!([at(0), at(1)].map(usable), [Some(Use::Fresh), None]);
    // Another process sees the same.
    let (_temporary, [first, other]) = processes();
    first.enter(header(LEN), stamp(false)).unwrap();
    assert!(other.lookup(&key, "", at(1)).is_some() && other.lookup(&key, "", at(31)).is_none());
}

#[test]
fn an_outdated_entry_is_removed_once_and_its_successor_stays() {
    let (_temporary, [store, _]) = processes();
    let old = enter(&store);
    // Two streams find that the server has another version, one after the other.
    store.remove_outdated(&old);
    let new = enter(&store);
    store.remove_outdated(&old);
    assert!(!new.is_removed());
}

#[test]
fn a_key_that_is_pinned_while_victims_are_chosen_is_not_evicted() {
    let (_temporary, [store, other]) = processes();
    drop(enter(&store));
    let found = store.directory.scan(SystemTime::now()).unwrap();
    other.directory.pin(&header(LEN).key).unwrap();
    assert_eq!(store.evict(found.clone(), 1), 0);
    other.directory.unpin(&header(LEN).key).unwrap();
    assert!(store.evict(found, 1) > 0);
}

/// What one of two processes does.
#[derive(Clone, Debug)]
enum Step {
    Enter(usize),
    Find(usize),
    /// Opens the file, and registers it in a later step.
    Open(usize),
    Register(usize),
    Remove(usize),
    /// A stream finds that its entry, one of those that are open, is outdated.
    Outdated(usize, usize),
    Evict(usize),
    Damage,
    Close(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let process = || 0..2usize;
    let step = prop_oneof![
        4 => process().prop_map(Step::Enter),
        1 => process().prop_map(Step::Find),
        3 => process().prop_map(Step::Open),
        3 => any::<usize>().prop_map(Step::Register),
        2 => process().prop_map(Step::Remove),
        2 => (process(), any::<usize>()).prop_map(|(process, which)| Step::Outdated(process, which)),
        1 => process().prop_map(Step::Evict),
        1 => Just(Step::Damage),
        2 => any::<usize>().prop_map(Step::Close),
    ];
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened before: an entry that is entered or found is the one that has the name, and the only one of its process.
    #[test]
    fn what_is_entered_is_what_others_find(steps in steps()) {
        let (_temporary, stores) = processes();
        let mut held: Vec<(usize, Arc<Entry>)> = Vec::new();
        let mut opened: Vec<(usize, u64, Entry)> = Vec::new();
        for step in steps {
            match step {
                Step::Enter(process) => {
                    let Ok(entry) = stores[process].enter(header(LEN), Stamp::default()) else {
                        // A damaged file that is open somewhere is neither opened nor evicted.
                        prop_assert!(!held.is_empty() || !opened.is_empty());
                        continue;
                    };
                    prop_assert!(!entry.is_removed());
                    let others = held.iter().filter(|(owner, other)| *owner == process && !other.is_removed());
                    for (_, other) in others {
                        prop_assert!(Arc::ptr_eq(other, &entry), "two entries of one file");
                    }
                    held.push((process, entry));
                }
                Step::Find(process) => {
                    if let Some(entry) = stores[process].newest(&header(LEN).key, "") {
                        prop_assert!(!entry.is_removed());
                        held.push((process, entry));
                    }
                }
                Step::Open(process) => {
                    let removals = stores[process].open.lock().removals;
                    if let Some(entry) = stores[process].open_file(&name()).unwrap() {
                        opened.push((process, removals, entry));
                    }
                }
                Step::Register(which) if !opened.is_empty() => {
                    let (process, removals, entry) = opened.swap_remove(which % opened.len());
                    let entry = stores[process].register(&name(), entry, removals);
                    held.extend(entry.map(|entry| (process, entry)));
                }
                Step::Remove(process) => stores[process].remove_entry(&name()).unwrap(),
                Step::Outdated(process, which) if !held.is_empty() => {
                    let outdated = Arc::clone(&held[which % held.len()].1);
                    let newer = held.iter().filter(|(_, entry)| !Arc::ptr_eq(entry, &outdated) && outdated.is_removed());
                    let newer: Vec<_> = newer.map(|(_, entry)| (Arc::clone(entry), entry.is_removed())).collect();
                    stores[process].remove_outdated(&outdated);
                    prop_assert!(outdated.is_removed());
                    for (entry, was_removed) in newer {
                        prop_assert_eq!(entry.is_removed(), was_removed, "the successor was removed");
                    }
                }
                Step::Evict(process) => drop(stores[process].directory.evict(&name()).unwrap()),
                Step::Damage => {
                    if let Some(file) = stores[0].directory.open_entry(&name()).unwrap() {
                        FileLayer::write_at(&file, b"damaged", 0).unwrap();
                    }
                }
                Step::Close(which) if !held.is_empty() => drop(held.swap_remove(which % held.len())),
                Step::Register(_) | Step::Outdated(..) | Step::Close(_) => {}
            }
        }
    }
}
