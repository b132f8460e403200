//! Black-box tests: the real app on free ports, real HTTP clients, scripted backends.

mod api;
mod deprecation;
mod endpoint_networks;
mod failures;
mod forwarding;
mod front;
mod grpc;
mod guard;
mod harness;
mod http2;
mod kill_switch;
mod lifecycle;
mod limits;
mod maintenance;
mod rescue;
mod routes;
mod sessions;
mod shadow;
mod skew;
mod splitting;
mod tenants;
mod tls;
mod together;
mod upstream_tls;
mod websockets;
mod websocket;
