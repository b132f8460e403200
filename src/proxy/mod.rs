//! The data plane: takes requests in, sends each to the version that the routes decide, and counts what came of it.
//!
//! The only room that knows Pingora's request phases. It knows neither the control room nor the store: it reads the
//! published routes and adds to the tallies. If everything else is broken, traffic flows on.

mod access;
mod address_text;
mod admit;
#[doc(hidden)]
pub mod bare;
mod client_side;
mod clock;
mod closed;
mod context;
mod detour;
mod endpoints;
mod errors;
mod files;
mod front;
mod gateway;
mod grpc;
mod headers;
mod health;
mod http1;
mod hygiene;
mod in_flight;
mod last_part;
mod listen;
mod maintenance;
mod outcome;
mod path;
mod refusal;
mod request_body;
mod rescue;
mod resolve;
mod route_stats;
mod server;
mod shadow;
mod span_attributes;
mod spans;
mod streams;
mod tls;
mod upstream;
mod waits;

pub use clock::Clock;
pub use endpoints::EndpointKeeper;
pub use resolve::resolve;
pub use server::{ProxyHandle, ProxyParts, StartProxyError, start};
pub use streams::StreamKeeper;
pub use tls::{TlsError, bad_files, check_version};
