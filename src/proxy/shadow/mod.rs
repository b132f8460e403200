//! Copies of requests to a version that users do not see.
//!
//! While a request is on its way only its head and the parts of its answer are remembered, shared and not copied. When
//! the client has its answer the copy is queued; if the queue is full it is dropped and counted. Everything after that
//! happens on a thread of its own, with connections of its own, so that a shadow that is slow, dead or hostile costs
//! the client nothing. Copies count neither as requests nor as evidence, and do not put endpoints out of use.

mod copy;
mod sample;
mod send;
mod worker;

pub(super) use copy::into_http2;
pub(super) use sample::Sample;
pub(super) use worker::{Queue, Worker};
