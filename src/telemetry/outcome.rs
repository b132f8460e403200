//! What one request came to, and whose fault it was.
//!
//! The split by fault decides what may count against a version: only what its own backend did. A client that left or a
//! request that the proxy refused says nothing about the version.

/// In which way a backend failed. The names are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// It answered with 5xx.
    Status,
    /// It answered with a gRPC status that means failure.
    Grpc,
    /// No connection to it.
    Connect,
    /// No answer in time.
    Timeout,
    /// The connection broke before the answer was complete.
    Reset,
}

impl FailureKind {
    /// How many kinds there are.
    pub const COUNT: usize = 5;

    /// Every kind, in the order of its index.
    pub const ALL: [Self; Self::COUNT] = [Self::Status, Self::Grpc, Self::Connect, Self::Timeout, Self::Reset];

    /// The name in metrics, logs and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Grpc => "grpc",
            Self::Connect => "connect",
            Self::Timeout => "timeout",
            Self::Reset => "reset",
        }
    }

    /// Its place in [`FailureKind::ALL`] and in every array of counts by kind.
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl std::fmt::Display for FailureKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whose fault it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nobody's: the version answered (4xx included).
    Served,
    /// The backend failed.
    Backend(FailureKind),
    /// The client went away before the answer was complete.
    ClientLeft,
    /// The proxy refused the request on purpose.
    Refused,
    /// The proxy itself failed.
    Proxy,
}

impl Fault {
    /// The name in the access log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Backend(_) => "backend",
            Self::ClientLeft => "client_left",
            Self::Refused => "refused",
            Self::Proxy => "proxy",
        }
    }

    /// Whether the version had its say, so that the request counts for or against it.
    pub const fn concerns_version(self) -> bool {
        matches!(self, Self::Served | Self::Backend(_))
    }
}

/// What one request came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Outcome {
    /// Whose fault it was.
    pub fault: Fault,
    /// The status that the client was sent, 100 to 599; 0 when it was sent none.
    pub status: u16,
}

impl Outcome {
    /// The version answered with this status.
    pub const fn served(status: u16) -> Self {
        Self { fault: Fault::Served, status }
    }

    /// The backend failed in this way; the client was sent this status.
    pub const fn failed(kind: FailureKind, status: u16) -> Self {
        Self { fault: Fault::Backend(kind), status }
    }

    /// A 4xx answer of the version.
    pub const fn is_client_error(self) -> bool {
        matches!(self.fault, Fault::Served) && self.status >= 400 && self.status < 500
    }
}

/// The label values of `code`, in the order of [`code_index`].
pub const CODE_CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// The class of a status: `1xx` to `5xx`, `none` for everything else.
pub const fn code_class(status: u16) -> &'static str {
    CODE_CLASSES[code_index(status)]
}

/// The place of a status in [`CODE_CLASSES`].
pub(super) const fn code_index(status: u16) -> usize {
    match status {
        100..=599 => status as usize / 100 - 1,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_class() {
        let expected =
            [(0, "none"), (99, "none"), (100, "1xx"), (204, "2xx"), (499, "4xx"), (599, "5xx"), (600, "none")];
        for (status, class) in expected {
            assert_eq!(code_class(status), class, "{status}");
        }
    }

    #[test]
    fn kinds_know_their_place() {
        for (i, kind) in FailureKind::ALL.into_iter().enumerate() {
            assert_eq!(kind.index(), i);
        }
    }

    #[test]
    fn only_a_served_4xx_is_a_client_error() {
        assert!(Outcome::served(404).is_client_error());
        assert!(!Outcome::failed(FailureKind::Timeout, 408).is_client_error());
        assert!(!Outcome { fault: Fault::Refused, status: 404 }.is_client_error());
    }
}
