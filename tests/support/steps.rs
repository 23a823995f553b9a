//! Random reads and seeks, to compare a stream with a local file of the same bytes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::Content;

#[derive(Clone, Debug)]
pub enum Step {
    Read(usize),
    ReadExact(usize),
    ReadToEnd,
    Seek(SeekFrom),
}

/// Steps for a file of `len` bytes, with many near its end.
pub fn steps(len: i64) -> impl Strategy<Value = Vec<Step>> {
    let near = -len / 8..len + len / 8;
    let seek = prop_oneof![
        6 => near.clone().prop_map(|to| SeekFrom::Start(to.unsigned_abs())),
        3 => near.clone().prop_map(move |by| SeekFrom::Current(by - len / 2)),
        3 => near.prop_map(move |by| SeekFrom::End(by - len)),
        // Huge positions, except those beyond the limits of a file system.
        1 => (1_u64 << 63..).prop_map(SeekFrom::Start),
        1 => (0..1_u64 << 43).prop_map(SeekFrom::Start),
        1 => (i64::MIN..1 << 43).prop_map(SeekFrom::Current),
        1 => (i64::MIN..1 << 43).prop_map(SeekFrom::End),
    ];
    let step = prop_oneof![
        6 => (0..100_000_usize).prop_map(Step::Read),
        4 => (0..200_000_usize).prop_map(Step::ReadExact),
        1 => Just(Step::ReadToEnd),
        6 => seek.prop_map(Step::Seek),
    ];
    proptest::collection::vec(step, 1..16)
}

/// Outcome of a step: its result, the bytes, and the position after it.
pub type Outcome = (Result<u64, io::ErrorKind>, Vec<u8>, u64);

pub fn run(subject: &mut (impl Read + Seek), step: &Step) -> Outcome {
    let mut bytes = Vec::new();
    let result = match step {
        Step::Read(len) => {
            // A single read may return fewer bytes, so the step reads until the buffer is full or the end is reached.
            subject.by_ref().take(*len as u64).read_to_end(&mut bytes).map(|read| read as u64)
        }
        Step::ReadExact(len) => {
            bytes = vec![0; *len];
            let result = subject.read_exact(&mut bytes).map(|()| *len as u64);
            if result.is_err() {
                // The contents of the buffer after a failed `read_exact` are not specified.
                bytes.clear();
            }
            result
        }
        Step::ReadToEnd => subject.read_to_end(&mut bytes).map(|read| read as u64),
        Step::Seek(to) => subject.seek(*to),
    };
    let position = subject.stream_position().unwrap();
    (result.map_err(|error| kind(&error)), bytes, position)
}

/// The kind of an error. std has none for that of Windows that a position is negative.
fn kind(error: &io::Error) -> io::ErrorKind {
    const ERROR_NEGATIVE_SEEK: i32 = 131;
    let is_negative_seek = cfg!(windows) && error.raw_os_error() == Some(ERROR_NEGATIVE_SEEK);
    if is_negative_seek { io::ErrorKind::InvalidInput } else { error.kind() }
}

/// Drives a file of `len` bytes of the pattern, and what `open` returns, with the same random steps. Panics with the fewest
/// steps after which the two differ.
pub fn compare<S: Read + Seek>(len: u64, cases: u32, open: impl Fn() -> S) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&steps(len as i64), |steps| {
        let (mut file, mut subject) = (temp_file(len), open());
        for step in &steps {
            let (expected, found) = (run(&mut file, step), run(&mut subject, step));
            prop_assert!(
                expected == found,
                "after {step:?}: {:?} at {} instead of {:?} at {}",
                found.0,
                found.2,
                expected.0,
                expected.2
            );
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// A local file with `len` bytes of the pattern.
pub fn temp_file(len: u64) -> File {
    let mut bytes = Vec::new();
    Content::pattern(len).append(&mut bytes, 0..len);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    file.rewind().unwrap();
    file
}
