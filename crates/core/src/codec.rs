//! Binary encoding of what this program alone reads: bincode, behind one door.
//!
//! bincode is pinned and no longer developed; should it have to go, this file is what changes.
//! Decoding is bounded, and bytes left over are an error.

#[cfg(any(test, feature = "testing"))]
pub mod golden;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes that decoding may claim: what a hostile length could allocate at most.
const DECODED_BYTES_MAX: usize = 1 << 30;

/// What can't be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A value without a binary form.
    #[error("can't encode: {0}")]
    Encode(#[from] bincode::error::EncodeError),
    /// Bytes that are no such value.
    #[error("can't decode: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    /// A value, and then more.
    #[error("{0} bytes left over after the value")]
    LeftOver(usize),
}

/// The value as bytes.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    Ok(bincode::serde::encode_to_vec(value, bincode::config::standard())?)
}

/// The value that all of `bytes` stand for.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_within::<T, DECODED_BYTES_MAX>(bytes)
}

/// The same where decoding may claim `MAX` bytes at most: for what comes from a network. `T` must
/// neither be recursive nor have lists of elements without size, since neither is bounded by that.
pub fn decode_within<T: DeserializeOwned, const MAX: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<MAX>();
    let (value, read) = bincode::serde::decode_from_slice(bytes, config)?;
    if read < bytes.len() {
        return Err(CodecError::LeftOver(bytes.len() - read));
    }
    Ok(value)
}

/// The value that `bytes` begin with, whatever follows: for a version in front of what only that
/// version can read.
pub fn decode_first<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<DECODED_BYTES_MAX>();
    Ok(bincode::serde::decode_from_slice(bytes, config)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reads_back_and_nothing_else_does() {
        let bytes = encode(&(1u64, "two".to_string())).unwrap();
        assert_eq!(decode::<(u64, String)>(&bytes).unwrap(), (1, "two".into()));
        assert!(decode::<(u64, String)>(&bytes[..2]).is_err());
        assert!(matches!(decode::<u64>(&bytes), Err(CodecError::LeftOver(_))));
        assert!(decode_within::<String, 2>(&encode(&"two").unwrap()).is_err());
        assert!(decode::<Vec<u64>>(&[253, 255, 255, 255, 255, 255, 255, 255, 127]).is_err());
    }
}
