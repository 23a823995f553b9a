//! Input that no muxer writes, or only a bad one: no panic, no memory without a limit, and nothing lost that is whole.

use super::tests::{adts_frames, demux, demuxer, frames, samples, samples_of};
use super::*;
use support::mux::{self, Entry, Random, Ts, aac_frames, fragment, mp4_box};

/// Frames of what is tried with each byte cut off or changed: some packets of a transport stream, and some entries of a table.
const FEW: u64 = 12;

/// Bytes in the place of others.
fn patched(bytes: &[u8], at: usize, patch: &[u8]) -> Vec<u8> {
    let mut patched = bytes.to_vec();
    let end = (at + patch.len()).min(bytes.len());
    patched[at..end].copy_from_slice(&patch[..end - at]);
    patched
}

fn try_all(init: Option<&[u8]>, bytes: &[u8], piece: usize) -> Option<Output> {
    let demuxer = match init {
        Some(init) => Demuxer::with_init(init, 0).ok()?,
        None => Demuxer::new(0),
    };
    demux(demuxer, bytes, piece).ok()
}

#[test]
fn input_that_is_cut_anywhere_gives_a_prefix_of_its_frames() {
    for (name, init, bytes, wanted) in samples_of(FEW) {
        let (whole, step) = (wanted.concat(), if bytes.len() > 8192 { 7 } else { 1 });
        for len in (0..bytes.len()).step_by(step) {
            if let Some(output) = try_all(init.as_deref(), &bytes[..len], 1 << 20) {
                assert!(whole.starts_with(&output.data), "{name}: {len} bytes");
            }
        }
        let Some(init) = init else { continue };
        for len in 0..init.len() {
            drop(try_all(Some(&init[..len]), &bytes, 1 << 20));
        }
    }
}

#[test]
fn extreme_numbers_anywhere_do_no_harm() {
    let extremes: [&[u8]; 4] = [&[0; 4], &[0xff; 8], &[0, 0, 0, 1], &[0x7f, 0xff, 0xff, 0xff]];
    for (_, init, bytes, _) in samples_of(FEW) {
        // The boxes and tables are at the front.
        let front = bytes.len().min(300);
        for (at, extreme) in (0..front).flat_map(|at| extremes.map(|extreme| (at, extreme))) {
            drop(try_all(init.as_deref(), &patched(&bytes, at, extreme), 1 << 20));
        }
        let Some(init) = init else { continue };
        for (at, extreme) in (0..init.len()).flat_map(|at| extremes.map(|extreme| (at, extreme))) {
            drop(try_all(Some(&patched(&init, at, extreme)), &bytes, 1 << 20));
        }
    }
}

#[test]
fn packets_in_any_order_do_no_harm() {
    let mut random = Random(11);
    for (_, init, bytes, _) in samples() {
        for _ in 0..40 {
            let mut mixed = Vec::new();
            for _ in 0..1 + random.below(60) {
                let from = random.below(bytes.len() / 188 + 1) * 188;
                let rest = &bytes[from.min(bytes.len())..];
                mixed.extend_from_slice(&rest[..rest.len().min(188 - usize::from(random.below(30) == 0))]);
            }
            drop(try_all(init.as_deref(), &mixed, 1 + random.below(3000)));
        }
    }
}

#[test]
fn times_that_jump_for_ever_do_not_overflow() {
    let mut output = Output::default();
    let mut clock = splitter::Clock::default();
    clock.set(Some(MediaTime::MAX - 5));
    let header = headers::Family::Mpeg.parse(&[0xff, 0xfb, 0x90, 0x64]).unwrap();
    for _ in 0..3 {
        output.frames.push(clock.frame(header.clone()));
    }
    assert_eq!(output.frames[2].time, Some(MediaTime::MAX));
}

#[test]
fn a_packet_of_stuffing_in_a_table_is_not_kept() {
    let mut reader = ts_tables::SectionReader::default();
    reader.push(&[0; 1], true, |_| ());
    for _ in 0..10_000 {
        reader.push(&[0xff; 184], false, |_| panic!("no section"));
    }
    assert!(reader.memory() <= 2048, "{} bytes", reader.memory());
}

#[test]
fn times_of_packets_without_a_frame_are_not_kept() {
    let mut splitter = splitter::Splitter::new(headers::Family::Adts);
    for time in 0..10_000 {
        splitter.push(&[0; 10], Some(time), &mut Output::default());
    }
    assert!(splitter.memory() < 1000, "{} bytes", splitter.memory());
}

#[test]
fn boxes_in_boxes_and_empty_boxes_are_passed_over() {
    let init = mux::init(&Entry::Aac(3), 48_000, 0);
    let segment = fragment(&aac_frames(0, 3), 0);
    let wanted = adts_frames(0, 3).concat();
    let mut nested = Vec::new();
    for _ in 0..2000 {
        nested = mp4_box(b"free", &nested);
    }
    let long = [&[0, 0, 0, 1][..], b"free", &20_u64.to_be_bytes(), &[0; 4]].concat();
    let others = [b"styp", b"sidx", b"emsg", b"prft", b"uuid"].map(|kind| mp4_box(kind, &[7; 33])).concat();
    for before in
        [nested, long, others, mp4_box(b"moof", &[]).repeat(1000), mp4_box(b"mdat", &[]).repeat(1000)]
    {
        let output = demux(demuxer(Some(&init)), &[before, segment.clone()].concat(), 999).unwrap();
        assert!(output.data == wanted);
    }
}

#[test]
fn the_audio_of_a_fragment_is_found_beside_that_of_other_tracks_and_fragments() {
    let init = mux::init(&Entry::Aac(3), 48_000, 0);
    let (first, second) = (aac_frames(0, 3), aac_frames(3, 3));
    let wanted = adts_frames(0, 6).concat();
    // moof of the audio, moof of another track, then the data of both.
    let audio = fragment(&first, 0);
    let at = audio.windows(4).position(|kind| kind == b"mdat").unwrap() - 4;
    let mut other = fragment(&[vec![9; 50]], 0);
    let id = other.windows(4).position(|kind| kind == b"tfhd").unwrap() + 8;
    other[id + 3] = 8;
    let end = other.windows(4).position(|kind| kind == b"mdat").unwrap() - 4;
    let mut between = audio[..at].to_vec();
    let offset = between.windows(4).position(|kind| kind == b"trun").unwrap() + 12;
    let shifted = u32::from_be_bytes(between[offset..offset + 4].try_into().unwrap()) + end as u32;
    between[offset..offset + 4].copy_from_slice(&shifted.to_be_bytes());
    let mixed = [&between, &other[..end], &audio[at..], &fragment(&second, 3 * 1024)].concat();
    let output = demux(demuxer(Some(&init)), &mixed, 100).unwrap();
    assert!(output.data == wanted, "{} bytes of {}", output.data.len(), wanted.len());
}

#[test]
fn each_track_fragment_has_its_own_time() {
    let init = mux::init(&Entry::Aac(3), 48_000, 0);
    // Half a second is missing between the two.
    let bytes = mux::fragment_of_two(&aac_frames(0, 2), 0, &aac_frames(2, 2), 2048 + 24_000);
    let output = demux(demuxer(Some(&init)), &bytes, 100).unwrap();
    let times: Vec<_> = output.frames.iter().map(|frame| frame.time.unwrap() / 1_000_000).collect();
    assert_eq!(times, [0, 21, 542, 564]);
}

#[test]
fn the_first_track_that_can_be_played_is_played() {
    let (dts, aac) = (mux::init(&Entry::Dts, 48_000, 0), mux::init(&Entry::Aac(3), 48_000, 0));
    let track = |init: &[u8]| {
        let at = init.windows(4).position(|kind| kind == b"trak").unwrap() - 4;
        let len = u32::from_be_bytes(init[at..at + 4].try_into().unwrap()) as usize;
        init[at..at + len].to_vec()
    };
    let mut other = track(&dts);
    let id = other.windows(4).position(|kind| kind == b"tkhd").unwrap() + 4 + 12;
    other[id + 3] = 6;
    let moov = mp4_box(b"moov", &[other, track(&aac)].concat());
    let output = demux(demuxer(Some(&moov)), &fragment(&aac_frames(0, 3), 0), 100).unwrap();
    assert!(output.data == adts_frames(0, 3).concat());
}

#[test]
fn audio_that_moves_to_another_pid_is_followed() {
    let wanted = adts_frames(0, 40);
    let mut ts = Ts::new(0x0f);
    let first = ts.segment(&wanted[..20], 900_000, 1920.0);
    ts.audio_pid = 0x77;
    let second = ts.segment(&wanted[20..], 900_000 + 20 * 1920, 1920.0);
    let output = frames(&[first.clone(), second].concat());
    assert!(output.data == wanted.concat(), "{} frames", output.frames.len());
    // A table that is not applicable yet (current_next_indicator) changes nothing.
    ts.is_current = false;
    let early = [first[..376].to_vec(), ts.tables(), first[376..].to_vec()].concat();
    assert!(frames(&early).data == wanted[..20].concat());
}

#[test]
fn a_counter_may_repeat_where_the_packet_says_so() {
    let wanted = adts_frames(0, 8);
    let mut ts = Ts::new(0x0f);
    let first = ts.segment(&wanted[..4], 900_000, 1920.0);
    let second = ts.segment(&wanted[4..], 900_000 + 4 * 1920, 1920.0);
    let last = first.len() - 188;
    let mut next = second[2 * 188..].to_vec();
    // A packet with an adaptation field whose flags say discontinuity, and the counter of the packet before. The others follow it.
    let counter = first[last + 3] & 15;
    let (head, payload) = (next[..4].to_vec(), next[4..188].to_vec());
    let mut packets = Vec::new();
    packets.extend([0x47, head[1], head[2], 0x30 | counter, 1, 0x80]);
    packets.extend(&payload[..182]);
    packets.extend([0x47, head[1] & 0xbf, head[2], 0x30 | (counter + 1) & 15, 181, 0]);
    packets.resize(2 * 188 - 2, 0xff);
    packets.extend(&payload[182..]);
    for (index, packet) in next[188..].chunks_mut(188).enumerate() {
        packet[3] = packet[3] & 0xf0 | (counter + 2 + index as u8) & 15;
    }
    let output = frames(&[first, packets, next.split_off(188)].concat());
    assert!(output.data == wanted.concat(), "{} frames", output.frames.len());
}

#[test]
fn frames_may_span_packets_and_packets_may_begin_anywhere() {
    let wanted = adts_frames(0, 40);
    for len in [1, 5, 100, 777, 5000, 70_000] {
        let parts: Vec<Vec<u8>> = wanted.concat().chunks(len).map(<[u8]>::to_vec).collect();
        let mut ts = Ts::new(0x0f);
        ts.frames_per_pes = 1;
        let output = frames(&ts.segment(&parts, 900_000, 0.0));
        assert!(output.data == wanted.concat(), "{len} bytes in a packet");
    }
}

#[test]
fn a_tag_of_256_mb_is_skipped_unread() {
    let wanted = adts_frames(0, 20).concat();
    let mut demuxer = Demuxer::new(0);
    let mut output = Output::default();
    demuxer.push(b"ID3\x04\0\0\x7f\x7f\x7f\x7f", &mut output).unwrap();
    let block = vec![0xff; 1 << 20];
    for _ in 0..255 {
        demuxer.push(&block, &mut output).unwrap();
    }
    demuxer.push(&block[..(1 << 20) - 1], &mut output).unwrap();
    demuxer.push(&wanted, &mut output).unwrap();
    demuxer.finish(&mut output).unwrap();
    assert!(output.data == wanted);
}

#[test]
fn frames_of_adts_may_have_checksums_and_several_blocks() {
    let frames_of = |blocks: u8| -> Vec<Vec<u8>> {
        let mut frames = adts_frames(0, 20);
        for frame in &mut frames {
            frame[1] &= 0xfe;
            frame[6] |= blocks;
        }
        frames
    };
    for blocks in 0..4 {
        let wanted = frames_of(blocks);
        let ticks = 1920.0 * (f64::from(blocks) + 1.0);
        let output = frames(&Ts::new(0x0f).segment(&wanted, 900_000, ticks));
        assert!(output.data == wanted.concat());
        let last = output.frames[19].time.unwrap() - 10_000_000_000;
        assert!((last - 19 * 1024 * i64::from(blocks + 1) * 1_000_000_000 / 48_000).abs() < 11_200);
    }
}

#[test]
fn times_beyond_64_bits_end_there() {
    let init = mux::init(&Entry::Aac(3), 1, 0);
    let bytes = fragment(&aac_frames(0, 2), (1 << 63) | 12_345);
    let output = demux(demuxer(Some(&init)), &bytes, 100).unwrap();
    assert_eq!(output.frames[0].time, Some(MediaTime::MAX));
    assert_eq!(packed::ticks_to_time(u64::MAX), MediaTime::MAX);
}

#[test]
fn aac_without_durations_has_those_of_its_frames() {
    let mut init = mux::init(&Entry::Aac(3), 48_000, 0);
    let trex = init.windows(4).position(|kind| kind == b"trex").unwrap() + 16;
    init[trex..trex + 4].fill(0);
    let output = demux(demuxer(Some(&init)), &fragment(&aac_frames(0, 3), 0), 100).unwrap();
    let times: Vec<_> = output.frames.iter().map(|frame| frame.time.unwrap() / 1_000_000).collect();
    assert_eq!(times, [0, 21, 42]);
}

/// Changes some bytes, and leaves out, repeats and adds others.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..1 + random.below(12) {
        let front = if random.below(2) == 0 { bytes.len() } else { bytes.len().min(600) };
        if front == 0 {
            return;
        }
        let at = random.below(front);
        let end = (at + 1 + random.below(400)).min(bytes.len());
        match random.below(7) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            5 => {
                let value = [0, 1, 0xff, 0x7f, 0x80][random.below(5)];
                let end = end.min(at + 8);
                bytes[at..end].fill(value);
            }
            _ => {
                let more = random.bytes(20);
                bytes.splice(at..at, more);
            }
        }
    }
}

#[test]
fn damaged_input_gives_the_same_in_any_chunks() {
    let all = samples();
    for seed in 0..4000 {
        let mut random = Random(seed);
        let (name, init, bytes, _) = &all[random.below(all.len())];
        let (mut init, mut bytes) = (init.clone(), bytes.clone());
        damage(&mut bytes, &mut random);
        if let Some(init) = init.as_mut().filter(|_| random.below(2) == 0) {
            damage(init, &mut random);
        }
        let run = |piece| {
            let demuxer =
                init.as_ref().map_or_else(|| Ok(Demuxer::new(0)), |init| Demuxer::with_init(init, 0))?;
            demux(demuxer, &bytes, piece)
        };
        let piece = 1 + random.below(4000);
        match (run(piece), run(1 << 20)) {
            (Ok(pieces), Ok(whole)) => {
                assert!(pieces == whole, "{name}, seed {seed}, pieces of {piece}");
                let frames: usize = whole.frames.iter().map(|frame| frame.len).sum();
                assert_eq!(frames, whole.data.len(), "{name}, seed {seed}");
            }
            (Err(pieces), Err(whole)) => assert_eq!(pieces.kind(), whole.kind(), "{name}, seed {seed}"),
            (pieces, whole) => panic!("{name}, seed {seed}, pieces of {piece}: {pieces:?} {whole:?}"),
        }
    }
}
