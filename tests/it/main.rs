//! Black-box tests: the real app on free ports, real HTTP clients, scripted backends.

mod api;
mod failures;
mod forwarding;
mod guard;
mod harness;
mod lifecycle;
mod splitting;
mod tenants;
