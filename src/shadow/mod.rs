//! Answers in, differences out: does the shadow answer as the baseline does?
//!
//! Two answers to the same request are compared by status, by field when both are JSON, else by hash. What differs
//! between two answers of the baseline itself (times, ids, counters) is noise: it is learned by asking the baseline
//! twice, and a field that was ever seen to differ so is not reported, neither from then on nor for what was counted
//! before. What remains, together with copies that were not answered, gives a verdict.
//!
//! The room is pure: no I/O, no clock, no chance. Its numbers are kept by whoever sends the copies. Values never leave it:
//! fields are known by path, and of their values only type and length.

mod body;
mod compare;
mod judge;
mod verdict;

pub use body::Body;
pub use compare::{Difference, Differences, Kind, Shape, differences};
pub use judge::{Exchange, FieldReport, Judge, Missed, NOISE_NEEDED, Quantiles, Report, Result, Side};
pub use verdict::{Verdict, verdict};
