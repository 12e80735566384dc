//! A chunk as it is stored: compressed by zstd, named by the SHA-256 of its compressed bytes.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{ChunkRef, Flaw};
use crate::machine::Chunk;

/// The compression level: state is written every half minute, so speed counts more than size.
const LEVEL: i32 = 1;
/// The largest chunk that is read, in bytes uncompressed; a manifest that claims more is broken.
const CHUNK_BYTES_MAX: u64 = 1 << 30;

/// A chunk's compressed bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Its hash and sizes.
    pub named: ChunkRef,
    /// The compressed bytes.
    pub bytes: Bytes,
}

impl Packed {
    /// Compresses a chunk.
    pub fn pack(chunk: &Chunk) -> Self {
        let bytes =
            zstd::bulk::compress(&chunk.bytes, LEVEL).expect("compressing to memory has no way to fail");
        let named = ChunkRef { number: chunk.number, hash: hex(&bytes), bytes: chunk.bytes.len() as u64 };
        Self { named, bytes: bytes.into() }
    }

    /// Checks the bytes against their name, and decompresses them.
    pub fn unpack(&self) -> Result<Chunk, Flaw> {
        unpack(&self.named, &self.bytes)
    }
}

/// Checks stored bytes against the name in the manifest, and decompresses them.
pub(super) fn unpack(named: &ChunkRef, stored: &[u8]) -> Result<Chunk, Flaw> {
    let broken = |what: &str| Flaw::Broken(format!("chunk {}: {what}", named.number));
    if named.bytes > CHUNK_BYTES_MAX {
        return Err(broken("its size is beyond the limit"));
    }
    if hex(stored) != named.hash {
        return Err(broken("its bytes do not have the hash that the manifest names"));
    }
    let bytes = zstd::bulk::decompress(stored, named.bytes as usize).map_err(|e| broken(&e.to_string()))?;
    if bytes.len() as u64 != named.bytes {
        return Err(broken("it is shorter than the manifest says"));
    }
    Ok(Chunk { number: named.number, bytes })
}

/// The SHA-256 of some bytes, in hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}
