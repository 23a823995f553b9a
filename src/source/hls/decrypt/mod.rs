//! Decryption of segments (section 4.4.4.4): which key, and the ciphers. Streaming where the method allows. No I/O, no clock.

#[cfg(feature = "hls-aes")]
mod aes;
mod cipher;
mod keys;
#[cfg(not(feature = "hls-aes"))]
mod without_aes;

use crate::error::Error;
use crate::source::hls::playlist::KeyMethod;

#[cfg(feature = "hls-aes")]
pub(crate) use self::aes::{Decryptor, FrameDecryptor, SealedDecryptor};
pub(crate) use self::cipher::Cipher;
pub(crate) use self::keys::{choose_key, iv_of};
#[cfg(not(feature = "hls-aes"))]
pub(crate) use self::without_aes::{Decryptor, FrameDecryptor, SealedDecryptor};

/// Decrypts a whole resource.
pub(crate) fn decrypt(cipher: &Cipher, bytes: &[u8]) -> Result<Vec<u8>, Error> {
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
