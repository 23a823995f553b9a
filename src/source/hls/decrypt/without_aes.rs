//! Without the feature `hls-aes` there is no cipher, so there are no values of these types.

use super::cipher::Cipher;
use crate::error::{Error, ErrorKind};
use crate::media::AudioCodec;

pub(crate) enum Decryptor {}

pub(crate) enum FrameDecryptor {}

pub(crate) enum SealedDecryptor {}

fn unsupported(cipher: &Cipher) -> Error {
    let why = format!("the segment is encrypted with {:?}: enable the feature hls-aes", cipher.method);
    Error::new(ErrorKind::Unsupported, why)
}

impl Decryptor {
    pub(crate) fn new(cipher: &Cipher) -> Result<Self, Error> {
        Err(unsupported(cipher))
    }

    pub(crate) fn push(&mut self, _: &[u8], _: &mut Vec<u8>) {
        match *self {}
    }

    pub(crate) fn finish(&mut self, _: &mut Vec<u8>) -> Result<(), Error> {
        match *self {}
    }
}

impl SealedDecryptor {
    pub(crate) fn new(cipher: &Cipher) -> Result<Self, Error> {
        Err(unsupported(cipher))
    }

    pub(crate) fn push(&mut self, _: &[u8]) -> Result<(), Error> {
        match *self {}
    }

    pub(crate) fn finish(&mut self, _: &mut Vec<u8>) -> Result<(), Error> {
        match *self {}
    }
}

impl FrameDecryptor {
    pub(crate) fn new(cipher: &Cipher) -> Result<Self, Error> {
        Err(unsupported(cipher))
    }

    pub(crate) fn decrypt(&self, _: AudioCodec, _: &mut [u8]) {
        match *self {}
    }
}
