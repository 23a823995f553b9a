//! Adds a seek table to a FLAC file: ffmpeg writes none (RFC 9639, sections 8.5 and 9.1).

const STREAM_INFO: usize = 4 + 4 + 34;
/// Seconds between two seek points, as in the reference encoder.
const SECONDS: u64 = 10;

/// The file with a seek table behind its stream information.
pub(crate) fn with_seektable(file: &[u8]) -> Vec<u8> {
    let samples_in_frame = u64::from(u16::from_be_bytes([file[8], file[9]]));
    let rate = u64::from(u32::from_be_bytes([0, file[18], file[19], file[20]]) >> 4);
    let frames = frames(file, first_frame(file));
    let every = (SECONDS * rate / samples_in_frame) as usize;
    let points: Vec<(u64, u64)> =
        frames.iter().enumerate().step_by(every).map(|(n, at)| (n as u64, *at)).collect();
    let mut table = vec![3];
    table.extend(&((points.len() * 18) as u32).to_be_bytes()[1..]);
    for (number, at) in points {
        table.extend((number * samples_in_frame).to_be_bytes());
        table.extend((at - frames[0]).to_be_bytes());
        table.extend((samples_in_frame as u16).to_be_bytes());
    }
    [&file[..STREAM_INFO], &table, &file[STREAM_INFO..]].concat()
}

fn first_frame(file: &[u8]) -> usize {
    let mut at = 4;
    loop {
        let len = u32::from_be_bytes([0, file[at + 1], file[at + 2], file[at + 3]]) as usize;
        let is_last = file[at] & 0x80 != 0;
        at += 4 + len;
        if is_last {
            return at;
        }
    }
}

/// Positions of the frames: each begins with a sync code that is followed by the expected number and the right checksum.
fn frames(file: &[u8], first: usize) -> Vec<u64> {
    let mut frames = Vec::new();
    for at in first..file.len().saturating_sub(16) {
        if file[at] == 0xff && file[at + 1] & 0xfe == 0xf8 && is_frame(&file[at..], frames.len() as u32) {
            frames.push(at as u64);
        }
    }
    frames
}

fn is_frame(bytes: &[u8], number: u32) -> bool {
    // Coded as UTF-8 codes characters.
    let Some(number) = char::from_u32(number) else { return false };
    let mut buf = [0; 4];
    let coded = number.encode_utf8(&mut buf).as_bytes();
    let end = 4 + coded.len();
    // The sizes that follow the number.
    let extra = match bytes[2] >> 4 {
        6 => 1,
        7 => 2,
        _ => 0,
    } + match bytes[2] & 15 {
        12 => 1,
        13 | 14 => 2,
        _ => 0,
    };
    bytes[4..end] == *coded && checksum(&bytes[..end + extra]) == bytes[end + extra]
}

/// CRC-8 with the polynomial x^8 + x^2 + x + 1.
fn checksum(bytes: &[u8]) -> u8 {
    let step = |sum: u8, _| if sum & 0x80 == 0 { sum << 1 } else { sum << 1 ^ 7 };
    bytes.iter().fold(0, |sum, byte| (0..8).fold(sum ^ byte, step))
}
