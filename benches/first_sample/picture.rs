//! A cover as ffmpeg takes it for Ogg: a FLAC picture block in base 64 (RFC 9639, section 8.8), in ffmpeg's own metadata file.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The text of the metadata file.
pub(crate) fn metadata(jpeg: &[u8]) -> String {
    const FRONT_COVER: u32 = 3;
    const TYPE: &[u8] = b"image/jpeg";
    let mut block = Vec::new();
    block.extend(FRONT_COVER.to_be_bytes());
    block.extend((TYPE.len() as u32).to_be_bytes());
    block.extend(TYPE);
    // No description. Width, height, depth and number of colours are left at 0, unknown.
    block.extend([0; 4 * 5]);
    block.extend((jpeg.len() as u32).to_be_bytes());
    block.extend(jpeg);
    // An equals sign is escaped in this format.
    let text = STANDARD.encode(block).replace('=', "\\=");
    format!(";FFMETADATA1\nMETADATA_BLOCK_PICTURE={text}\n")
}
