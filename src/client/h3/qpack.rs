//! Header compression (RFC 9204) with the static table and Huffman code only. This client allows the server no dynamic table
//! (capacity 0), so a field section never waits for another stream, and its size in memory has a limit.

use std::sync::OnceLock;

use super::code::{Code, Violation};
use super::tables::{FIELDS, HUFFMAN};

/// Name and value of a field.
pub(crate) type Field = (Vec<u8>, Vec<u8>);

/// What a field costs in addition to its bytes, towards the limit of a section (RFC 9114, section 4.2.2).
const FIELD_OVERHEAD: usize = 32;

/// Encodes a field section.
pub(crate) fn encode<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    // RFC 9204, section 4.5.1: Required Insert Count and Delta Base are 0 without a dynamic table.
    let mut out = vec![0, 0];
    for (name, value) in fields {
        let named = |(_, field): &(usize, &(&str, &str))| field.0.as_bytes() == name;
        let equal = FIELDS.iter().enumerate().filter(named).find(|(_, field)| field.1.as_bytes() == value);
        let same_name = || FIELDS.iter().enumerate().find(named);
        if let Some((index, _)) = equal {
            // Section 4.5.2: indexed field line, static table.
            put_prefixed(&mut out, 0b1100_0000, 6, index as u64);
            continue;
        }
        match same_name() {
            // Section 4.5.4: literal field line with name reference, static table.
            Some((index, _)) => put_prefixed(&mut out, 0b0101_0000, 4, index as u64),
            // Section 4.5.6: literal field line with literal name.
            None => put_string(&mut out, 0b0010_0000, 3, name),
        }
        put_string(&mut out, 0, 7, value);
    }
    out
}

/// Decodes a field section. Fields may take at most `limit` bytes in all, counted as RFC 9114, section 4.2.2 does.
pub(crate) fn decode(section: &[u8], limit: usize) -> Result<Vec<Field>, Violation> {
    let mut input = Input(section);
    // Section 4.5.1: with a capacity of 0, a section can't refer to the dynamic table.
    if input.prefixed(8)? != 0 {
        return Err(failed("a field section refers to the dynamic table, which has no capacity"));
    }
    // The sign and the Delta Base. Nothing that is read here refers to a base.
    input.prefixed(7)?;
    let (mut fields, mut size) = (Vec::new(), 0);
    while let Some(first) = input.0.first().copied() {
        // What is left of the limit also bounds each string before it is decoded.
        let left = limit.saturating_sub(size);
        let field = match first {
            // Section 4.5.2: `1T`. T is the static table.
            0b1100_0000.. => {
                let (name, value) = static_field(input.prefixed(6)?)?;
                (name.as_bytes().to_vec(), value.as_bytes().to_vec())
            }
            // Section 4.5.4: `01NT`. N asks intermediaries never to index the field, and says nothing to a client.
            0b0101_0000..=0b0101_1111 | 0b0111_0000..=0b0111_1111 => {
                let (name, _) = static_field(input.prefixed(4)?)?;
                (name.as_bytes().to_vec(), input.string(7, left)?)
            }
            0b0010_0000..=0b0011_1111 => (input.string(3, left)?, input.string(7, left)?),
            // Indexed or named by the dynamic table, before or after the base.
            _ => return Err(failed("a field refers to the dynamic table, which has no capacity")),
        };
        size += field.0.len() + field.1.len() + FIELD_OVERHEAD;
        if size > limit {
            return Err(too_large());
        }
        fields.push(field);
    }
    Ok(fields)
}

fn failed(why: &'static str) -> Violation {
    Violation::new(Code::QPACK_DECOMPRESSION_FAILED, why)
}

fn too_large() -> Violation {
    Violation::new(Code::EXCESSIVE_LOAD, "the response head is larger than ClientConfig::max_head")
}

fn static_field(index: u64) -> Result<(&'static str, &'static str), Violation> {
    let field = usize::try_from(index).ok().and_then(|index| FIELDS.get(index));
    field.copied().ok_or_else(|| failed("a field has an index beyond the static table"))
}

/// Appends an integer with a prefix of `bits` bits, under `flags` (RFC 7541, section 5.1).
fn put_prefixed(out: &mut Vec<u8>, flags: u8, bits: u32, value: u64) {
    let most = (1 << bits) - 1;
    if value < most {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | most as u8);
    let mut left = value - most;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

/// Appends a string whose length has a prefix of `bits` bits (RFC 7541, section 5.2), with the Huffman code if that is shorter.
fn put_string(out: &mut Vec<u8>, flags: u8, bits: u32, text: &[u8]) {
    let coded: usize = text.iter().map(|byte| usize::from(HUFFMAN[usize::from(*byte)].1)).sum();
    let len = coded.div_ceil(8);
    if len >= text.len() {
        put_prefixed(out, flags, bits, text.len() as u64);
        return out.extend(text);
    }
    put_prefixed(out, flags | 1 << bits, bits, len as u64);
    let (mut pending, mut held) = (0_u64, 0);
    for byte in text {
        let (code, bits) = HUFFMAN[usize::from(*byte)];
        pending = pending << bits | u64::from(code);
        held += u32::from(bits);
        while held >= 8 {
            held -= 8;
            out.push((pending >> held) as u8);
        }
    }
    if held > 0 {
        // The most significant bits of EOS, which are ones, fill the last byte.
        out.push((pending << (8 - held)) as u8 | (0xff >> held));
    }
}

/// The rest of a field section.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, Violation> {
        let (first, rest) = self.0.split_first().ok_or_else(|| failed("a field section ends in a field"))?;
        self.0 = rest;
        Ok(*first)
    }

    /// An integer with a prefix of `bits` bits. The bits before it are ignored.
    fn prefixed(&mut self, bits: u32) -> Result<u64, Violation> {
        let most = (1_u64 << bits) - 1;
        let mut value = u64::from(self.byte()?) & most;
        if value < most {
            return Ok(value);
        }
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            // RFC 9204, section 4.1.1: integers of up to 62 bits have to be accepted. Nothing here is longer than 28.
            if shift > 21 {
                return Err(failed("an integer in a field section is too large"));
            }
            value += u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
    }

    /// A string whose length has a prefix of `bits` bits, below the bit for the Huffman code.
    fn string(&mut self, bits: u32, limit: usize) -> Result<Vec<u8>, Violation> {
        let is_coded = self.0.first().is_some_and(|first| first & 1 << bits != 0);
        let len = self.prefixed(bits)? as usize;
        let text = self.0.get(..len).ok_or_else(|| failed("a string is longer than its field section"))?;
        self.0 = &self.0[len..];
        if is_coded {
            return decode_huffman(text, limit);
        }
        if len > limit { Err(too_large()) } else { Ok(text.to_vec()) }
    }
}

/// A node of the tree of codes: for each bit, the next node or, above [`LEAF`], a symbol.
type Node = [u16; 2];

const LEAF: u16 = 0x8000;

/// The tree of codes. The root is the first node.
fn tree() -> &'static [Node] {
    static TREE: OnceLock<Vec<Node>> = OnceLock::new();
    TREE.get_or_init(|| {
        let mut nodes: Vec<Node> = vec![[0; 2]];
        for (symbol, (code, bits)) in HUFFMAN.iter().enumerate() {
            let mut at = 0;
            for bit in (1..*bits).rev() {
                let side = (code >> bit & 1) as usize;
                if nodes[at][side] == 0 {
                    nodes[at][side] = nodes.len() as u16;
                    nodes.push([0; 2]);
                }
                at = usize::from(nodes[at][side]);
            }
            nodes[at][(code & 1) as usize] = LEAF | symbol as u16;
        }
        nodes
    })
}

fn decode_huffman(coded: &[u8], limit: usize) -> Result<Vec<u8>, Violation> {
    let tree = tree();
    let mut text = Vec::new();
    // Bits since the last symbol, and whether all of them are ones.
    let (mut at, mut pending, mut is_padding) = (0, 0, true);
    for bit in coded.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1)) {
        let next = tree[at][usize::from(bit)];
        (pending, is_padding) = (pending + 1, is_padding && bit == 1);
        if next & LEAF == 0 {
            at = usize::from(next);
            continue;
        }
        // RFC 7541, section 5.2: EOS in a string is an error.
        let symbol = u8::try_from(next & !LEAF).map_err(|_| failed("a Huffman code contains EOS"))?;
        if text.len() == limit {
            return Err(too_large());
        }
        text.push(symbol);
        (at, pending, is_padding) = (0, 0, true);
    }
    // RFC 7541, section 5.2: at most 7 bits of padding, the most significant bits of EOS.
    if pending > 7 || !is_padding {
        return Err(failed("the padding of a Huffman code is wrong"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(fields: &[Field]) -> Result<Vec<Field>, Violation> {
        decode(&encode(fields.iter().map(|(name, value)| (&name[..], &value[..]))), 1 << 20)
    }

    #[test]
    fn the_huffman_code_is_complete_and_free_of_prefixes() {
        // Kraft: the codes fill the space exactly.
        let sum: u64 = HUFFMAN.iter().map(|(_, bits)| 1_u64 << (30 - bits)).sum();
        assert_eq!(sum, 1 << 30);
        assert!(HUFFMAN.iter().all(|(code, bits)| u64::from(*code) < 1 << bits));
        assert!(tree().iter().all(|node| node[0] != 0 && node[1] != 0));
    }

    #[test]
    fn the_examples_of_the_rfcs_decode() {
        // RFC 9204, appendix B.1.
        let section = [&b"\x00\x00\x51\x0b/index.html"[..]].concat();
        assert_eq!(decode(&section, 1000).unwrap(), [(b":path".to_vec(), b"/index.html".to_vec())]);
        // RFC 7541, appendix C.4.1 and C.6.1.
        let coded = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];
        assert_eq!(decode_huffman(&coded, 100).unwrap(), b"www.example.com");
        assert_eq!(decode_huffman(&[0xae, 0xc3, 0x77, 0x1a, 0x4b], 100).unwrap(), b"private");
    }

    #[test]
    fn the_prefixed_integers_of_rfc_7541_appendix_c() {
        for (value, bits, bytes) in [(10, 5, &[10][..]), (1337, 5, &[31, 154, 10]), (42, 8, &[42])] {
            let mut out = Vec::new();
            put_prefixed(&mut out, 0, bits, value);
            assert_eq!(out, bytes);
            assert_eq!(Input(bytes).prefixed(bits).unwrap(), value);
        }
    }

    #[test]
    fn a_whole_entry_of_the_static_table_takes_two_bytes_at_most() {
        for (name, value) in FIELDS {
            let field = (name.as_bytes(), value.as_bytes());
            let section = encode([field]);
            assert!(section.len() <= 4, "{name}: {value}");
            assert_eq!(decode(&section, 1000).unwrap(), [(field.0.to_vec(), field.1.to_vec())]);
        }
    }

    #[test]
    fn the_dynamic_table_is_refused() {
        for section in [
            &[1, 0][..],
            // Indexed, named, and both after the base.
            &[0, 0, 0x80],
            &[0, 0, 0x40, 0],
            &[0, 0, 0x10],
            &[0, 0, 0x00, 0],
            // Beyond the static table.
            &[0, 0, 0xff, 36],
        ] {
            let violation = decode(section, 1000).unwrap_err();
            assert_eq!(violation.code, Code::QPACK_DECOMPRESSION_FAILED, "{section:?}");
        }
    }

    #[test]
    fn a_small_section_of_many_fields_is_refused_at_the_limit() {
        // Each byte is a field of 38 bytes and more.
        let bomb = [&[0, 0][..], &[0xd9; 10_000]].concat();
        assert_eq!(decode(&bomb, 64 * 1024).unwrap_err().code, Code::EXCESSIVE_LOAD);
        let zeros = put_zeros(100_000);
        assert_eq!(decode(&zeros, 64 * 1024).unwrap_err().code, Code::EXCESSIVE_LOAD);
    }

    /// A section with one value of `count` characters of 5 bits.
    fn put_zeros(count: usize) -> Vec<u8> {
        encode([(&b":path"[..], &vec![b'0'; count][..])])
    }

    #[test]
    fn wrong_padding_is_refused() {
        // 'a' is 00011. Three bits of padding, of which one is zero.
        assert!(decode_huffman(&[0b0001_1111], 9).is_ok());
        assert!(decode_huffman(&[0b0001_1110], 9).is_err());
        // A byte of padding.
        assert!(decode_huffman(&[0b0001_1111, 0xff], 9).is_err());
        // EOS.
        assert!(decode_huffman(&[0xff, 0xff, 0xff, 0xff], 9).is_err());
    }

    proptest! {
        #[test]
        fn fields_survive(fields in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..40), prop::collection::vec(any::<u8>(), 0..300)), 0..12,
        )) {
            prop_assert_eq!(round_trip(&fields).unwrap(), fields);
        }

        #[test]
        fn mutated_sections_stay_within_the_limit(
            fields in prop::collection::vec(("[a-z-]{0,20}", "[ -~]{0,60}"), 0..6),
            changes in prop::collection::vec((any::<usize>(), any::<u8>()), 0..6),
            limit in 0..400usize,
        ) {
            let mut section = encode(fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
            for (at, byte) in changes {
                let len = section.len();
                section[at % len] = byte;
            }
            if let Ok(decoded) = decode(&section, limit) {
                let size: usize = decoded.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
                prop_assert!(size <= limit);
            }
        }
    }
}
