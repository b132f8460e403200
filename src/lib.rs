//! Switchback runs old and new versions of a service side by side, routes each tenant's requests to one or the other,
//! measures both, and shifts traffic back by itself the moment the new version is worse.
//!
//! Rooms, lowest first; each may use those above it in this list, those joined by `and` do not use each other:
//!
//! 1. [`model`]: plain values
//! 2. [`config`], [`telemetry`] and [`handover`]: the file; what is counted; how one process takes over from another
//! 3. [`shadow`]: from two answers to what differs between them
//! 4. [`routing`], [`analysis`] and [`planning`]: from a request to a version; from counts to a verdict; what a rollout
//!    does next
//! 5. [`simulation`]: what would happen if a rollout began
//! 6. [`proxy`] and [`store`]: the data plane; where the state is kept
//! 7. [`webhook`]: calls to other people's receivers
//! 8. [`control`]: the one writer
//! 9. [`admin`], [`autopilot`] and [`notify`]: the API for people; the guard; who is told of what happens
//! 10. [`app`]: joins everything
//! 11. [`cli`]: the command line
//!
//! The path of one request: the front accepts it (deadline, cap), the gateway reads its head and asks
//! [`routing::decide`] once, Pingora sends it to an endpoint of that version, headers are added each way, and at the end
//! its outcome is added to the tallies. The guard looks at the tallies ten times a second.

#![forbid(unsafe_code)]

pub mod model;

pub mod config;
pub mod handover;
pub mod telemetry;

pub mod shadow;

pub mod analysis;
pub mod planning;
pub mod routing;

pub mod simulation;

pub mod proxy;
pub mod store;

pub mod webhook;

pub mod control;

pub mod admin;
pub mod autopilot;
pub mod notify;

pub mod app;

pub mod cli;
