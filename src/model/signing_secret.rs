//! The secret that signs calls to other people's receivers, in the form of Standard Webhooks.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What the text begins with, so that a secret is recognised as one wherever it turns up.
const PREFIX: &str = "whsec_";
/// Fewest and most bytes that Standard Webhooks allows.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret of 24 to 64 bytes. Its text is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(Arc<[u8]>);

/// Why a text is no such secret. It does not hold the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningSecretError {
    /// It begins otherwise.
    #[error("does not begin with \"whsec_\"")]
    Prefix,
    /// What follows is not base64.
    #[error("is not base64 after \"whsec_\"")]
    Base64,
    /// Too short to be safe, or too long.
    #[error("has {0} bytes")]
    Length(usize),
}

impl SigningSecret {
    /// The bytes of the key.
    pub fn key(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for SigningSecret {
    type Err = SigningSecretError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let encoded = text.strip_prefix(PREFIX).ok_or(SigningSecretError::Prefix)?;
        let key = STANDARD.decode(encoded).map_err(|_| SigningSecretError::Base64)?;
        match BYTES.contains(&key.len()) {
            true => Ok(Self(key.into())),
            false => Err(SigningSecretError::Length(key.len())),
        }
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_and_never_shown() {
        let secret: SigningSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        assert_eq!(secret.key().len(), 24);
        assert_eq!(format!("{secret:?}"), "[secret]");
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_repeated() {
        let read = |text: &str| text.parse::<SigningSecret>().unwrap_err();
        assert_eq!(read("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), SigningSecretError::Prefix);
        assert_eq!(read("whsec_not base64"), SigningSecretError::Base64);
        assert_eq!(read("whsec_c2hvcnQ="), SigningSecretError::Length(5));
        assert_eq!(read(&format!("whsec_{}", STANDARD.encode([7; 65]))), SigningSecretError::Length(65));
        assert!(!read("whsec_c2hvcnQ=").to_string().contains("c2hvcnQ"));
    }
}
