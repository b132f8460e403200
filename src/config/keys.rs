//! The table of keys, first half: the process's own settings. The services are in `keys_services`.

use super::formats::{
    ADDRESS, ADDRESS_OR_OFF, ETCD, FILE, HEADER, HOST_PORT, LINK, LONG_SECRET, NETWORK, PATH, SECRET,
    SECRET_HEADER_VALUE, SERVICE, SHA256, TEXT,
};
use super::keys_notify::NOTIFY;
use super::keys_services::{SERVICE_TABLE, TENANTS};
use super::kinds::{Key, Kind, Table, hours, ms};

/// The whole file.
pub(super) static FILE_TABLE: Table = Table::new(
    "Settings of Switchback.",
    &[
        Key::required("proxy", Kind::Table(&PROXY), "Where requests come in, and their limits."),
        Key::default("admin", Kind::Table(&ADMIN), "{}", "The admin API and the dashboard."),
        Key::default("store", Kind::Table(&STORE), "{}", "Where the state of the services is kept."),
        Key::default("metrics", Kind::Table(&METRICS), "{}", "How much is counted by tenant."),
        Key::default("tenants", Kind::Table(&TENANTS), "{}", "How the tenant of a request is found."),
        Key::default("services", Kind::Map(&SERVICE, &Kind::Table(&SERVICE_TABLE)), "{}", "Services by name."),
        Key::default("notify", Kind::List(&Kind::Table(&NOTIFY), 0), "[]", "Who is told of what happens."),
    ],
);

static PROXY: Table = Table::new(
    "Where requests come in, and their limits.",
    &[
        Key::default(
            "listen",
            Kind::List(&Kind::Text(&ADDRESS), 0),
            "[]",
            "Addresses for HTTP/1.1 and h2c. At least one of listen and tls is needed. Port 0 is any free port.",
        ),
        Key::default("threads", Kind::Integer(0, 1024), "0", "Threads that serve requests; 0: one per core."),
        Key::default("tls", Kind::List(&Kind::Table(&TLS), 0), "[]", "Addresses for HTTP/1.1 and h2 over TLS."),
        Key::default(
            "trusted",
            Kind::List(&Kind::Text(&NETWORK), 0),
            "[]",
            "Addresses and networks of proxies in front whose x-forwarded-… and tenant headers are believed.",
        ),
        Key::default(
            "proxy_protocol",
            Kind::List(&Kind::Text(&NETWORK), 0),
            "[]",
            "Addresses and networks of load balancers that begin each connection with a PROXY protocol header, 1 or 2.",
        ),
        Key::default("limits", Kind::Table(&LIMITS), "{}", "What a client may use up."),
        Key::default("access_log", Kind::Table(&ACCESS_LOG), "{}", "One line for each request."),
        Key::default("tracing", Kind::Table(&TRACING), "{}", "A span for each request, for OpenTelemetry."),
        Key::default(
            "drain_timeout",
            Kind::Duration(ms(0), hours(24)),
            "\"30s\"",
            "How long requests in flight may finish after SIGTERM, or after another process has taken over.",
        ),
        Key::default(
            "ready_delay",
            Kind::Duration(ms(0), hours(1)),
            "\"0s\"",
            "How long /readyz answers 503 before the listeners close, so that load balancers look away first.",
        ),
        Key::default("watch", Kind::Bool, "false", "Whether this file is read again by itself when it changes."),
        Key::default(
            "handover",
            Kind::Text(&FILE),
            "\"switchback.sock\"",
            "Unix socket on which a new process takes over from this one; \"off\": none can.",
        ),
        Key::optional(
            "cookie_secret",
            Kind::Either(&Kind::Text(&LONG_SECRET), &Kind::List(&Kind::Text(&LONG_SECRET), 1)),
            "made at the first start and kept in the store",
            "Signs the cookies that the proxy sets; the same on all nodes. Of several, the first signs and all are accepted.",
        ),
        Key::default(
            "upstream_keepalive",
            Kind::Integer(0, 1_000_000),
            "1024",
            "Unused connections to endpoints that are kept open, all endpoints together.",
        ),
    ],
);

static TLS: Table = Table::new(
    "An address for HTTP/1.1 and h2 over TLS.",
    &[
        Key::required("listen", Kind::Text(&ADDRESS), "The address. Port 0 is any free port."),
        Key::required(
            "certificates",
            Kind::List(&Kind::Table(&CERTIFICATE), 1),
            "Certificates, chosen by the name that the client asks for.",
        ),
        Key::optional(
            "client_ca",
            Kind::Text(&FILE),
            "clients need no certificate",
            "PEM file of the authorities of which clients must have a certificate; read again when it changes.",
        ),
        Key::default(
            "client_certificates",
            Kind::Choice(&["required", "optional"]),
            "\"required\"",
            "Whether clients without a certificate are refused here, or only by services that need one.",
        )
        .with("client_ca"),
        Key::default(
            "unknown_name",
            Kind::Choice(&["first", "refuse"]),
            "\"first\"",
            "Clients that ask for a name without a certificate: they are shown the first, or refused.",
        ),
        Key::default(
            "min_version",
            Kind::Choice(&["1.2", "1.3"]),
            "\"1.2\"",
            "The oldest version of TLS that is spoken.",
        ),
    ],
);

static CERTIFICATE: Table = Table::new(
    "A certificate and its key, read again when the files change.",
    &[
        Key::required("cert", Kind::Text(&FILE), "PEM file with the certificate, then its chain."),
        Key::required("key", Kind::Text(&FILE), "PEM file with the private key."),
    ],
);

static LIMITS: Table = Table::new(
    "What a client may use up.",
    &[
        Key::default("header_size", Kind::Size(1 << 10, 1 << 20), "\"64KiB\"", "Largest request head."),
        Key::default("headers", Kind::Integer(1, 256), "100", "Most headers of a request."),
        Key::default(
            "header_timeout",
            Kind::Duration(ms(100), hours(1)),
            "\"10s\"",
            "How long a client may take for the request head, the TLS handshake included.",
        ),
        Key::default(
            "body_size",
            Kind::Size(0, 1 << 50),
            "\"1GiB\"",
            "Largest request body; 0: any. A service may have its own body_limit.",
        ),
        Key::default(
            "body_timeout",
            Kind::Duration(ms(100), hours(24)),
            "\"30s\"",
            "Longest pause between two parts of a request body.",
        ),
        Key::default(
            "min_body_rate",
            Kind::Size(0, 1 << 30),
            "256",
            "Bytes per second that a request body must come with once it was waited for longer than body_timeout; 0: any.",
        ),
        Key::default("connections", Kind::Integer(1, 10_000_000), "20000", "Most client connections at a time."),
        Key::default(
            "connections_per_address",
            Kind::Integer(1, 10_000_000),
            "2000",
            "Most connections of one client address (of IPv6: one /64) at a time. Not for addresses in proxy.trusted.",
        ),
        Key::default(
            "requests",
            Kind::Integer(0, 10_000_000),
            "20000",
            "Most requests at a time, of all services together, streams included; 0: any. More are answered with 503.",
        ),
        Key::default(
            "keepalive_timeout",
            Kind::Duration(ms(100), hours(24)),
            "\"75s\"",
            "How long an unused client connection stays open.",
        ),
        Key::default(
            "keepalive_requests",
            Kind::Integer(0, 4_294_967_295),
            "10000",
            "Requests after which a client connection is closed; 0: never.",
        ),
        Key::default(
            "write_timeout",
            Kind::Duration(ms(100), hours(24)),
            "\"30s\"",
            "How long a client may take nothing of the answer.",
        ),
        Key::default(
            "h2_streams",
            Kind::Integer(1, 10_000),
            "32",
            "Requests that one HTTP/2 connection may have open at a time.",
        ),
        Key::default(
            "h2_control_frames",
            Kind::Integer(1, 1_000_000),
            "1000",
            "Frames without content (resets, pings, settings, tiny data) that one HTTP/2 connection may send per second.",
        ),
    ],
);

static ACCESS_LOG: Table = Table::new(
    "One line of JSON for each request.",
    &[
        Key::default("enabled", Kind::Bool, "false", "Whether it is written."),
        Key::optional("path", Kind::Text(&FILE), "standard output", "File to which lines are added."),
        Key::default(
            "queue",
            Kind::Integer(1, 10_000_000),
            "10000",
            "Lines that may wait to be written; more are dropped and counted.",
        ),
    ],
);

static TRACING: Table = Table::new(
    "A span for each request, sent to a collector of OpenTelemetry (OTLP).",
    &[
        Key::optional(
            "endpoint",
            Kind::Text(&LINK),
            "no spans are made",
            "Where the collector listens, such as \"http://127.0.0.1:4318\"; /v1/traces is added unless it is there.",
        ),
        Key::default(
            "protocol",
            Kind::Choice(&["http/protobuf"]),
            "\"http/protobuf\"",
            "How spans are sent: OTLP as protobuf over HTTP.",
        ),
        Key::default(
            "headers",
            Kind::Map(&HEADER, &Kind::Text(&SECRET_HEADER_VALUE)),
            "{}",
            "Headers that are sent to the collector, such as those that it knows its customers by.",
        ),
        Key::default("service_name", Kind::Text(&TEXT), "\"switchback\"", "The resource's service.name."),
        Key::default("sample", Kind::Percent, "1", "Percent of the requests without a parent that are recorded."),
        Key::default(
            "parent",
            Kind::Choice(&["all", "trusted", "none"]),
            "\"all\"",
            "Whose traceparent says whether a request is recorded: everybody's, that of trusted addresses, or nobody's.",
        ),
        Key::default(
            "queue",
            Kind::Integer(1, 1_000_000),
            "4096",
            "Requests whose spans may wait to be sent; the spans of more are dropped and counted.",
        ),
        Key::default("batch", Kind::Integer(1, 10_000), "512", "Most requests whose spans are sent together."),
        Key::default(
            "delay",
            Kind::Duration(ms(10), hours(1)),
            "\"1s\"",
            "How long spans wait for others, unless a batch is full.",
        ),
        Key::default(
            "timeout",
            Kind::Duration(ms(10), hours(1)),
            "\"5s\"",
            "How long the collector may take; what it has not taken by then is lost and counted.",
        ),
    ],
);

static ADMIN: Table = Table::new(
    "The admin API and the dashboard.",
    &[
        Key::default(
            "listen",
            Kind::Text(&ADDRESS_OR_OFF),
            "\"127.0.0.1:9900\"",
            "The address; \"off\": none. Without tokens only loopback is allowed. Port 0 is any free port.",
        ),
        Key::default(
            "tokens",
            Kind::List(&Kind::Table(&TOKEN), 0),
            "[]",
            "Who may use the API. Without tokens everyone on this machine may do everything.",
        ),
        Key::default(
            "allowed_hosts",
            Kind::List(&Kind::Text(&HOST_PORT), 0),
            "[]",
            "Further values of the host header. Allowed anyway: the address itself, localhost, 127.0.0.1 and [::1].",
        ),
        Key::default("body_size", Kind::Size(1 << 10, 1 << 30), "\"1MiB\"", "Largest body of a request."),
        Key::default(
            "endpoint_networks",
            Kind::List(&Kind::Text(&NETWORK), 0),
            "[]",
            "Networks in which endpoints of registered versions and gates of rollouts may lie, though loopback, link-local and special addresses are refused.",
        ),
        Key::optional(
            "public_url",
            Kind::Text(&LINK),
            "notifications carry no link",
            "Address at which people reach the dashboard, for the links in notifications.",
        ),
    ],
);

static TOKEN: Table = Table::new(
    "A token of the admin API. The file holds only its hash.",
    &[
        Key::required("name", Kind::Text(&TEXT), "Who it belongs to; stands in the history as the author of changes."),
        Key::required(
            "role",
            Kind::Choice(&["viewer", "operator", "admin"]),
            "viewer: reads. operator: also changes splits, pins and rollouts. admin: also versions and snapshots.",
        ),
        Key::required("sha256", Kind::Text(&SHA256), "SHA-256 of the token in hexadecimal."),
    ],
);

static STORE: Table = Table::new(
    "Where the state of the services is kept.",
    &[
        Key::default(
            "path",
            Kind::Text(&FILE),
            "\"switchback.db\"",
            "The database, seen from the folder of this file.",
        ),
        Key::default(
            "last_good",
            Kind::Bool,
            "true",
            "Whether the last good state is kept beside the database, to start with when the database is broken.",
        ),
        Key::optional(
            "secret",
            Kind::Either(&Kind::Text(&LONG_SECRET), &Kind::List(&Kind::Text(&LONG_SECRET), 1)),
            "keys are stored as they are",
            "Encrypts the keys for cookies in the store; the same on all nodes. Of several, the first seals and all open.",
        ),
        Key::optional(
            "keep_events",
            Kind::Integer(1_000, 10_000_000),
            "1000000 in the database, 50000 in etcd",
            "How many events of the history are kept; older ones are removed.",
        ),
        Key::optional(
            "etcd",
            Kind::List(&Kind::Text(&ETCD), 1),
            "the state is kept in path",
            "Addresses of etcd's members, all http or all https, instead of path: one state for a fleet of proxies.",
        ),
        Key::optional("prefix", Kind::Text(&PATH), "\"/switchback\"", "What the keys in etcd begin with.").with("etcd"),
        Key::optional(
            "ca",
            Kind::Text(&FILE),
            "https needs it",
            "PEM file of the authorities from which etcd's certificates come.",
        )
        .with("etcd"),
        Key::optional(
            "cert",
            Kind::Text(&FILE),
            "etcd is shown no certificate",
            "PEM file with the certificate that etcd is shown.",
        )
        .with("key"),
        Key::optional("key", Kind::Text(&FILE), "etcd is shown no certificate", "PEM file with its private key.")
            .with("cert"),
        Key::optional(
            "compact",
            Kind::Bool,
            "true",
            "Whether the leader of the fleet lets etcd forget what was overwritten over a minute ago, for all who use it.",
        )
        .with("etcd"),
        Key::optional("username", Kind::Text(&TEXT), "etcd asks for none", "The user in etcd.").with("password"),
        Key::optional("password", Kind::Text(&SECRET), "etcd asks for none", "The user's password.").with("username"),
    ],
);

static METRICS: Table = Table::new(
    "How much is counted by tenant.",
    &[
        Key::default(
            "tenants",
            Kind::Integer(0, 10_000),
            "20",
            "How many of the busiest and of the worst tenants have metrics of their own; the rest is \"_other\".",
        ),
        Key::default(
            "tracked_tenants",
            Kind::Integer(1, 10_000_000),
            "50000",
            "Tenants that are counted one by one; more share one count.",
        ),
    ],
);
