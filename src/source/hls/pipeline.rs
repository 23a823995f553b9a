//! What turns the body of a segment into frames: decryption, then the demuxer. Streaming: the first frame is out before the
//! segment is whole.

use super::decrypt::{Cipher, Decryptor, FrameDecryptor, SealedDecryptor};
use super::demux::{Demuxer, Output};
use super::playlist::KeyMethod;
use crate::error::{Error, ErrorKind};

/// What has arrived of the body of a segment.
#[derive(Default)]
pub(super) struct ArrivingBody {
    /// There once the key and the initialization section are.
    pub(super) pipeline: Option<Pipeline>,
    /// The body, as long as there is no pipeline.
    pub(super) raw: Vec<u8>,
    pub(super) output: Output,
}

impl ArrivingBody {
    pub(super) fn start(&mut self, mut pipeline: Pipeline) -> Result<(), Error> {
        pipeline.push(&std::mem::take(&mut self.raw), &mut self.output)?;
        self.pipeline = Some(pipeline);
        Ok(())
    }
}

/// Takes the body of one segment.
pub(super) struct Pipeline {
    decryption: Decryption,
    demuxer: Demuxer,
    plain: Vec<u8>,
}

enum Decryption {
    None,
    Whole(Decryptor),
    /// The segment is decrypted as a whole, once all of it has arrived.
    Sealed(Box<SealedDecryptor>),
    /// Each frame is decrypted by itself.
    Frames(FrameDecryptor),
}

impl Pipeline {
    pub(super) fn new(cipher: Option<&Cipher>, init: Option<&[u8]>, position: u64) -> Result<Self, Error> {
        let demuxer = match init {
            Some(init) => Demuxer::with_init(init, position)?,
            None => Demuxer::new(position),
        };
        let decryption = match cipher {
            None => Decryption::None,
            Some(cipher) if cipher.method == KeyMethod::SampleAes => {
                Decryption::Frames(FrameDecryptor::new(cipher)?)
            }
            Some(cipher) if cipher.method == KeyMethod::Aes256Gcm => {
                Decryption::Sealed(Box::new(SealedDecryptor::new(cipher)?))
            }
            Some(cipher) => Decryption::Whole(Decryptor::new(cipher)?),
        };
        Ok(Self { decryption, demuxer, plain: Vec::new() })
    }

    pub(super) fn push(&mut self, bytes: &[u8], output: &mut Output) -> Result<(), Error> {
        // The output may hold frames of earlier calls, which are decrypted already.
        let known = (output.frames.len(), output.data.len());
        match &mut self.decryption {
            Decryption::Whole(decryptor) => {
                self.plain.clear();
                decryptor.push(bytes, &mut self.plain);
                self.demuxer.push(&self.plain, output)?;
            }
            // No frame comes out before the tag has been checked, at the end.
            Decryption::Sealed(decryptor) => return decryptor.push(bytes),
            Decryption::None | Decryption::Frames(_) => self.demuxer.push(bytes, output)?,
        }
        self.decrypt_frames(output, known)
    }

    pub(super) fn finish(&mut self, output: &mut Output) -> Result<(), Error> {
        let known = (output.frames.len(), output.data.len());
        self.plain.clear();
        match &mut self.decryption {
            Decryption::Whole(decryptor) => decryptor.finish(&mut self.plain)?,
            Decryption::Sealed(decryptor) => decryptor.finish(&mut self.plain)?,
            Decryption::None | Decryption::Frames(_) => {}
        }
        if !self.plain.is_empty() {
            self.demuxer.push(&self.plain, output)?;
        }
        self.demuxer.finish(output)?;
        self.decrypt_frames(output, known)
    }

    /// Decrypts the frames behind those that are known.
    fn decrypt_frames(&self, output: &mut Output, known: (usize, usize)) -> Result<(), Error> {
        let Decryption::Frames(decryptor) = &self.decryption else {
            // The headers of such frames are not encrypted, so a decoder would take them, and play noise.
            if self.demuxer.is_sample_encrypted() {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "the frames are encrypted, but the playlist has no key",
                ));
            }
            return Ok(());
        };
        // Parts of frames can't be decrypted.
        output.head.clear();
        output.tail.clear();
        let mut rest = &mut output.data[known.1..];
        for frame in &output.frames[known.0..] {
            let (bytes, more) = rest.split_at_mut(frame.len);
            decryptor.decrypt(frame.format.codec, bytes);
            rest = more;
        }
        Ok(())
    }
}
