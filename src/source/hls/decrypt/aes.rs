//! AES-128 in CBC mode: of a whole segment in a stream, with PKCS#7 padding (section 4.4.4.4), or of each frame. And AES-256 in
//! GCM mode.

use aes::cipher::consts::U16;
use aes::cipher::generic_array::GenericArray;
use aes::cipher::{BlockDecryptMut, KeyIvInit};
use aes::{Aes128, Aes256};
use aes_gcm::aead::AeadInPlace;
use aes_gcm::{AesGcm, KeyInit};

use super::cipher::Cipher;
use crate::error::{Error, ErrorKind};
use crate::media::AudioCodec;

/// Bytes of a block of AES. In GCM mode the tag has as many.
const BLOCK: usize = 16;

/// Bytes of a segment that has to be there as a whole, at most.
const MOST_SEALED: usize = 64 << 20;

pub(crate) struct Decryptor {
    inner: cbc::Decryptor<Aes128>,
    /// Bytes that can't be passed on yet: less than a block, or the last block, which may be padding.
    pending: Vec<u8>,
}

impl Decryptor {
    pub(crate) fn new(cipher: &Cipher) -> Result<Self, Error> {
        let inner = cbc::Decryptor::new_from_slices(&cipher.key, &cipher.iv).map_err(|_| {
            let why = format!("the key of a segment has {} bytes instead of 16", cipher.key.len());
            Error::new(ErrorKind::Unsupported, why)
        })?;
        Ok(Self { inner, pending: Vec::new() })
    }

    /// Decrypts all blocks but the last one.
    pub(crate) fn push(&mut self, bytes: &[u8], plain: &mut Vec<u8>) {
        self.pending.extend_from_slice(bytes);
        // One byte less, so that a whole block at the end stays: it may be the last one, which has the padding.
        let whole = self.pending.len().saturating_sub(1) / BLOCK * BLOCK;
        let from = plain.len();
        plain.extend(self.pending.drain(..whole));
        for block in plain[from..].chunks_exact_mut(BLOCK) {
            self.inner.decrypt_block_mut(GenericArray::from_mut_slice(block));
        }
    }

    /// Decrypts the last block, and removes the padding.
    pub(crate) fn finish(&mut self, plain: &mut Vec<u8>) -> Result<(), Error> {
        let wrong = |why: &str| Error::new(ErrorKind::Unsupported, why);
        let mut last = std::mem::take(&mut self.pending);
        // RFC 5652, section 6.3: a text of whole blocks is padded too, by a block of its own. So there is always one, also of an
        // empty text.
        if last.len() != BLOCK {
            return Err(wrong("the encrypted segment is cut off: its length is not a multiple of 16"));
        }
        self.inner.decrypt_block_mut(GenericArray::from_mut_slice(&mut last));
        let padding = usize::from(last[BLOCK - 1]);
        // RFC 5652, section 6.3: each byte of the padding is its length. What a wrong key leaves is hardly ever like that.
        let is_padding = (1..=BLOCK).contains(&padding)
            && last[BLOCK - padding..].iter().all(|byte| usize::from(*byte) == padding);
        if !is_padding {
            return Err(wrong("the segment can't be decrypted: wrong key, or damaged"));
        }
        plain.extend_from_slice(&last[..BLOCK - padding]);
        Ok(())
    }
}

/// Decrypts a whole segment by AES-256 in GCM mode: 16 bytes of initialization vector, the text, and a tag of 16 bytes
/// (section 4.4.4.4).
///
/// Nothing is passed on before the tag has been checked, so a segment can be played only once it is there as a whole.
pub(crate) struct SealedDecryptor {
    /// Section 4.4.4.4 asks for an initialization vector of 16 bytes, where GCM usually has 12.
    cipher: AesGcm<Aes256, U16>,
    sealed: Vec<u8>,
}

impl SealedDecryptor {
    pub(crate) fn new(cipher: &Cipher) -> Result<Self, Error> {
        let inner = AesGcm::new_from_slice(&cipher.key).map_err(|_| {
            let why = format!("the key of a segment has {} bytes instead of 32", cipher.key.len());
            Error::new(ErrorKind::Unsupported, why)
        })?;
        Ok(Self { cipher: inner, sealed: Vec::new() })
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if self.sealed.len() + bytes.len() > MOST_SEALED {
            let why = format!("a segment that is encrypted as a whole has more than {MOST_SEALED} bytes");
            return Err(Error::new(ErrorKind::TooLarge, why));
        }
        self.sealed.extend_from_slice(bytes);
        Ok(())
    }

    pub(crate) fn finish(&mut self, plain: &mut Vec<u8>) -> Result<(), Error> {
        let mut sealed = std::mem::take(&mut self.sealed);
        let wrong = |why: &str| Error::new(ErrorKind::Unsupported, why);
        let end = sealed.len().checked_sub(BLOCK).filter(|end| *end >= BLOCK);
        let end = end.ok_or_else(|| wrong("the encrypted segment is cut off: it has less than 32 bytes"))?;
        let (rest, tag) = sealed.split_at_mut(end);
        let (iv, text) = rest.split_at_mut(BLOCK);
        let opened = self.cipher.decrypt_in_place_detached(
            GenericArray::from_slice(iv),
            b"",
            text,
            GenericArray::from_slice(tag),
        );
        opened.map_err(|_| wrong("the segment can't be decrypted: wrong key, or damaged"))?;
        plain.extend_from_slice(text);
        Ok(())
    }
}

/// Decrypts frames by SAMPLE-AES (Apple, "MPEG-2 Stream Encryption Format for HTTP Live Streaming", 2.3).
pub(crate) struct FrameDecryptor(cbc::Decryptor<Aes128>);

/// Bytes at the beginning of a frame that are not encrypted, so that decoders of encrypted streams can find the frames.
const CLEAR: usize = 16;

impl FrameDecryptor {
    pub(crate) fn new(cipher: &Cipher) -> Result<Self, Error> {
        Decryptor::new(cipher).map(|decryptor| Self(decryptor.inner))
    }

    /// Decrypts a frame in place.
    pub(crate) fn decrypt(&self, codec: AudioCodec, frame: &mut [u8]) {
        let header = match codec {
            // With a checksum the header of ADTS has two bytes more.
            AudioCodec::Aac | AudioCodec::HeAac if frame.get(1).is_some_and(|byte| byte & 1 == 0) => 9,
            AudioCodec::Aac | AudioCodec::HeAac => 7,
            _ => 0,
        };
        // Each frame begins with the initialization vector again. What is left behind its last whole block is not encrypted.
        let mut inner = self.0.clone();
        for block in frame.get_mut(header + CLEAR..).unwrap_or_default().chunks_exact_mut(BLOCK) {
            inner.decrypt_block_mut(GenericArray::from_mut_slice(block));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aes::cipher::BlockEncryptMut;
    use aes::cipher::block_padding::Pkcs7;

    use super::*;
    use crate::source::hls::playlist::KeyMethod;

    fn cipher() -> Cipher {
        Cipher { method: KeyMethod::Aes128, key: Arc::from([7; 16]), iv: [9; 16] }
    }

    fn encrypt(plain: &[u8]) -> Vec<u8> {
        let cipher = cbc::Encryptor::<Aes128>::new_from_slices(&[7; 16], &[9; 16]).unwrap();
        cipher.encrypt_padded_vec_mut::<Pkcs7>(plain)
    }

    #[test]
    fn any_chunks_give_the_plain_text() {
        for len in [0, 1, 15, 16, 17, 1000] {
            let text: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let secret = encrypt(&text);
            for piece in [1, 7, 16, 17, 2000] {
                let (mut decryptor, mut plain) = (Decryptor::new(&cipher()).unwrap(), Vec::new());
                secret.chunks(piece).for_each(|piece| decryptor.push(piece, &mut plain));
                decryptor.finish(&mut plain).unwrap();
                assert_eq!(plain, text, "{len} bytes in pieces of {piece}");
            }
        }
    }

    #[test]
    fn damage_is_an_error() {
        let secret = encrypt(&[200; 100]);
        let end = |secret: &[u8]| {
            let (mut decryptor, mut plain) = (Decryptor::new(&cipher()).unwrap(), Vec::new());
            decryptor.push(secret, &mut plain);
            decryptor.finish(&mut plain).map_err(|error| error.kind())
        };
        assert_eq!(end(&secret), Ok(()));
        assert_eq!(end(&secret[..90]), Err(ErrorKind::Unsupported));
        assert_eq!(end(&secret[..96]), Err(ErrorKind::Unsupported));
        assert_eq!(end(&[]), Err(ErrorKind::Unsupported));
        let short = Cipher { key: Arc::from([7; 15]), ..cipher() };
        assert!(Decryptor::new(&short).is_err());
    }

    fn seal(plain: &[u8]) -> Vec<u8> {
        let cipher = AesGcm::<Aes256, U16>::new_from_slice(&[7; 32]).unwrap();
        let (iv, mut text) = ([9; 16], plain.to_vec());
        let tag = cipher.encrypt_in_place_detached(GenericArray::from_slice(&iv), b"", &mut text).unwrap();
        [&iv[..], &text, &tag].concat()
    }

    #[test]
    fn a_sealed_segment_is_opened_and_a_changed_one_is_refused() {
        let open = |sealed: &[u8], key: &[u8]| {
            let cipher = Cipher { method: KeyMethod::Aes256Gcm, key: Arc::from(key), iv: [0; 16] };
            let (mut decryptor, mut plain) = (SealedDecryptor::new(&cipher)?, Vec::new());
            sealed.chunks(7).try_for_each(|piece| decryptor.push(piece))?;
            decryptor.finish(&mut plain)?;
            Ok::<_, Error>(plain)
        };
        for len in [0, 1, 16, 1000] {
            let text: Vec<u8> = (0..len).map(|at| at as u8).collect();
            let sealed = seal(&text);
            assert_eq!(open(&sealed, &[7; 32]).unwrap(), text);
            for at in [0, 15, 16, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                assert_eq!(open(&changed, &[7; 32]).unwrap_err().kind(), ErrorKind::Unsupported, "byte {at}");
            }
            assert!(open(&sealed[..sealed.len() - 1], &[7; 32]).is_err());
            assert!(open(&sealed, &[7; 16]).is_err() && open(&[], &[7; 32]).is_err());
        }
    }
}
