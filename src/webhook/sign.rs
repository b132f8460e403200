//! Signatures as Standard Webhooks describes them, so that receivers can verify with a library of theirs: HMAC-SHA-256 over
//! id, time and body. The time is signed too, so that what was heard on the way cannot be played again later.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use crate::model::SigningSecret;

/// Header with the id of a message: the same on every attempt, so that receivers can tell a repetition.
pub const ID: &str = "webhook-id";
/// Header with the time of an attempt in seconds since the Unix epoch.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// Header with the signature.
pub const SIGNATURE: &str = "webhook-signature";

/// The value of [`SIGNATURE`]: `v1,` and the base64 of the HMAC over `id.unix_s.body`.
pub fn signature(secret: &SigningSecret, id: &str, unix_s: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.key()));
    context.update(format!("{id}.{unix_s}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that the libraries of Standard Webhooks are tested with.
    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signed = signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_ne!(signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_331, body), signed);
        assert_ne!(signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b"{}"), signed);
    }
}
