//! x
pub mod model;
pub mod config;
pub mod telemetry;
pub mod routing;
pub mod analysis;
pub mod store;
pub mod proxy;
pub mod control;
