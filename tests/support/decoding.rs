//! A decoder over any source, with seeks, to compare the samples of a stream with those of the local bytes.

use std::io::{self, Read, Seek, SeekFrom};

use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::{FormatReader, SeekMode, SeekTo, TrackType};
use symphonia::core::io::{MediaSource, MediaSourceStream};
use symphonia::core::units::Time;
use windway::Stream;

/// Targets of the seeks, in seconds. All tracks are longer.
const SEEKS: [f64; 6] = [2.0, 0.5, 3.5, 0.0, 1.25, 3.0];

/// A stream as a `MediaSource` of symphonia, with short reads if wanted.
pub struct Source {
    pub stream: Stream,
    /// Most bytes of a read.
    pub most: usize,
}

impl Read for Source {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = self.most.min(buf.len());
        self.stream.read(&mut buf[..most])
    }
}

impl Seek for Source {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.stream.seek(to)
    }
}

impl MediaSource for Source {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        self.stream.len()
    }
}

/// A source without an end as a `MediaSource` of symphonia: a radio, or one that a decoder borrows.
pub struct LiveSource<R>(pub R);

impl<R: Read> Read for LiveSource<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl<R: Seek> Seek for LiveSource<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.0.seek(to)
    }
}

impl<R: Read + Seek + Send + Sync> MediaSource for LiveSource<R> {
    fn is_seekable(&self) -> bool {
        false
    }

    fn byte_len(&self) -> Option<u64> {
        None
    }
}

/// A decoder and its format reader.
pub struct Decoding<'s> {
    format: Box<dyn FormatReader + 's>,
    decoder: Box<dyn AudioDecoder>,
    track: u32,
}

impl<'s> Decoding<'s> {
    pub fn open(source: Box<dyn MediaSource + 's>) -> Self {
        Self::try_open(source).unwrap()
    }

    /// Fails for a source that ends within its headers.
    pub fn try_open(source: Box<dyn MediaSource + 's>) -> Result<Self, SymphoniaError> {
        let source = MediaSourceStream::new(source, Default::default());
        let probe = symphonia::default::get_probe();
        let format = probe.probe(&Default::default(), source, Default::default(), Default::default())?;
        let (track, decoder) = decoder(&*format)?;
        Ok(Self { track, format, decoder })
    }

    /// Continues with the tracks that begin where the format returned `ResetRequired`.
    pub fn reset(&mut self) -> Result<(), SymphoniaError> {
        (self.track, self.decoder) = decoder(&*self.format)?;
        Ok(())
    }

    /// The next samples, interleaved. `None` at the end.
    pub fn samples(&mut self) -> Result<Option<Vec<f32>>, SymphoniaError> {
        while let Some(packet) = self.format.next_packet()? {
            let mut samples: Vec<f32> = Vec::new();
            match self.decoder.decode(&packet) {
                Ok(audio) => audio.copy_to_vec_interleaved(&mut samples),
                Err(SymphoniaError::DecodeError(_)) => {}
                Err(error) => return Err(error),
            }
            if !samples.is_empty() {
                return Ok(Some(samples));
            }
        }
        Ok(None)
    }

    /// Interleaved samples in a second of audio. 0 if the file does not contain the rate.
    pub fn samples_a_second(&self) -> f64 {
        let params = self.decoder.codec_params();
        let channels = params.channels.as_ref().map_or(0, |channels| channels.count());
        f64::from(params.sample_rate.unwrap_or(0)) * channels as f64
    }

    pub fn seek(&mut self, seconds: f64) -> Result<(), SymphoniaError> {
        let time = Time::try_from_secs_f64(seconds).unwrap();
        self.format.seek(SeekMode::Accurate, SeekTo::Time { time, track_id: Some(self.track) })?;
        self.decoder.reset();
        Ok(())
    }

    /// The samples of up to `most` packets.
    pub fn packets(&mut self, most: usize) -> Result<Vec<f32>, SymphoniaError> {
        let mut samples = Vec::new();
        for _ in 0..most {
            let Some(packet) = self.format.next_packet()? else { break };
            match self.decoder.decode(&packet) {
                Ok(audio) => {
                    let mut some: Vec<f32> = Vec::new();
                    audio.copy_to_vec_interleaved(&mut some);
                    samples.extend(some);
                }
                Err(SymphoniaError::DecodeError(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(samples)
    }
}

/// The default audio track of a format, and its decoder.
fn decoder(format: &(dyn FormatReader + '_)) -> Result<(u32, Box<dyn AudioDecoder>), SymphoniaError> {
    let track = format.default_track(TrackType::Audio).ok_or(SymphoniaError::Unsupported("no audio"))?;
    let params = track.codec_params.as_ref().and_then(|params| params.audio());
    let params = params.ok_or(SymphoniaError::Unsupported("no codec"))?;
    let options = AudioDecoderOptions::default();
    Ok((track.id, symphonia::default::get_codecs().make_audio_decoder(params, &options)?))
}

/// The samples of some packets after each seek, then of all that are left.
pub fn decode_with_seeks(source: Box<dyn MediaSource>) -> Vec<Vec<f32>> {
    let mut decoding = Decoding::open(source);
    let mut parts = vec![decoding.packets(5).unwrap()];
    for seconds in SEEKS {
        decoding.seek(seconds).unwrap();
        parts.push(decoding.packets(7).unwrap());
    }
    parts.push(decoding.packets(usize::MAX).unwrap());
    parts
}
