//! Pingora's errors as the plain facts that the outcome is made from.

use pingora::prelude::Error;
use pingora::{ErrorSource, ErrorType};

use super::outcome::{ErrorKind, Side};

/// Which side an error came from.
pub(super) fn side_of(error: &Error) -> Side {
    match error.esource() {
        ErrorSource::Downstream => Side::Client,
        ErrorSource::Upstream => Side::Version,
        ErrorSource::Internal | ErrorSource::Unset => Side::Proxy,
    }
}

/// What kind of error it was.
pub(super) fn kind_of(error: &Error) -> ErrorKind {
    match error.etype() {
        ErrorType::HTTPStatus(status) => ErrorKind::Status(*status),
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => ErrorKind::ConnectTimeout,
        ErrorType::ConnectRefused | ErrorType::ConnectNoRoute | ErrorType::ConnectError | ErrorType::SocketError => {
            ErrorKind::Connect
        }
        ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError => ErrorKind::Tls,
        ErrorType::ReadTimedout => ErrorKind::Timeout,
        ErrorType::WriteTimedout => ErrorKind::Stalled,
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => ErrorKind::Closed,
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::InvalidH2 => ErrorKind::Protocol,
        _ => ErrorKind::Other,
    }
}
