//! Codecs by their four letters.

use super::kinds::AudioCodec::{self, Adpcm, Alac, Flac, HeAac, Mp2, Mp3, Opus, Pcm};

/// The four letters by which QuickTime, AIFF-C and CAF name a codec.
pub(super) fn quicktime_codec(name: &[u8]) -> Option<AudioCodec> {
    match name {
        b"lpcm" | b"sowt" | b"twos" | b"NONE" | b"raw " | b"in24" | b"in32" | b"23ni" | b"fl32" | b"FL32"
        | b"fl64" | b"FL64" | b"ipcm" | b"fpcm" | b"ulaw" | b"ULAW" | b"alaw" | b"ALAW" => Some(Pcm),
        // `ms` and two bytes are a format tag of WAVE: 2 and 0x11 are the ADPCM of Microsoft and of the IMA, 0x55 is MP3.
        b"ima4" | b"ms\0\x02" | b"ms\0\x11" => Some(Adpcm),
        b"alac" => Some(Alac),
        b"aac " => Some(AudioCodec::Aac),
        b"aach" | b"aacp" => Some(HeAac),
        b".mp3" | b"ms\0\x55" => Some(Mp3),
        b".mp2" => Some(Mp2),
        b"flac" | b"fLaC" => Some(Flac),
        b"opus" | b"Opus" => Some(Opus),
        _ => None,
    }
}
