//! The table of keys, second half: tenants, services, versions and guards.

use super::formats::{
    COOKIE, ENDPOINT, FILE, GROUP, HEADER, HEADER_VALUE, HOST, HOST_PATTERN, HOST_PORT, LINK, METHOD, NETWORK, PATH,
    ROUTE, SECRET, TARGET, TENANT, TENANT_HOST, TENANT_PATH, TEXT, VERSION, VISIBLE_SECRET,
};
use super::keys_limits::LIMITS;
use super::keys_shadow::SHADOW;
use super::kinds::{Key, Kind, Table, hours, ms, secs};
use super::streams::STREAMS;
use super::windows::WINDOW;

/// The algorithms of signatures that are known.
pub(super) const ALGORITHMS: &[&str] =
    &["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

pub(super) static TENANTS: Table = Table::new(
    "How the tenant of a request is found.",
    &[
        Key::default(
            "identify",
            Kind::List(&Kind::Table(&IDENTIFY), 0),
            "[]",
            "Places where a tenant can be named; the first that names one wins.",
        ),
        Key::default(
            "conflict",
            Kind::Choice(&["first", "reject"]),
            "\"first\"",
            "When two places name different tenants: the first wins, or the request is refused with 400.",
        ),
        Key::default(
            "unknown",
            Kind::Choice(&["default", "reject"]),
            "\"default\"",
            "Requests without a tenant: follow the service's split, or are refused with 404.",
        ),
        Key::default(
            "groups",
            Kind::Map(&GROUP, &Kind::List(&Kind::Text(&TENANT), 0)),
            "{}",
            "Tenants by group; a group can have a split and a pin of its own.",
        ),
        Key::default(
            "windows",
            Kind::Map(&TENANT, &Kind::List(&Kind::Table(&WINDOW), 0)),
            "{}",
            "By tenant: when rollouts of any service may move it. Whoever is not named may be moved at any time.",
        ),
    ],
);

static IDENTIFY: Table = Table::new(
    "A place where a tenant can be named.",
    &[
        Key::optional("host", Kind::Text(&TENANT_HOST), "", "Host with {tenant}."),
        Key::optional("header", Kind::Text(&HEADER), "", "Request header."),
        Key::default("trusted", Kind::Bool, "false", "Believe the header only from proxy.trusted.").with("header"),
        Key::optional("path", Kind::Text(&TENANT_PATH), "", "Path that ends with {tenant}."),
        Key::default(
            "strip",
            Kind::Bool,
            "false",
            "Remove this part of the path before services are matched and requests forwarded.",
        )
        .with("path"),
        Key::optional("jwt", Kind::Table(&JWT), "", "Claim of a signed JSON Web Token in authorization: Bearer."),
    ],
)
.one_of(&["host", "header", "path", "jwt"]);

static JWT: Table = Table::new(
    "How a token is checked.",
    &[
        Key::default("claim", Kind::Text(&TEXT), "\"tenant\"", "Claim that holds the tenant."),
        Key::optional("issuer", Kind::Text(&TEXT), "any issuer", "Issuer that tokens must have."),
        Key::optional("audience", Kind::Text(&TEXT), "any audience", "Audience that tokens must have."),
        Key::required("keys", Kind::List(&Kind::Table(&JWT_KEY), 1), "Keys by which tokens may be signed."),
    ],
);

static JWT_KEY: Table = Table::new(
    "A key by which tokens may be signed.",
    &[
        Key::optional("id", Kind::Text(&TEXT), "the key is tried for every token", "Key id (kid) of the tokens."),
        Key::required("algorithm", Kind::Choice(ALGORITHMS), "The only algorithm that is accepted with this key."),
        Key::optional("file", Kind::Text(&FILE), "", "PEM file with the public key."),
        Key::optional("secret", Kind::Text(&SECRET), "", "Shared secret, for HS256, HS384 and HS512."),
    ],
)
.one_of(&["file", "secret"]);

pub(super) static SERVICE_TABLE: Table = Table::new(
    "A service that exists in several versions.",
    &[
        Key::required(
            "match",
            Kind::List(&Kind::Table(&MATCH), 1),
            "Requests that belong to it: any of these rules. The most specific rule of all services wins.",
        ),
        Key::default(
            "sticky",
            Kind::List(&Kind::Table(&STICKY), 0),
            "[]",
            "What keeps a user on one version: the first that is present. Empty: every request is drawn afresh.",
        ),
        Key::default(
            "drain",
            Kind::Bool,
            "false",
            "Sessions leave a version as soon as its share is 0; false: they stay until they end.",
        ),
        Key::required("baseline", Kind::Text(&VERSION), "The version that is trusted: traffic goes back to it."),
        Key::optional(
            "split",
            Kind::Map(&VERSION, &Kind::Percent),
            "100 % on the baseline",
            "Share of each version in percent when the store does not know the service yet; adds up to 100.",
        ),
        Key::optional(
            "salt",
            Kind::Text(&TEXT),
            "each service shuffles its keys in its own way",
            "Services with the same salt give a user versions at the same place of their splits.",
        ),
        Key::optional("choose", Kind::Table(&CHOOSE), "nobody may choose", "How testers may choose a version."),
        Key::default(
            "rescue",
            Kind::Either(&Kind::Bool, &Kind::Table(&RESCUE)),
            "false",
            "Answer a request that failed on the canary from the baseline, where that is safe.",
        ),
        Key::default(
            "skew",
            Kind::List(&Kind::Text(&PATH), 0),
            "[]",
            "Beginnings of paths, such as hashed assets, where a 404 of one version is looked for at the others.",
        ),
        Key::default(
            "deadline",
            Kind::Duration(ms(10), hours(24)),
            "\"1m\"",
            "From the request's head until the answer's, all attempts together; not for streams.",
        ),
        Key::default(
            "client_certificate",
            Kind::Bool,
            "false",
            "Refuse requests of clients that have shown no certificate of proxy.tls.client_ca with 403.",
        ),
        Key::default("headers", Kind::Table(&HEADERS), "{}", "Headers that are added on the way."),
        Key::default(
            "retries",
            Kind::Integer(0, 5),
            "1",
            "How often a request goes to another endpoint of its version when the first took nothing of it.",
        ),
        Key::default(
            "limits",
            Kind::Table(&LIMITS),
            "{}",
            "What each tenant may use of the service; more is answered with 429 and retry-after.",
        ),
        Key::optional("body_limit", Kind::Size(0, 1 << 50), "proxy.limits.body_size", "Largest request body; 0: any."),
        Key::default(
            "grpc_failures",
            Kind::List(&Kind::Integer(1, 16), 0),
            "[2, 4, 12, 13, 14, 15]",
            "gRPC statuses, in header or trailer, that count as failures of the version.",
        ),
        Key::default(
            "route_stats",
            Kind::Bool,
            "true",
            "Count requests by route as well: method and path without ids.",
        ),
        Key::default(
            "routes",
            Kind::List(&Kind::Text(&ROUTE), 0),
            "[]",
            "Routes by name, at most 100: {name} is one segment, /* the rest. Paths that fit none get a name by themselves.",
        ),
        Key::required("versions", Kind::Map(&VERSION, &Kind::Table(&VERSION_TABLE)), "Versions by name."),
        Key::optional(
            "shadow",
            Kind::Table(&SHADOW),
            "nothing is copied",
            "Copies of requests to a version that users do not see.",
        ),
        Key::default(
            "maintenance",
            Kind::Table(&MAINTENANCE),
            "{}",
            "How it answers while it is in maintenance, and who passes. Maintenance itself is begun through the admin API.",
        ),
        Key::default(
            "streams",
            Kind::Table(&STREAMS),
            "{}",
            "What becomes of WebSockets, server-sent events and gRPC calls when a shift takes their key elsewhere.",
        ),
        Key::default("guard", Kind::Table(&GUARD), "{}", "When traffic is shifted back to the baseline."),
        Key::default(
            "windows",
            Kind::List(&Kind::Table(&WINDOW), 0),
            "[]",
            "When rollouts may begin and take steps: in any of these. Empty: at any time. Going back needs no window.",
        ),
    ],
);

static MATCH: Table = Table::new(
    "A rule: all that is given must hold.",
    &[
        Key::optional("host", Kind::Text(&HOST_PATTERN), "any host", "Host; \"*.\" stands for one or more labels."),
        Key::optional("path", Kind::Text(&PATH), "any path", "Beginning of the path, up to a slash or the end."),
        Key::optional(
            "header",
            Kind::Either(&Kind::Text(&HEADER), &Kind::Map(&HEADER, &Kind::Text(&HEADER_VALUE))),
            "any headers",
            "A header that must be there, or headers with the value that each must have.",
        ),
        Key::optional(
            "method",
            Kind::Either(&Kind::Text(&METHOD), &Kind::List(&Kind::Text(&METHOD), 1)),
            "any method",
            "The method, or the methods of which one must be used.",
        ),
    ],
)
.any_of(&["host", "path", "header", "method"]);

static STICKY: Table = Table::new(
    "What keeps a user on one version.",
    &[
        Key::optional("header", Kind::Text(&HEADER), "", "Request header."),
        Key::optional("cookie", Kind::Text(&COOKIE), "", "Cookie of the application, or of the proxy with issue."),
        Key::default("issue", Kind::Bool, "false", "The proxy sets the cookie, signed, for clients without it.")
            .with("cookie"),
        Key::default(
            "max_age",
            Kind::Duration(secs(60), hours(24 * 400)),
            "\"30d\"",
            "How long clients keep the cookie that the proxy sets.",
        )
        .with("issue"),
        Key::optional("address", Kind::Mark, "", "Address of the client."),
        Key::optional("tenant", Kind::Mark, "", "The tenant: all its users stay together. Stands alone."),
        Key::default(
            "session",
            Kind::Bool,
            "false",
            "A signed cookie keeps a session on its version while new sessions follow the split.",
        ),
        Key::default(
            "session_ttl",
            Kind::Duration(secs(60), hours(24 * 30)),
            "\"1h\"",
            "How long a session lasts after its last request, give or take half of it.",
        )
        .with("session"),
        Key::optional(
            "session_cookie",
            Kind::Text(&COOKIE),
            "sb_session_ and the service's name",
            "Name of the session's cookie.",
        )
        .with("session"),
    ],
)
.one_of(&["header", "cookie", "address", "tenant"]);

static CHOOSE: Table = Table::new(
    "How testers may choose a version: from proxy.trusted, or with the secret as VERSION:SECRET.",
    &[
        Key::optional("header", Kind::Text(&HEADER), "not by header", "Header that names the version."),
        Key::optional("cookie", Kind::Text(&COOKIE), "not by cookie", "Cookie that names the version."),
        Key::optional("secret", Kind::Text(&VISIBLE_SECRET), "only from proxy.trusted", "Secret that others must add."),
    ],
)
.any_of(&["header", "cookie"]);

static RESCUE: Table = Table::new(
    "When a request that failed on the canary is answered by the baseline.",
    &[
        Key::default(
            "methods",
            Kind::List(&Kind::Text(&METHOD), 1),
            "[\"GET\", \"HEAD\", \"OPTIONS\", \"PUT\", \"DELETE\"]",
            "Methods of requests that may be sent twice. Others only when nothing was sent, or with idempotency-key.",
        ),
        Key::default(
            "statuses",
            Kind::List(&Kind::Integer(500, 599), 0),
            "[500, 502, 503, 504]",
            "Statuses of the canary that count as failed.",
        ),
        Key::default(
            "grpc",
            Kind::List(&Kind::Integer(1, 16), 0),
            "[14]",
            "gRPC statuses in an answer's header that count as failed.",
        ),
        Key::default(
            "budget",
            Kind::Percent,
            "20",
            "Rescues in percent of the requests that the baseline gets anyway, over ten seconds.",
        ),
        Key::default(
            "reserve",
            Kind::Integer(0, 100_000),
            "5",
            "Rescues per second that are allowed even when the baseline gets little.",
        ),
        Key::optional(
            "rate",
            Kind::Integer(1, 1_000_000),
            "the budget alone",
            "No more rescues per second than this, whatever the budget.",
        ),
    ],
);

static MAINTENANCE: Table = Table::new(
    "How a service in maintenance answers, and who passes.",
    &[
        Key::optional(
            "page",
            Kind::Text(&FILE),
            "a plain page of the proxy",
            "HTML file for browsers, up to 64 KiB; {message} and {retry_after} (seconds) in it are replaced.",
        ),
        Key::optional(
            "bypass_secret",
            Kind::Text(&VISIBLE_SECRET),
            "nobody passes by a secret",
            "Requests with this secret in x-switchback-bypass are served all the same.",
        ),
        Key::default(
            "bypass",
            Kind::List(&Kind::Text(&NETWORK), 0),
            "[]",
            "Addresses and networks whose requests are served all the same.",
        ),
    ],
);

static HEADERS: Table = Table::new(
    "Headers that are added on the way.",
    &[
        Key::default("version", Kind::Bool, "true", "x-switchback-version towards clients."),
        Key::default("server_timing", Kind::Bool, "false", "server-timing towards clients."),
        Key::default("forwarded", Kind::Bool, "false", "forwarded (RFC 7239) towards endpoints."),
    ],
);

pub(super) static VERSION_TABLE: Table = Table::new(
    "A release of the service.",
    &[
        Key::required(
            "endpoints",
            Kind::List(&Kind::Text(&ENDPOINT), 1),
            "Addresses host:port; a host may contain {tenant}.",
        ),
        Key::optional(
            "health",
            Kind::Table(&HEALTH),
            "endpoints count as healthy until requests fail to connect",
            "Active checks of the endpoints.",
        ),
        Key::default("timeouts", Kind::Table(&TIMEOUTS), "{}", "Deadlines towards the endpoints."),
        Key::optional(
            "path",
            Kind::Text(&PATH),
            "the split alone decides",
            "Beginning of the path that selects this version whatever the split says.",
        ),
        Key::optional(
            "rewrite",
            Kind::Table(&REWRITE),
            "paths stay as they are",
            "Replaces the beginning of the path on the way to the endpoints.",
        ),
        Key::default("http2", Kind::Bool, "false", "Speak HTTP/2 to the endpoints; gRPC needs it."),
        Key::optional("tls", Kind::Table(&UPSTREAM_TLS), "no TLS", "Speak TLS to the endpoints."),
        Key::optional(
            "host",
            Kind::Text(&HOST_PORT),
            "what the client said",
            "What the host header says towards the endpoints.",
        ),
        Key::optional(
            "deprecated",
            Kind::Table(&DEPRECATED),
            "it is not deprecated",
            "Tells clients to move away from this version.",
        ),
        Key::default(
            "upgrade_from",
            Kind::List(&Kind::Text(&VERSION), 0),
            "[]",
            "Versions from which a rollout may go to this one directly; others go through them. Empty: from any.",
        ),
    ],
);

static DEPRECATED: Table = Table::new(
    "What clients of a deprecated version are told in every answer.",
    &[
        Key::required("since", Kind::Date, "Since when, or from when on, it is deprecated: the header Deprecation."),
        Key::optional("sunset", Kind::Date, "no header Sunset", "When it will stop being served: the header Sunset."),
        Key::optional("link", Kind::Text(&LINK), "no header Link", "Page about it: the header Link."),
    ],
);

static HEALTH: Table = Table::new(
    "Active checks of the endpoints.",
    &[
        Key::optional("path", Kind::Text(&TARGET), "a TCP connection is enough", "Path that must answer with 2xx."),
        Key::default("interval", Kind::Duration(ms(100), hours(1)), "\"2s\"", "Time between two checks."),
        Key::default("timeout", Kind::Duration(ms(10), hours(1)), "\"1s\"", "How long an answer may take."),
        Key::default(
            "healthy_after",
            Kind::Integer(1, 100),
            "2",
            "Good checks in a row until an endpoint is used again.",
        ),
        Key::default(
            "unhealthy_after",
            Kind::Integer(1, 100),
            "3",
            "Failed checks in a row until an endpoint is left out.",
        ),
    ],
);

static TIMEOUTS: Table = Table::new(
    "Deadlines towards the endpoints.",
    &[
        Key::default("connect", Kind::Duration(ms(1), hours(1)), "\"1s\"", "Until a connection stands, TLS included."),
        Key::default(
            "response",
            Kind::Duration(ms(1), hours(24)),
            "\"30s\"",
            "From the end of the request until the head of the answer is there, streams included.",
        ),
        Key::default("read", Kind::Duration(ms(1), hours(24)), "\"30s\"", "Between two parts of the answer."),
        Key::default(
            "idle",
            Kind::Duration(ms(1), hours(24)),
            "\"1m\"",
            "Between two parts of a request body that the endpoint takes.",
        ),
        Key::default(
            "stream",
            Kind::Duration(ms(1), hours(24 * 30)),
            "\"1h\"",
            "Instead of read and idle for WebSocket, server-sent events and gRPC.",
        ),
        Key::default(
            "keepalive",
            Kind::Duration(ms(1), hours(24)),
            "\"30s\"",
            "How long an unused connection is kept; stay below the endpoint's own keep-alive.",
        ),
    ],
);

static REWRITE: Table = Table::new(
    "Replaces the beginning of the path at slashes.",
    &[
        Key::required("from", Kind::Text(&PATH), "What is replaced."),
        Key::required("to", Kind::Text(&PATH), "What stands there instead."),
    ],
);

static UPSTREAM_TLS: Table = Table::new(
    "TLS towards the endpoints.",
    &[
        Key::optional("server_name", Kind::Text(&HOST), "the endpoint's host", "Name that the certificate must have."),
        Key::default("verify", Kind::Bool, "true", "Off only for test set-ups: any certificate is accepted."),
        Key::optional(
            "ca",
            Kind::Text(&FILE),
            "the authorities of the system",
            "PEM file with the authorities that the certificate must come from, and no others.",
        ),
        Key::optional(
            "cert",
            Kind::Text(&FILE),
            "the proxy shows no certificate",
            "PEM file with the certificate, and its chain, that the proxy shows to the endpoints.",
        )
        .with("key"),
        Key::optional("key", Kind::Text(&FILE), "", "PEM file with the certificate's private key.").with("cert"),
    ],
);

static GUARD: Table = Table::new(
    "When traffic is shifted back to the baseline.",
    &[
        Key::default("enabled", Kind::Bool, "true", "Off: nothing is judged and nothing shifted back."),
        Key::default("tolerance", Kind::Table(&TOLERANCE), "{}", "Differences that do not matter."),
        Key::default("ceiling", Kind::Percent, "5", "Share of failures that breaks the service's objective."),
        Key::default(
            "patience",
            Kind::Duration(ms(100), secs(15)),
            "\"1s\"",
            "What happens within this time counts as one hiccup: three to four of them in a row shift traffic back.",
        ),
        Key::default(
            "error_probability",
            Kind::Number(1e-9, 0.05),
            "0.0001",
            "Probability that a version as good as the baseline is ever shifted back, per attempt and hour.",
        ),
        Key::default("latency", Kind::Bool, "true", "Whether slow answers count."),
        Key::default(
            "latency_tolerance",
            Kind::Number(1.0, 10.0),
            "1.05",
            "An answer is slow when it takes longer than the baseline's percentile times this.",
        ),
        Key::default("client_errors", Kind::Bool, "false", "Whether answers of 4xx count as failures."),
        Key::default("brake", Kind::Bool, "true", "Hold the share back while evidence is being confirmed."),
        Key::default("fleet", Kind::Bool, "true", "Judge all tenants together as well."),
        Key::default(
            "health",
            Kind::Bool,
            "true",
            "Shift back a version without any healthy endpoint while the baseline has one.",
        ),
        Key::optional("max_error_rate", Kind::Percent, "no limit", "Plain limit: share of failures in the window."),
        Key::optional(
            "max_p99",
            Kind::Duration(ms(1), hours(1)),
            "no limit",
            "Plain limit: 99th percentile of latency in the window.",
        ),
        Key::default(
            "min_requests",
            Kind::Integer(1, 1_000_000_000),
            "100",
            "Requests that the window must hold before a plain limit counts.",
        ),
        Key::default("window", Kind::Duration(secs(1), hours(1)), "\"1m\"", "The time that plain limits look at."),
    ],
);

static TOLERANCE: Table = Table::new(
    "Differences that do not matter.",
    &[
        Key::default(
            "ratio",
            Kind::Number(1.0, 10.0),
            "1.1",
            "A version may fail this many times as often as the baseline, …",
        ),
        Key::default("difference", Kind::Percent, "0.05", "… plus this share of its requests, in percent."),
    ],
);
