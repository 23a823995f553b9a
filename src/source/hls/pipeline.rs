//! What turns the body of a segment into frames: decryption, then the demuxer. Streaming: the first frame is out before the
//! segment is whole.

use std::sync::Arc;

use super::demux::{Demuxer, Output};
use super::playlist::{Key, KeyMethod};
use crate::error::{Error, ErrorKind};

/// A key that was fetched, ready to decrypt one resource.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Cipher {
    pub(super) method: KeyMethod,
    pub(super) key: Arc<[u8]>,
    pub(super) iv: [u8; 16],
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
    /// Of the whole, once it is there.
    Sealed(Box<SealedDecryptor>),
    /// Of each frame by itself.
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
        let known = (output.frames.len(), output.data.len());
        match &mut self.decryption {
            Decryption::Whole(decryptor) => {
                self.plain.clear();
                decryptor.push(bytes, &mut self.plain);
                self.demuxer.push(&self.plain, output)?;
            }
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

/// Decrypts a whole resource.
pub(super) fn decrypt(cipher: &Cipher, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut plain = Vec::with_capacity(bytes.len());
    if cipher.method == KeyMethod::Aes256Gcm {
        let mut decryptor = SealedDecryptor::new(cipher)?;
        decryptor.push(bytes)?;
        decryptor.finish(&mut plain)?;
        return Ok(plain);
    }
    let mut decryptor = Decryptor::new(cipher)?;
    decryptor.push(bytes, &mut plain);
    decryptor.finish(&mut plain)?;
    Ok(plain)
}

/// The key to use, of those that the playlist offers for a segment. `None` if the segment is not encrypted.
///
/// # Errors
///
/// [`ErrorKind::Unsupported`] if there are keys, but none that can be used (section 6.3.6).
pub(super) fn choose_key(keys: &[Key]) -> Result<Option<&Key>, Error> {
    let is_usable = |key: &&Key| {
        key.is_identity()
            && matches!(key.method, KeyMethod::Aes128 | KeyMethod::SampleAes | KeyMethod::Aes256Gcm)
    };
    match keys.iter().find(is_usable) {
        Some(key) if cfg!(feature = "hls-aes") => Ok(Some(key)),
        Some(_) => {
            Err(Error::new(ErrorKind::Unsupported, "the segments are encrypted: enable the feature hls-aes"))
        }
        None if keys.is_empty() => Ok(None),
        None => {
            let methods: Vec<String> = keys.iter().map(|key| format!("{:?}", key.method)).collect();
            let why = format!("the encryption is not supported: {}", methods.join(", "));
            Err(Error::new(ErrorKind::Unsupported, why))
        }
    }
}

/// The initialization vector of a segment: explicit, or its media sequence number (section 5.2).
pub(super) fn iv_of(key: &Key, sequence: u64) -> [u8; 16] {
    key.iv.unwrap_or(u128::from(sequence)).to_be_bytes()
}

#[cfg(feature = "hls-aes")]
use super::decrypt::{Decryptor, FrameDecryptor, SealedDecryptor};

#[cfg(not(feature = "hls-aes"))]
use without_cipher::{Decryptor, FrameDecryptor, SealedDecryptor};

/// Without the feature there is no cipher, so there are no values of these types.
#[cfg(not(feature = "hls-aes"))]
mod without_cipher {
    use super::Cipher;
    use crate::error::{Error, ErrorKind};
    use crate::media::AudioCodec;

    pub(super) enum Decryptor {}

    pub(super) enum FrameDecryptor {}

    pub(super) enum SealedDecryptor {}

    fn unsupported(cipher: &Cipher) -> Error {
        let why = format!("the segment is encrypted with {:?}: enable the feature hls-aes", cipher.method);
        Error::new(ErrorKind::Unsupported, why)
    }

    impl Decryptor {
        pub(super) fn new(cipher: &Cipher) -> Result<Self, Error> {
            Err(unsupported(cipher))
        }

        pub(super) fn push(&mut self, _: &[u8], _: &mut Vec<u8>) {
            match *self {}
        }

        pub(super) fn finish(&mut self, _: &mut Vec<u8>) -> Result<(), Error> {
            match *self {}
        }
    }

    impl SealedDecryptor {
        pub(super) fn new(cipher: &Cipher) -> Result<Self, Error> {
            Err(unsupported(cipher))
        }

        pub(super) fn push(&mut self, _: &[u8]) -> Result<(), Error> {
            match *self {}
        }

        pub(super) fn finish(&mut self, _: &mut Vec<u8>) -> Result<(), Error> {
            match *self {}
        }
    }

    impl FrameDecryptor {
        pub(super) fn new(cipher: &Cipher) -> Result<Self, Error> {
            Err(unsupported(cipher))
        }

        pub(super) fn decrypt(&self, _: AudioCodec, _: &mut [u8]) {
            match *self {}
        }
    }
}
